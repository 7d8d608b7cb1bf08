"""Who may do what in an application: "green may write, orange may read". What no rule allows is denied.

`hsmsign.tls.reading` reads rules from a file.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote

from hsmsign.model.patterns import matcher
from hsmsign.tls import paths
from hsmsign.tls.peer import Peer

WEBSOCKET = "WEBSOCKET"
"""The method in a rule for opening a WebSocket, over which a peer may read and write."""
METHOD = re.compile(r"[A-Z][A-Z0-9_-]{0,31}")
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Request:
    """A request of HTTP."""

    method: str
    """In upper case; it is compared as it is (RFC 9110, section 9.1)."""
    path: str
    """Decoded, as the application has it; no query."""
    raw: bytes | None = None
    """The path as it was sent, where the server tells."""
    upgrade: bool = False
    """Whether it opens a WebSocket; the method is WEBSOCKET then, and in no other case."""

    @classmethod
    def sent(cls, method: str, target: str) -> Request:
        """One whose path is given as it is sent; a query is left out."""
        raw = target.partition("?")[0]
        return cls(method, unquote(raw), raw.encode(errors="replace"), method == WEBSOCKET)

    def unclear(self) -> str:
        """Why no rule allows that, whatever it says; or nothing."""
        if not METHOD.fullmatch(self.method) or (self.method == WEBSOCKET) != self.upgrade:
            return "no method of HTTP"
        return paths.unclear(self.path, self.raw)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class Call:
    """A call of gRPC."""

    name: str
    """/package.Service/Method"""

    def unclear(self) -> str:
        """Why no rule allows that, whatever it says; or nothing."""
        return paths.unclear_call(self.name)

    def __str__(self) -> str:
        return f"call {self.name}"


Action = Request | Call


@dataclass(frozen=True, slots=True)
class Rule:
    """Allows peers that match a pattern something: requests, or calls. Checked by whoever made it."""

    place: str
    """Where it stands, `rights.toml:12`."""
    peers: tuple[str, ...]
    """Patterns of names: `*` stands for any text."""
    methods: tuple[str, ...] = ()
    """Methods of HTTP; none: any, if there are paths."""
    paths: tuple[str, ...] = ()
    """Patterns of paths; none: any, if there are methods."""
    calls: tuple[str, ...] = ()
    """Patterns of full names of gRPC methods."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether, by which rule (None where none allows it), and why, in words."""

    allowed: bool
    rule: Rule | None
    why: str


class Decider(Protocol):
    """Rules, or what knows the rules that are in force now."""

    def decide(self, peer: Peer, action: Action) -> Decision:
        """Whether the peer may do that."""
        ...


class Rules:
    """Rules that are in force. Remembers which are about whom."""

    def __init__(self, source: str, rules: tuple[Rule, ...]) -> None:
        """`source` is the file that they come from."""
        self.source = source
        self.rules = rules
        self._compiled = tuple(_Compiled(rule) for rule in rules)
        self._known: dict[tuple[str, ...], tuple[_Compiled, ...]] = {}

    def decide(self, peer: Peer, action: Action) -> Decision:
        """Whether the peer may do that: the first rule that allows it."""
        if why := action.unclear():
            return Decision(False, None, why)
        about = self._about(peer)
        for one in about:
            if not one.obstacle(action):
                return Decision(True, one.rule, f"{one.rule.place} allows it")
        return Decision(False, None, "no rule allows it" if about else "no rule is about this peer")

    def explain(self, peer: Peer, action: Action) -> list[tuple[Rule, str]]:
        """Every rule about the peer, with why it does not allow that; nothing where it does."""
        return [(one.rule, one.obstacle(action)) for one in self._about(peer)]

    def _about(self, peer: Peer) -> tuple[_Compiled, ...]:
        found = self._known.get(peer.names)
        if found is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            found = tuple(one for one in self._compiled if any(map(one.is_about, peer.names)))
            self._known[peer.names] = found
        return found


class _Compiled:
    """A rule with its patterns made ready."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.is_about = matcher(rule.peers)
        self._methods = frozenset(rule.methods)
        self._paths: Callable[[str], bool] | None = paths.matcher(rule.paths) if rule.paths else None
        self._calls: Callable[[str], bool] | None = paths.matcher(rule.calls) if rule.calls else None

    def obstacle(self, action: Action) -> str:
        """Why the rule does not allow that; nothing where it does."""
        if isinstance(action, Call):
            return self._of_call(action)
        if not self._methods and self._paths is None:
            return "about calls of gRPC"
        if self._methods and action.method not in self._methods:
            return f"about other methods: {', '.join(self.rule.methods)}"
        if self._paths is not None and not self._paths(action.path):
            return f"about other paths: {', '.join(self.rule.paths)}"
        return ""

    def _of_call(self, call: Call) -> str:
        if self._calls is None:
            return "about requests of HTTP"
        return "" if self._calls(call.name) else f"about other calls: {', '.join(self.rule.calls)}"

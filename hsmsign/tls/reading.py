"""Reads rules from a file, checks them whole, and reads them again when the file changes."""

from __future__ import annotations

import difflib
import logging
import os
import re
import threading
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hsmsign.model.errors import ConfigurationError
from hsmsign.tls import paths
from hsmsign.tls.peer import Peer
from hsmsign.tls.rules import METHOD, Action, Decision, Rule, Rules

SCHEMES = ("spiffe://", "dns:", "email:", "sha256:")
"""How names of peers begin."""
_KEYS = ("peers", "methods", "paths", "calls", "note")
_USUAL = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WEBSOCKET")
_HEADER = re.compile(r"^\s*\[\[\s*rule\s*\]\]\s*(?:#.*)?$")
_LONGEST = 512
_MAX_BYTES = 1 << 20
_PAUSE = 1.0
"""Seconds between two looks at the file."""
_HINT = "see docs/rights.md"


def read(path: Path) -> Rules:
    """Read a file of rules. Raises ConfigurationError with everything that is wrong with it."""
    return _read(path)[0]


def parse(text: str, source: str) -> Rules:
    """Rules from the text of a file. Raises ConfigurationError."""
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigurationError(f"the rules {source} are not TOML: {error}", hint=_HINT) from error
    problems = [_unknown(key, key, ("rule",)) for key in values if key != "rule"]
    tables = values.get("rule", [])
    if not isinstance(tables, list) or not tables or not all(isinstance(one, dict) for one in tables):
        problems.append("there is no [[rule]], so that nothing would be allowed")
        tables = []
    for number, table in enumerate(tables, 1):
        problems += [f"rule {number}: {one}" for one in _problems(table)]
    if problems:
        raise ConfigurationError(f"the rules {source}: {'; '.join(problems)}", hint=_HINT)
    places = _places(len(tables), Path(source).name, text)
    return Rules(source, tuple(_rule(table, place) for table, place in zip(tables, places, strict=True)))


class RuleFile:
    """The rules of a file, as it is now: looked at when they are asked for, once a second at most.

    A file that cannot be read, or has a mistake, changes nothing: the rules that were in force stay so, and one line
    in the log says what is wrong. May be used by several threads.
    """

    def __init__(self, path: Path | str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Reads it. Raises ConfigurationError. `clock` tells seconds."""
        self._path = Path(path)
        self._clock = clock
        self._lock = threading.Lock()
        self._log = logging.getLogger("hsmsign.tls.rights")
        self._rules, self._seen = _read(self._path)
        self._next = clock() + _PAUSE

    def current(self) -> Rules:
        """Those in force."""
        if self._clock() >= self._next and self._lock.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._lock.release()
        return self._rules

    def decide(self, peer: Peer, action: Action) -> Decision:
        """By the rules in force."""
        return self.current().decide(peer, action)

    def _look(self) -> None:
        self._next = self._clock() + _PAUSE
        state = _state(self._path)
        if state == self._seen:
            return
        try:
            self._rules, self._seen = _read(self._path)
        except ConfigurationError as error:
            self._seen = state
            self._log.error("the rules stay as they were: %s", error.message)
        else:
            self._log.info("new rules from %s are in force", self._path)


_State = tuple[int, int, int, int] | None


def _state(path: Path) -> _State:
    """What changes when a file does; None where there is none."""
    try:
        return _of(path.stat())
    except OSError:
        return None


def _of(stat: os.stat_result) -> _State:
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


def _read(path: Path) -> tuple[Rules, _State]:
    try:
        with path.open("rb") as file:
            state = _of(os.fstat(file.fileno()))
            data = file.read(_MAX_BYTES + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot read the rules {path}: {error.strerror}", hint=_HINT) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"the rules {path} are not UTF-8: {error}", hint=_HINT) from error
    if len(data) > _MAX_BYTES:
        raise ConfigurationError(f"the rules {path} have more than {_MAX_BYTES} bytes", hint=_HINT)
    return parse(text, str(path)), state


def _problems(table: dict[str, Any]) -> list[str]:
    """Everything that is wrong with a rule."""
    found = [_unknown(key, key, _KEYS) for key in table if key not in _KEYS]
    if not isinstance(table.get("note", ""), str):
        found.append("note is a text")
    checks = {"peers": _check_peer, "methods": _check_method, "paths": paths.check_path, "calls": paths.check_call}
    for key, check in checks.items():
        if key in table:
            found += _wrong(key, table[key], check)
    if "peers" not in table:
        found.append('it is about nobody: say peers = ["spiffe://example.org/green"]')
    requests, calls = "methods" in table or "paths" in table, "calls" in table
    if requests and calls:
        found.append("methods and paths are of HTTP, calls of gRPC: make it two rules")
    if not requests and not calls:
        found.append("it allows nothing: say methods, paths or calls")
    return found


def _wrong(key: str, said: object, check: Callable[[str], None]) -> list[str]:
    if not isinstance(said, list) or not said or not all(isinstance(one, str) for one in said):
        return [f"{key} is a list of texts, one at least"]
    found = []
    for one in said:
        try:
            if not 0 < len(one) <= _LONGEST:
                raise ValueError(f"a text has 1 to {_LONGEST} characters")
            check(one)
        except ValueError as error:
            found.append(f"{key}: {error}")
    return found


def _check_peer(pattern: str) -> None:
    if pattern.startswith("subject:"):
        raise ValueError(f"{pattern!r} is a distinguished name, which rules do not go by: name a SAN, or sha256:…")
    if pattern != "*" and not pattern.startswith(SCHEMES):
        raise ValueError(f"{pattern!r} is no peer: they begin with {', '.join(SCHEMES)}; or '*', which is any")


def _check_method(method: str) -> None:
    if not METHOD.fullmatch(method):
        near = difflib.get_close_matches(method.upper()[:32], _USUAL, n=1)
        raise ValueError(f"{method!r} is no method: they are in upper case{_meant(near)}")


def _unknown(key: str, shown: str, known: tuple[str, ...]) -> str:
    return f"unknown key {shown!r}{_meant(difflib.get_close_matches(key[:80], known, n=1))}"


def _meant(near: list[str]) -> str:
    return f" (did you mean {near[0]!r}?)" if near else ""


def _rule(table: dict[str, Any], place: str) -> Rule:
    lists = {key: tuple(table.get(key, ())) for key in ("peers", "methods", "paths", "calls")}
    return Rule(place=place, **lists)


def _places(count: int, name: str, text: str) -> list[str]:
    """Where each rule stands: TOML's reader does not say, but a rule nearly always has a line for its header."""
    lines = [number for number, line in enumerate(text.splitlines(), 1) if _HEADER.match(line)]
    if len(lines) == count:
        return [f"{name}:{line}" for line in lines]
    return [f"{name}, [[rule]] number {number}" for number in range(1, count + 1)]

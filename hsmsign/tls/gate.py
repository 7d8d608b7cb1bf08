"""Stands before an application, whatever its protocol: who comes, whether it may, and a line in the log where not."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable

from hsmsign.model.errors import HsmsignError, PermissionDeniedError, UnauthenticatedError
from hsmsign.tls.peer import Peer
from hsmsign.tls.rules import Action, Decider

PROBLEM = "application/problem+json"
CHALLENGE = "ClientCertificate"
"""RFC 9110 wants a challenge beside a 401, and no scheme that is registered asks for a certificate."""
_LONGEST = 200


class Gate:
    """Lets through whom the rules allow. Without side effects but the log; may be used by several threads."""

    def __init__(self, rules: Decider, *, clock: Callable[[], float] = time.time) -> None:
        """`rules` are `Rules`, or a `RuleFile`; `clock` tells seconds since 1970."""
        self._rules = rules
        self._clock = clock
        self._log = logging.getLogger("hsmsign.tls.rights")

    def check(self, find: Callable[[], Peer | None], action: Action) -> Peer:
        """The peer that `find` finds. Raises UnauthenticatedError for nobody, PermissionDeniedError for one that may
        not do that."""
        try:
            peer = self._identify(find)
        except UnauthenticatedError as error:
            self._log.warning("refused: nobody may %s: %s", shown(str(action)), shown(error.message))
            raise
        decision = self._rules.decide(peer, action)
        if decision.allowed:
            return peer
        self._log.warning("refused: %s may not %s: %s", shown(peer.name), shown(str(action)), decision.why)
        raise PermissionDeniedError(
            f"{shown(peer.name)} may not {shown(str(action))}",
            hint="who keeps the rules sees why: hsmsign tls check-rules",
            metadata={"principal": shown(peer.name)},
        )

    def _identify(self, find: Callable[[], Peer | None]) -> Peer:
        peer = find()
        if peer is None:
            raise UnauthenticatedError(
                "the client did not prove who it is", hint="come with a client certificate (mutual TLS)"
            )
        # TLS looked at the dates when the connection began
        if not peer.not_before <= self._clock() <= peer.not_after:
            raise UnauthenticatedError(
                f"the certificate of {shown(peer.name)} has expired", hint="connect again with a new one"
            )
        return peer


def shown(text: str) -> str:
    """A text of somebody else, short and in one line."""
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return cut if cut.isprintable() else ascii(cut)[1:-1]


def status(error: HsmsignError) -> tuple[int, str]:
    """The status of HTTP for what a gate refuses."""
    return (401, "Unauthorized") if isinstance(error, UnauthenticatedError) else (403, "Forbidden")


def problem(error: HsmsignError) -> tuple[list[tuple[str, str]], bytes]:
    """Headers and content of the answer (RFC 9457)."""
    code, title = status(error)
    said = {"type": "about:blank", "title": title, "status": code, "detail": error.message}
    body = json.dumps(said).encode()
    headers = [("content-type", PROBLEM), ("content-length", str(len(body))), ("cache-control", "no-store")]
    return headers + ([("www-authenticate", CHALLENGE)] if code == 401 else []), body

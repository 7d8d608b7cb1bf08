"""How much a caller may have signed: rates, and how much at a time. Over it the answer comes at once, with when to
come again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hsmsign.ledger import Claim, Claims, Ledger, Refused
from hsmsign.model.caller import Caller
from hsmsign.model.errors import CallerLimitError
from hsmsign.model.key_facts import KeyFacts
from hsmsign.model.patterns import matcher
from hsmsign.policy import Limit, LimitScope

_REMEMBERED = 65_536
_SOON = 0.1
"""Seconds after which something that is under way may have ended."""


class Admission:
    """Counts what each caller has under way, and how fast it comes. Belongs to one event loop; what several workers let
    in is counted together where their ledger is one."""

    def __init__(
        self,
        limits: tuple[Limit, ...],
        max_in_flight: int,
        *,
        ledger: Ledger | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`max_in_flight`: signatures of one caller that may be under way, whatever the policy says. `ledger`: None:
        nobody else counts."""
        self._limits = [(limit, matcher(limit.principals), matcher(limit.keys)) for limit in limits]
        self._max = max_in_flight
        self._clock = clock
        self._ledger = ledger or Ledger.alone()
        self._known: dict[tuple[Caller, str], Claims] = {}
        self._alone: dict[str, Claims] = {}
        """By the caller's name, where there are no limits but the one of each caller."""

    @contextmanager
    def admit(self, caller: Caller, key: KeyFacts, count: int) -> Iterator[None]:
        """Let `count` signatures in while the context lasts. Raises CallerLimitError."""
        claims = self._known.get((caller, key.id)) if self._limits else self._alone.get(caller.name)
        if claims is None:
            claims = self._learn(caller, key)
        refused = self._ledger.enter(claims, count, round(self._clock() * 1e9) if claims.rated else 0)
        if refused is not None:
            raise self._refusal(caller, key, refused, first=refused.limit is claims.limits[0])
        try:
            yield
        finally:
            self._ledger.leave(claims, count)

    def _learn(self, caller: Caller, key: KeyFacts) -> Claims:
        if len(self._known) + len(self._alone) >= _REMEMBERED:
            self._known.clear()
            self._alone.clear()
        found = [Claim(("in flight", caller.name), most=self._max)]
        found += [
            _claim(limit, caller, key)
            for limit, principals, keys in self._limits
            if any(principals(name) for name in caller.names) and keys(key.id)
        ]
        claims = Claims(found)
        if self._limits:
            self._known[caller, key.id] = claims
        else:
            self._alone[caller.name] = claims
        return claims

    def _refusal(self, caller: Caller, key: KeyFacts, refused: Refused, *, first: bool) -> CallerLimitError:
        limit = refused.limit
        if first:
            return CallerLimitError(
                f"{caller.name} has {refused.under_way} signatures under way, and may have {limit.most}",
                hint="wait for some of them; see server.limits.max_in_flight_per_caller",
                metadata={"principal": caller.name},
                retry_after=_SOON,
            )
        place = limit.who[1]
        words = f"{limit.rate:g} a second" if refused.wait else f"{limit.most} at a time"
        return CallerLimitError(
            f"{caller.name} asks for more signatures of keys/{key.id} than it may have: {words} ({place})",
            hint="send them more slowly; who keeps the policy can allow more",
            metadata={"principal": caller.name, "limit": place},
            retry_after=refused.wait or _SOON,
        )


def _claim(limit: Limit, caller: Caller, key: KeyFacts) -> Claim:
    """With its figures: one that a reload changed is another, and begins anew."""
    principal = caller.name if limit.per is not LimitScope.KEY else ""
    id = key.id if limit.per is not LimitScope.PRINCIPAL else ""
    figures = f"{limit.rate!r}/{limit.burst}/{limit.concurrency}"
    return Claim(("limit", limit.place, principal, id, figures), limit.concurrency, limit.rate, limit.burst)

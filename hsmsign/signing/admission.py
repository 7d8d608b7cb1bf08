"""How much a caller may have signed: rates, and how much at a time. Over it the answer comes at once, with when to
come again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hsmsign.model.caller import Caller
from hsmsign.model.errors import CallerLimitError
from hsmsign.model.key_facts import KeyFacts
from hsmsign.model.patterns import matcher
from hsmsign.policy import Limit, LimitScope

_REMEMBERED = 65_536
_SOON = 0.1
"""Seconds after which something that is under way may have ended."""


class Admission:
    """Counts what each caller has under way, and how fast it comes. Belongs to one event loop."""

    def __init__(
        self, limits: tuple[Limit, ...], max_in_flight: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`max_in_flight`: signatures of one caller that may be under way, whatever the policy says."""
        self._limits = [(limit, matcher(limit.principals), matcher(limit.keys)) for limit in limits]
        self._max = max_in_flight
        self._clock = clock
        self._in_flight: dict[str, int] = {}
        self._meters: dict[tuple[str, str, str], _Meter] = {}
        self._known: dict[tuple[Caller, str], list[_Meter]] = {}

    @contextmanager
    def admit(self, caller: Caller, key: KeyFacts, count: int) -> Iterator[None]:
        """Let `count` signatures in while the context lasts. Raises CallerLimitError."""
        under_way = self._in_flight.get(caller.name, 0)
        if under_way and under_way + count > self._max:
            raise CallerLimitError(
                f"{caller.name} has {under_way} signatures under way, and may have {self._max}",
                hint="wait for some of them; see server.limits.max_in_flight_per_caller",
                metadata={"principal": caller.name},
                retry_after=_SOON,
            )
        meters = self._of(caller, key) if self._limits else ()
        now = self._clock() if meters else 0.0
        for meter in meters:
            meter.check(caller, key, count, now)
        for meter in meters:
            meter.enter(count)
        self._in_flight[caller.name] = under_way + count
        try:
            yield
        finally:
            for meter in meters:
                meter.in_flight -= count
            left = self._in_flight[caller.name] - count
            if left:
                self._in_flight[caller.name] = left
            else:
                del self._in_flight[caller.name]

    def _of(self, caller: Caller, key: KeyFacts) -> list[_Meter]:
        asked = (caller, key.id)
        known = self._known.get(asked)
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._forget()
            known = self._known[asked] = [
                self._meter(limit, caller, key)
                for limit, principals, keys in self._limits
                if any(principals(name) for name in caller.names) and keys(key.id)
            ]
        return known

    def _meter(self, limit: Limit, caller: Caller, key: KeyFacts) -> _Meter:
        principal = caller.name if limit.per is not LimitScope.KEY else ""
        id = key.id if limit.per is not LimitScope.PRINCIPAL else ""
        return self._meters.setdefault((limit.place, principal, id), _Meter(limit, self._clock()))

    def _forget(self) -> None:
        """Those that count nothing at the moment can be made anew."""
        now = self._clock()
        self._meters = {place: meter for place, meter in self._meters.items() if not meter.idle(now)}
        self._known.clear()


class _Meter:
    """One limit for one principal, key, or both."""

    def __init__(self, limit: Limit, now: float) -> None:
        self.limit = limit
        self.in_flight = 0
        self._tokens = float(limit.burst)
        self._filled = now

    def check(self, caller: Caller, key: KeyFacts, count: int, now: float) -> None:
        """Raise CallerLimitError where that is more than may be."""
        limit = self.limit
        if limit.concurrency and self.in_flight and self.in_flight + count > limit.concurrency:
            raise self._refusal(caller, key, f"{limit.concurrency} at a time", _SOON)
        if limit.rate:
            self._fill(now)
            # A batch may take more than there is, and what comes after it waits the longer: else one that is
            # larger than the burst could never be signed.
            if self._tokens < 1:
                raise self._refusal(caller, key, f"{limit.rate:g} a second", (1 - self._tokens) / limit.rate)

    def enter(self, count: int) -> None:
        """Count them."""
        self.in_flight += count
        if self.limit.rate:
            self._tokens -= count

    def idle(self, now: float) -> bool:
        """Whether a new one would not be different."""
        self._fill(now)
        return not self.in_flight and self._tokens >= self.limit.burst

    def _fill(self, now: float) -> None:
        self._tokens = min(float(self.limit.burst), self._tokens + (now - self._filled) * self.limit.rate)
        self._filled = now

    def _refusal(self, caller: Caller, key: KeyFacts, words: str, wait: float) -> CallerLimitError:
        return CallerLimitError(
            f"{caller.name} asks for more signatures of keys/{key.id} than it may have: {words} ({self.limit.place})",
            hint="send them more slowly; who keeps the policy can allow more",
            metadata={"principal": caller.name, "limit": self.limit.place},
            retry_after=wait,
        )

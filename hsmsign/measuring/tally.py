"""What the callers of one load count together while it runs, and what comes of it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from hsmsign.model.errors import HsmsignError


@dataclass(frozen=True, slots=True)
class Figures:
    """What came of a load. Latencies are in seconds, of a call; of a stream, of a signature."""

    signatures: int
    rate: float
    """Signatures a second."""
    p50: float
    p99: float


class Tally:
    """Counts calls until its time is over, somebody stops it, or one of them fails. Several threads may use it."""

    def __init__(self, seconds: float, each: int = 1) -> None:
        """`each` is the number of signatures of a call."""
        self.seconds = seconds
        self._each = each
        self._latencies: list[float] = []
        self._stopped = False
        self._began = self._ended = time.perf_counter()
        self.failure: HsmsignError | None = None
        """The first error of a caller: there is nothing to be said of the rest."""

    def begin(self) -> None:
        """The time runs from now on."""
        self._began = self._ended = time.perf_counter()

    @property
    def over(self) -> bool:
        """Whether a caller should make no further call."""
        return self._stopped or time.perf_counter() >= self._began + self.seconds

    def add(self, began: float) -> None:
        """A call is done that began then (`time.perf_counter`)."""
        now = time.perf_counter()
        self._latencies.append(now - began)
        self._ended = now  # whichever thread writes last: they are microseconds apart

    def fail(self, error: HsmsignError) -> None:
        """A call failed, which ends the load."""
        self.failure = self.failure or error
        self._stopped = True

    def stop(self) -> None:
        """Somebody has seen enough."""
        self._stopped = True

    def figures(self) -> Figures | None:
        """What came of it so far; None where no call was done."""
        times = sorted(self._latencies)
        if not times:
            return None
        signatures, took = len(times) * self._each, self._ended - self._began
        return Figures(signatures, signatures / took if took else 0.0, _under(times, 0.5), _under(times, 0.99))


def _under(times: list[float], share: float) -> float:
    """What this share of calls stayed under, or at (the nearest rank)."""
    return times[max(0, math.ceil(share * len(times)) - 1)]

"""How long to wait before something that failed is done again."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 3600.0


@dataclass(slots=True)
class Pause:
    """How long to wait before something is done again: longer with every failure."""

    longest: float = _LONGEST_PAUSE
    """Seconds."""
    _seconds: float = _FIRST_PAUSE
    _until: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds that are still to wait, or 0."""
        return max(0.0, self._until - time.monotonic())

    def failed(self) -> float:
        """Seconds until it is tried again: for who reads of it."""
        told = self._seconds
        # so that not all ask at once
        self._until = time.monotonic() + told * random.uniform(0.8, 1.2)  # noqa: S311
        self._seconds = min(told * 2, self.longest)
        return told

    def done(self, seconds: float) -> None:
        """It went well; the next time is in so many seconds."""
        self._seconds = _FIRST_PAUSE
        self._until = time.monotonic() + seconds

"""Breaks a device off that keeps failing: callers hear so at once, and one of them tries it now and then."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from hsmsign.model.device import JobFailure, JobStatus, SignOutcome
from hsmsign.model.errors import DeviceUnavailableError

TRIPS_AT = 16
"""Signatures that failed one after the other, with none between them that was made."""
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
_PROBE = 30.0
"""Seconds after which a try that was never heard of again is no longer waited for."""
_OF_THE_DEVICE = frozenset({0x2, 0x30, 0x31, 0x32})
"""CKR_HOST_MEMORY, CKR_DEVICE_ERROR, CKR_DEVICE_MEMORY, CKR_DEVICE_REMOVED. Other codes may be a key's fault, and one
bad key must not break its device off for others."""
_log = structlog.get_logger(__name__)


class Breaker:
    """One device. Belongs to one event loop."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._failed = 0
        self._pause = _FIRST_PAUSE
        self._opens_at = 0.0

    @property
    def broken_off(self) -> bool:
        """Whether callers are refused."""
        return self._failed >= TRIPS_AT

    def refuses(self) -> bool:
        """Whether an order would be refused now."""
        return self.broken_off and self._clock() < self._opens_at

    def check(self) -> bool:
        """Let an order through: whether it is one that tries a device that is broken off. Raises
        DeviceUnavailableError where it is not time to try."""
        if self._failed < TRIPS_AT:
            return False
        now = self._clock()
        if now < self._opens_at:
            raise DeviceUnavailableError(
                f"the device of backend {self._name!r} failed {self._failed} times in a row and is broken off for now",
                hint="look at it: hsmsign backend list; it is tried again by itself",
                metadata={"backend": self._name},
                retry_after=self._opens_at - now,
            )
        self._opens_at = now + _PROBE  # this one tries; the others wait for what becomes of it
        return True

    def unheard(self) -> None:
        """Nothing will become of an order: it went elsewhere, or its caller did. Another tries after the pause."""
        if self.broken_off:
            self._opens_at = min(self._opens_at, self._clock() + self._pause)

    def heard(self, outcome: SignOutcome) -> None:
        """What became of an order."""
        if len(outcome.failures) < len(outcome.signatures):
            if self.broken_off:
                _log.info("a device that was broken off signs again", backend=self._name)
            self._failed, self._pause = 0, _FIRST_PAUSE
            return
        failed = sum(map(_is_the_devices_fault, outcome.failures))
        if self.broken_off and failed:
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        self._failed += failed
        if self.broken_off:
            self._opens_at = self._clock() + self._pause
            _log.error("a device keeps failing", backend=self._name, failures=self._failed, seconds=self._pause)


def _is_the_devices_fault(failure: JobFailure) -> bool:
    if failure.status is JobStatus.DEVICE_ERROR:
        return failure.ckr in _OF_THE_DEVICE
    return failure.status is JobStatus.HOST_LOST

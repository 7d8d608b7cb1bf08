"""What happens to a daemon in a bad year, in a few minutes."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from tests.support.daemon import Daemon
from tests.support.softhsm import Faults

_FAULTS = (
    "C_Sign rv=CKR_DEVICE_ERROR count=20",
    "C_Sign rv=CKR_DEVICE_MEMORY count=20",
    "C_Sign rv=CKR_FUNCTION_FAILED count=20",
    "C_Sign rv=CKR_SESSION_HANDLE_INVALID count=5",
    "C_SignInit rv=CKR_SESSION_CLOSED count=5",
    "C_SignInit rv=CKR_USER_NOT_LOGGED_IN count=5",
    "C_SignInit lose after=5 count=1",
    "C_Sign rv=CKR_TOKEN_NOT_PRESENT count=3",
    "C_Sign delay_ms=3",
    "C_Sign crash after=50",
    "C_Sign hang after=50",
)


class Chaos:
    """Does one bad thing after the other."""

    def __init__(self, daemon: Daemon, faults: Faults, seed: int) -> None:
        self._daemon = daemon
        self._faults = faults
        self._chance = random.Random(seed)
        self.done: Counter[str] = Counter()

    def one(self) -> None:
        """One bad thing, and, where it takes a while, its end."""
        things: tuple[tuple[Callable[[], None], int], ...] = (
            (self._fault, 8),
            (self._reload, 3),
            (lambda: self._kill("host"), 2),
            (lambda: self._kill("worker"), 2),
            (lambda: self._kill("auditor"), 2),
            (self._end_all, 1),
        )
        self._chance.choices([thing for thing, _ in things], [weight for _, weight in things])[0]()

    def _fault(self) -> None:
        rule = self._chance.choice(_FAULTS)
        self.done[rule.split(" after")[0].split(" count")[0]] += 1
        self._faults.set(rule)
        time.sleep(1.0)
        self._faults.set()

    def _reload(self) -> None:
        self.done["reload"] += 1
        self._daemon.kill("supervisor", signal.SIGHUP)

    def _kill(self, what: str) -> None:
        self.done[f"kill -9 {what}"] += 1
        with suppress(ProcessLookupError):
            self._daemon.kill(what)

    def _end_all(self) -> None:
        self.done["kill -9 of the daemon"] += 1
        process = self._daemon.process
        assert process is not None
        children = self._daemon.family()[1:]
        process.kill()
        process.wait()
        for child in children:  # they notice by themselves
            child.wait(20)
        self._daemon.start()

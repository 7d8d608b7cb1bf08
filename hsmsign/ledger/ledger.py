"""The native ledger: checks arguments and turns statuses into our errors; above this nobody sees cffi."""

from __future__ import annotations

import enum
import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import hsmsign._native._front as _front
from hsmsign.model.errors import HsmsignError, ResourceExhaustedError

_ffi: Any = _front.ffi
_lib: Any = _front.lib
_MOST = 0xFFFFFFFF
_LONGEST = 1 << 62
"""Nanoseconds."""
_FULL, _BUSY, _OK = _lib.HSM_E_FULL, _lib.HSM_E_BUSY, _lib.HSM_OK


class Bell(enum.IntEnum):
    """What one worker tells all others of."""

    KEYS = 0
    """A key changed: what was read of keys may no longer hold."""
    AUTHORITIES = 1
    """The same of certificate authorities."""
    CONNECTIONS = 2
    """A caller seems to have too many connections: look which of yours are still there."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One limit for one who is counted."""

    who: tuple[str, ...]
    """Whose limit it is, and which."""
    most: int = 0
    """How much may be under way at a time; what is more than that gets in where nothing is. 0: any."""
    rate: float = 0.0
    """How much a second; 0: any. What is more than there is room for is paid for by what comes after it."""
    burst: int = 0
    """How much may come at once after a pause."""

    @property
    def tag(self) -> tuple[int, int]:
        """128 bits for it; the first half is never 0."""
        digest = blake2b("\0".join(self.who).encode("utf-8", "surrogatepass"), digest_size=16).digest()
        return int.from_bytes(digest[:8], "little") | 1, int.from_bytes(digest[8:], "little")


class Claims:
    """Limits that hold together, ready to be counted again and again."""

    __slots__ = ("array", "count", "limits", "rated")

    def __init__(self, limits: Sequence[Claim]) -> None:
        self.limits = tuple(limits)
        self.count = len(self.limits)
        self.rated = any(limit.rate for limit in self.limits)
        """Whether time matters to them."""
        self.array = _ffi.new("hsm_claim[]", max(1, self.count))
        for into, claim in zip(self.array, self.limits, strict=False):
            into.tag[0], into.tag[1] = claim.tag
            into.most = min(claim.most, _MOST)
            if claim.rate:
                into.interval_ns = 1e9 / claim.rate
                into.slack_ns = min(round(max(0, claim.burst - 1) / claim.rate * 1e9), _LONGEST)


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was counted."""

    limit: Claim
    under_way: int
    """Of all workers."""
    wait: float
    """Seconds until its rate lets something in; 0: it is what is under way that is too much."""


class Ledger:
    """One worker's access. What it enters is counted with what all others entered; may be called from any thread."""

    def __init__(self, fd: int, slot: int) -> None:
        """`fd` is borrowed, for this call. Raises HsmsignError."""
        out = _ffi.new("hsm_ledger **")
        _must(_lib.hsm_ledger_open(fd, slot, out))
        self.native = _ffi.gc(out[0], _lib.hsm_ledger_free)
        """For other native parts; it must outlive them."""
        self._why = _ffi.new("hsm_no_entry *")
        self._enter, self._leave = _lib.hsm_ledger_enter, _lib.hsm_ledger_leave

    @classmethod
    def alone(cls) -> Ledger:
        """For who shares nothing with anybody."""
        ledgers = Ledgers()
        try:
            return cls(ledgers.fd, ledgers.take())
        finally:
            ledgers.close()

    def enter(self, claims: Claims, count: int, now_ns: int = 0) -> Refused | None:
        """Count `count` for each claim, or for none. `now_ns`: CLOCK_MONOTONIC; 0 where no claim has a rate.

        Raises ResourceExhaustedError where so many are counted at the moment that there is no room."""
        why = self._why
        status = self._enter(self.native, claims.array, claims.count, count, now_ns, why)
        if status == _OK:
            return None
        if status == _FULL:
            return Refused(claims.limits[why.claim], int(why.under_way), why.wait_ns / 1e9)
        if status == _BUSY:
            raise ResourceExhaustedError("too many callers are counted at the moment", retry_after=1.0)
        raise _failed(status)

    def leave(self, claims: Claims, count: int) -> None:
        """What was entered is over."""
        self._leave(self.native, claims.array, claims.count, count)

    def rung(self, bell: Bell) -> int:
        """How often the bell was rung, by anybody."""
        return int(_lib.hsm_ledger_rung(self.native, bell))

    def listener(self, bell: Bell) -> Callable[[], int]:
        """`rung`, for who listens often."""
        return functools.partial(_lib.hsm_ledger_rung, self.native, int(bell))

    def ring(self, bell: Bell) -> int:
        """Tell all others; gives how often it was rung with this."""
        return int(_lib.hsm_ledger_ring(self.native, bell))


class Ledgers:
    """For the supervisor: the memory, and who may enter."""

    def __init__(self) -> None:
        """Raises HsmsignError."""
        fd, out = _ffi.new("int *"), _ffi.new("hsm_ledger **")
        _must(_lib.hsm_ledger_new(fd, out))
        self._native = _ffi.gc(out[0], _lib.hsm_ledger_free)
        self.fd = int(fd[0])
        """For workers to inherit."""

    def fileno(self) -> int:
        """The descriptor, for who hands it on."""
        return self.fd

    def take(self) -> int:
        """A slot for a new worker. Raises ResourceExhaustedError where there are as many workers as there can be."""
        slot = _ffi.new("uint32_t *")
        if _lib.hsm_ledger_take(self._native, slot) != _OK:
            raise ResourceExhaustedError(
                f"there are {_lib.HSM_LEDGER_SLOTS} workers, as many as there can be",
                hint="those of earlier configurations are still draining: wait, or lower daemon.drain_seconds",
            )
        return int(slot[0])

    def release(self, slot: int) -> None:
        """The slot's worker is dead: what it had under way is over."""
        _must(_lib.hsm_ledger_release(self._native, slot))

    def close(self) -> None:
        """Let go of the descriptor; whoever has mapped the memory keeps it."""
        os.close(self.fd)


def _must(status: int) -> None:
    if status != _OK:
        raise _failed(status)


def _failed(status: int) -> HsmsignError:
    return HsmsignError(f"the workers' shared memory cannot be used: status {status}, {os.strerror(_ffi.errno)}")

"""Signatures that are made in Python, one at a time: the native pool queues, digests, answers (native/host/host.h)."""

from __future__ import annotations

from dataclasses import dataclass

import hsmsign._native._host as _host
from hsmsign.backends.native import SigningPool
from hsmsign.model.algorithms import Scheme
from hsmsign.model.device import JobStatus

_ffi, _lib = _host.ffi, _host.lib


@dataclass(frozen=True, slots=True)
class Turn:
    """A digest that waits for a signature."""

    locator: bytes
    scheme: Scheme
    digest: bytes


class Turns:
    """The one who signs. All methods but `pace` are for one thread."""

    def __init__(self, pool: SigningPool) -> None:
        self._pool = pool.handle()
        self._turn = _ffi.new("hsm_turn *")

    def begin(self, seconds: float) -> Turn | None:
        """The next one, or None where nothing came in time. `end`, `fail` or `put_off` must follow."""
        if _lib.hsm_turn_begin(self._pool, round(seconds * 1000), self._turn) != _lib.HSM_OK:
            return None
        turn = self._turn
        locator = bytes(_ffi.buffer(turn.locator, turn.locator_len))
        return Turn(locator, Scheme(turn.scheme), bytes(_ffi.buffer(turn.digest, turn.digest_len)))

    def end(self, signature: bytes) -> bool:
        """It is signed (ECDSA: r || s). False: the signature's length is impossible, the caller is told so."""
        done = _lib.hsm_turn_end(self._pool, _lib.HSM_OK, 0, signature, len(signature))
        return bool(done == _lib.HSM_OK)

    def fail(self, status: JobStatus, code: int = 0) -> None:
        """It cannot be signed."""
        _lib.hsm_turn_end(self._pool, int(status), code, _ffi.NULL, 0)

    def put_off(self, code: int) -> None:
        """The device was lost: the turn waits, and the pool goes to HEALING."""
        _lib.hsm_turn_put_off(self._pool, code)

    def pace(self, seconds: float) -> None:
        """How long a signature takes at the moment: what cannot be served in time is then refused at once."""
        _lib.hsm_pool_pace(self._pool, max(0, round(seconds * 1e9)))

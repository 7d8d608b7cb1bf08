"""The native signing core of a device host: checks every argument, turns statuses into our exceptions.

Above this nobody sees cffi. The interpreter's lock is released during every call.
"""

from __future__ import annotations

import enum
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import hsmsign._native._host as _host
from hsmsign.model.ckr import name
from hsmsign.model.device import JobStatus
from hsmsign.model.errors import DeviceError, DeviceUnavailableError, HsmsignError

MAX_SESSIONS = 1024
MAX_LOCATOR = 1024
_ERROR_BYTES = 512

_ffi, _lib = _host.ffi, _host.lib


class PoolMode(enum.IntEnum):
    """How a pool treats jobs. The numbers are those of native/host/host.h."""

    RUNNING = 0
    HEALING = 1
    """Jobs wait, to their deadline."""
    FAILING = 2
    """Jobs are answered at once, with the status given."""


class Exclusion(enum.IntEnum):
    """What `SigningPool.managing` keeps out. The numbers are those of native/host/host.h."""

    NOTHING = 0
    ALL = 1
    """Signatures and lookups."""
    LOOKUPS = 2
    """Only looking for keys and opening sessions: all that SoftHSM needs, and signatures go on."""


@dataclass(frozen=True, slots=True)
class PoolStats:
    """What a pool is doing."""

    mode: PoolMode
    queued: int
    """Signatures that wait."""
    active: int
    """Threads inside the module now."""
    sessions: int
    connections: int
    resting: int
    """Threads without a session, because the token has no more of them; the others work."""
    oldest_active: float
    """Seconds that the oldest call has been inside the module; 0 where there is none."""
    signed_total: int
    failed_total: int
    last_fault_ckr: int
    """The CK_RV for which the pool last went to HEALING by itself, or refused to run; 0 where it never did."""

    @property
    def healing(self) -> bool:
        """Whether jobs wait for the device to be brought back."""
        return self.mode is PoolMode.HEALING


def open_module(path: Path | str) -> None:
    """Load and initialise a PKCS #11 module: once a process.

    Raises DeviceUnavailableError where it cannot be loaded, DeviceError where it refuses to start.
    """
    error, ckr = _ffi.new("char[]", _ERROR_BYTES), _ffi.new("uint64_t *")
    if _lib.hsm_module_open(os.fsencode(path), error, _ERROR_BYTES, ckr) == _lib.HSM_OK:
        return
    sentence = _ffi.string(error).decode("utf-8", "replace")
    if ckr[0]:
        raise DeviceError(
            sentence,
            hint="look at the module's own configuration and log; most refuse to start without one",
            metadata={"ckr": name(ckr[0])},
        )
    raise DeviceUnavailableError(
        sentence, hint="give the path of the vendor's PKCS #11 library as `module` in the backend's configuration"
    )


def module_path() -> str:
    """What python-pkcs11 is given as its library: forwards to the module that `open_module` opened."""
    return str(_host.__file__)


def harden_process() -> None:
    """No core dumps, no ptrace by others of the same uid, no new privileges: for good. Raises OSError."""
    if _lib.hsm_harden_process() != _lib.HSM_OK:
        raise OSError(_ffi.errno, f"the process could not be hardened: {os.strerror(_ffi.errno)}")


def filter_system_calls(*, programs: bool, network: bool) -> bool:
    """Refuse, for good, system calls that a signing process has no business with; `programs`: it may start others,
    `network`: it may open sockets that are not Unix sockets. False where the kernel has no filter. Raises OSError."""
    refuse = (0 if programs else _lib.HSM_REFUSE_EXEC) | (0 if network else _lib.HSM_REFUSE_NETWORK)
    status = _lib.hsm_filter_system_calls(refuse)
    if status not in (_lib.HSM_OK, _lib.HSM_E_UNSUPPORTED):
        raise OSError(_ffi.errno, f"system calls could not be filtered: {os.strerror(_ffi.errno)}")
    return bool(status == _lib.HSM_OK)


class SigningPool:
    """Threads that sign, each with its own PKCS #11 session. Made in mode HEALING: nothing is signed yet.

    A login is the token's, not a session's: keep a session that has logged in open while the pool runs. With
    `sessions` 0 there is no thread, session or module: `hsmsign.backends.turns.Turns` signs.
    """

    def __init__(
        self, slot_id: int, sessions: int, max_queued_bytes: int, exclusive_management: bool | Exclusion
    ) -> None:
        if not 0 <= slot_id < 1 << 64:
            raise ValueError(f"a slot id is a number of 64 bits, not {slot_id}")
        if not 0 <= sessions <= MAX_SESSIONS:
            raise ValueError(f"a pool has at most {MAX_SESSIONS} sessions, not {sessions}")
        if not 1 <= max_queued_bytes < 1 << 32:
            raise ValueError(f"max_queued_bytes is 1 to 2**32 - 1, not {max_queued_bytes}")
        config = _ffi.new(
            "hsm_pool_config *",
            {
                "slot_id": slot_id,
                "sessions": sessions,
                "max_queued_bytes": max_queued_bytes,
                "exclusive_management": int(Exclusion(exclusive_management)),
            },
        )
        out = _ffi.new("hsm_pool **")
        status = _lib.hsm_pool_new(config, out)
        if status != _lib.HSM_OK:
            _fail(status, f"a pool of {sessions} sessions could not be made")
        self._pool = out[0]

    def running(self) -> None:
        """Open sessions anew and sign. The token has been logged in to before.

        Raises DeviceError where the token gives no session: the pool's mode is then what it was.
        """
        self._set_mode(PoolMode.RUNNING, JobStatus.OK)

    def healing(self) -> None:
        """Let jobs wait, to their deadline."""
        self._set_mode(PoolMode.HEALING, JobStatus.OK)

    def failing(self, status: JobStatus) -> None:
        """Answer every job with `status`, at once."""
        if status is JobStatus.OK:
            raise ValueError("a failing pool needs a failure to answer with, not JobStatus.OK")
        self._set_mode(PoolMode.FAILING, status)

    def serve(self, connection: socket.socket) -> None:
        """Take over a connected stream socket whose hello has been read."""
        pool = self._open()
        if connection.fileno() < 0:
            raise ValueError("the connection is closed")
        status = _lib.hsm_pool_serve(pool, connection.detach())
        if status != _lib.HSM_OK:
            _fail(status, "a connection could not be served")

    def fault_fd(self) -> int:
        """Readable when the pool went to HEALING by itself, until a mode is set. The pool's: do not close or read."""
        return int(_lib.hsm_pool_fault_fd(self._open()))

    def stats(self) -> PoolStats:
        """What it is doing now."""
        out = _ffi.new("hsm_pool_stats *")
        _lib.hsm_pool_get_stats(self._open(), out)
        return PoolStats(
            mode=PoolMode(out.mode),
            queued=out.queued,
            active=out.active,
            sessions=out.sessions,
            connections=out.connections,
            resting=out.resting,
            oldest_active=out.oldest_active_ms / 1000,
            signed_total=out.signed_total,
            failed_total=out.failed_total,
            last_fault_ckr=out.last_fault_ckr,
        )

    def forget(self, locator: bytes) -> None:
        """Forget the object handles found for a locator, in every session: the object was destroyed."""
        if not 1 <= len(locator) <= MAX_LOCATOR:
            raise ValueError(f"a locator has 1 to {MAX_LOCATOR} bytes, not {len(locator)}")
        _lib.hsm_pool_forget(self._open(), locator, len(locator))

    @contextmanager
    def managing(self) -> Iterator[None]:
        """Around management calls: keeps signatures out where the pool is made with exclusive_management.

        Not to be nested: it would wait for itself.
        """
        pool = self._open()
        _lib.hsm_manage_begin(pool)
        try:
            yield
        finally:
            _lib.hsm_manage_end(pool)

    def drain(self, seconds: float) -> bool:
        """Wait for all that is queued or under way to be answered. False where it is not after `seconds`."""
        milliseconds = min(max(0, round(seconds * 1000)), (1 << 32) - 1)
        return bool(_lib.hsm_pool_drain(self._open(), milliseconds) == _lib.HSM_OK)

    def close(self) -> None:
        """Stop the threads, close connections and sessions. Waits for ever for a module that hangs."""
        pool, self._pool = self._pool, _ffi.NULL
        _lib.hsm_pool_free(pool)

    def handle(self) -> object:
        """The native pool, for `Turns`."""
        return self._open()

    def _open(self) -> object:
        if self._pool == _ffi.NULL:
            raise ValueError("the pool is closed")
        return self._pool

    def _set_mode(self, mode: PoolMode, status: JobStatus) -> None:
        result = _lib.hsm_pool_set_mode(self._open(), int(mode), int(status))
        if result == _lib.HSM_E_DEVICE:
            ckr = name(self.stats().last_fault_ckr)
            raise DeviceError(f"the token gives no session to sign with ({ckr})", metadata={"ckr": ckr})
        if result != _lib.HSM_OK:
            _fail(result, f"the pool could not be set to {mode.name}")


def _fail(status: int, what: str) -> NoReturn:
    if status == _lib.HSM_E_MODULE:
        raise DeviceUnavailableError(f"{what}: no PKCS #11 module is open", hint="call open_module first")
    raise HsmsignError(f"{what} ({_ffi.typeof('hsm_status').elements.get(status, status)})")

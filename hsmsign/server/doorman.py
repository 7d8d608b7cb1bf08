"""The native doorman: gRPC over a Unix socket, with the peer's credentials (see native/front/front.h)."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from pathlib import Path
from typing import Any

import structlog

import hsmsign._native._front as _front
from hsmsign.ledger import Ledger
from hsmsign.model.errors import ConfigurationError, HsmsignError

_ffi: Any = _front.ffi
_lib: Any = _front.lib
_log = structlog.get_logger(__name__)

_OF_A_CONNECTION = 3
"""Descriptors: the caller's end, and both ends of the way to gRPC."""
_RESERVE = 256
"""Descriptors for all else: TCP, the database, device hosts; a quarter where there are few."""


def raise_descriptors() -> None:
    """As many descriptors as this process may have; the usual limit of 1024 is for programs that use select()."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # then it stays, and `affordable` counts with it
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def affordable(max_connections: int, max_of_a_uid: int) -> tuple[int, int]:
    """How many connections there can be, of these many that are wanted, and how many of one user.

    As many as there are descriptors for, so that nobody is turned away for want of one, by gRPC or by the database; and
    half of that for one user, so that no user takes all. At least 1.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        max_connections = min(max_connections, (soft - min(_RESERVE, soft // 4)) // _OF_A_CONNECTION)
    return max(1, max_connections), max(1, min(max_of_a_uid, max_connections // 2))


def own_folder(folder: Path) -> None:
    """Make the folder of gRPC's private sockets, the daemon's alone: whoever gets in can say that he is somebody else.

    Call it before `confine`, which forbids to change a mode. Raises ConfigurationError.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchmod(opened, 0o700)
        finally:
            os.close(opened)
    except OSError as error:
        raise ConfigurationError(
            f"cannot make the folder {folder}: {error.strerror}",
            hint="run_dir must be the daemon's own; remove what stands there, if it is no folder",
        ) from error


class Doorman:
    """Accepts on a public Unix socket and carries each connection to gRPC's private one.

    gRPC then shows `unix-abstract:<prefix>/<uid>/<gid>/<pid>/<number>` as the peer.
    """

    def __init__(
        self,
        listen: socket.socket,
        inner_path: Path,
        prefix: str,
        max_connections: int,
        max_of_a_uid: int,
        *,
        ledger: Ledger | None = None,
        generation: int = 0,
    ) -> None:
        """Start the thread. `listen` is borrowed and must stay open; connections beyond the limits, or beyond what is
        `affordable`, are closed at once. In a ledger they are counted with those of all workers of the generation, and
        who has the fewest is given new ones.

        Raises ConfigurationError for a path or prefix that is too long."""
        self._listen = listen
        path, name = _ffi.new("char[]", os.fsencode(inner_path)), _ffi.new("char[]", prefix.encode("ascii"))
        config = _ffi.new("hsm_doorman_config *")
        config.listen_fd, config.inner_path, config.prefix = listen.fileno(), path, name
        config.max_connections, config.max_of_a_uid = affordable(max_connections, max_of_a_uid)
        if (config.max_connections, config.max_of_a_uid) != (max_connections, max_of_a_uid):
            _log.warning(
                "fewer connections over the Unix socket than configured",
                connections=config.max_connections,
                configured=max_connections,
                of_a_user=config.max_of_a_uid,
                configured_of_a_user=max_of_a_uid,
                hint="each takes three descriptors (LimitNOFILE, ulimit -Hn), and a user gets half of all at most",
            )
        self._ledger = ledger  # outlives the thread
        if ledger is not None:
            config.ledger, config.generation = ledger.native, generation
            config.shared_connections = max_connections
            config.shared_of_a_uid = max(1, min(max_of_a_uid, max_connections // 2))
        out = _ffi.new("hsm_doorman **")
        status = _lib.hsm_doorman_start(config, out)
        if status == _lib.HSM_E_BAD_INPUT:
            raise ConfigurationError(
                f"the path {inner_path} is too long for a Unix socket", hint="choose a shorter run_dir"
            )
        if status != _lib.HSM_OK:
            raise HsmsignError(f"the doorman of the Unix socket could not start: {os.strerror(_ffi.errno)}")
        self._doorman = _ffi.gc(out[0], _lib.hsm_doorman_free)

    def close_door(self) -> None:
        """Accept no more; what is open goes on."""
        _lib.hsm_doorman_close_door(self._doorman)

    def connections(self) -> int:
        """How many are open."""
        return int(_lib.hsm_doorman_connections(self._doorman))

    def close(self) -> None:
        """End the thread and all connections. Nothing may be called afterwards."""
        _ffi.release(self._doorman)

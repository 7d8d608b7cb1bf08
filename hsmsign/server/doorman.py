"""The native doorman: gRPC over a Unix socket, with the peer's credentials (see native/front/front.h)."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import hsmsign._native._front as _front
from hsmsign.model.errors import ConfigurationError, HsmsignError

_ffi: Any = _front.ffi
_lib: Any = _front.lib


class Doorman:
    """Accepts on a public Unix socket and carries each connection to gRPC's private one.

    gRPC then shows `unix-abstract:<prefix>/<uid>/<gid>/<pid>/<number>` as the peer.
    """

    def __init__(
        self, listen: socket.socket, inner_path: Path, prefix: str, max_connections: int, max_of_a_uid: int
    ) -> None:
        """Start the thread. `listen` is borrowed and must stay open; connections beyond the limits are closed at once.

        Raises ConfigurationError for a path or prefix that is too long."""
        self._listen = listen
        path, name = _ffi.new("char[]", os.fsencode(inner_path)), _ffi.new("char[]", prefix.encode("ascii"))
        config = _ffi.new("hsm_doorman_config *")
        config.listen_fd, config.inner_path, config.prefix = listen.fileno(), path, name
        config.max_connections = max_connections
        config.max_of_a_uid = max_of_a_uid
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

"""Reaching a device host's Unix socket."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from hsmsign.model.hostwire import hello

_PATH_MAX = 107
"""Bytes of a Unix socket's path (unix(7)); a longer one is reached through its folder."""


def open_connection(path: Path, kind: int) -> socket.socket:
    """Connect to a host and say what for. Gives a non-blocking socket. Raises OSError.

    Never waits: a listening queue that is full is an error like any other. The supervisor listens for the
    host, so that this succeeds while a host is being replaced; the hello then waits in the socket.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        _connect(connection, path)
        connection.sendall(hello(kind))
    except OSError:
        connection.close()
        raise
    return connection


def _connect(connection: socket.socket, path: Path) -> None:
    if len(os.fsencode(path)) <= _PATH_MAX:
        connection.connect(str(path))
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        connection.connect(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)

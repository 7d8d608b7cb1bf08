"""The control channel between the supervisor and a child: one JSON object a line over a socket pair."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from typing import Any

_LINE_MAX = 4 << 20


class ChildControl:
    """The child's end. Takes over the descriptor. `send` may be called from any thread."""

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)
        self._socket = socket.socket(fileno=fd)
        self._lines = self._socket.makefile("rb")
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """Readable when the supervisor said something, or is gone."""
        return self._socket.fileno()

    def receive(self) -> dict[str, Any] | None:
        """The next message; waits for it. None: the supervisor is gone."""
        try:
            line = self._lines.readline(_LINE_MAX)
        except OSError:
            return None
        if not line.endswith(b"\n"):
            return None
        message: dict[str, Any] = json.loads(line)
        return message

    def send(self, event: str, **fields: object) -> None:
        """Tell the supervisor. That it is gone is noticed by `receive`, and not an error here."""
        line = json.dumps({"event": event, **fields}).encode() + b"\n"
        try:
            with self._lock:
                self._socket.sendall(line)
        except OSError:
            return


def peer_uid(connection: socket.socket) -> int:
    """Whose process is on the other side of a Unix socket, as the kernel says."""
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)

"""Telling systemd how we are: sd_notify(3), for a daemon that does not depend on systemd."""

from __future__ import annotations

import contextlib
import os
import socket
import time

_PATIENCE = 2.0
"""Seconds for a service manager that does not read: the daemon does not wait for it for ever."""


class Notifier:
    """Sends to $NOTIFY_SOCKET; does nothing where there is none."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)

    def ready(self, status: str) -> None:
        """Start-up, or a reload, is done."""
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """A reload has begun."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The daemon is going down."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """For WatchdogSec=."""
        self._send("WATCHDOG=1", patience=0.0)  # it comes again in a moment

    def _send(self, text: str, patience: float = _PATIENCE) -> None:
        if not self._address:
            return
        # a service manager that does not listen is no reason to stop signing
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.settimeout(patience)
            to.sendto(text.encode(), self._address)

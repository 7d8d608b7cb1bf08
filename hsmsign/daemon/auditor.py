"""The auditor: the only process that writes the audit log. No network, no device, no PIN, no database.

    python -m hsmsign.daemon.auditor --control-fd N --listen-fd M

A worker that was taken over can add to the log, but not change what is in it. What several calls record in the time of
one write to the disk is made durable by the next one, together.
"""

from __future__ import annotations

import argparse
import os
import selectors
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import hsmsign
from hsmsign.audit.log import AuditLog
from hsmsign.audit.records import Records
from hsmsign.audit.wire import SIZE, Ask, Frames, Say, frame
from hsmsign.daemon.control import ChildControl, peer_uid
from hsmsign.model.errors import AuditError, HsmsignError
from hsmsign.server.confinement import confine

_BEAT = 1.0
_CHUNK = 1 << 18
_SYNC_EVERY = 1.0
EXIT_CONFIG = 78
EXIT_DISK = 74


@dataclass(slots=True, eq=False)
class _Caller:
    """A worker's connection."""

    socket: socket.socket
    frames: Frames = field(default_factory=Frames)


class Auditor:
    """Serves workers, until it is told to stop or the supervisor is gone."""

    def __init__(self, log: AuditLog, control: ChildControl, listen: socket.socket) -> None:
        self._log = log
        self._control = control
        self._selector = selectors.DefaultSelector()
        self._listen = listen
        self._lines: list[bytes] = []
        self._waiting: list[_Caller] = []
        self._unsynced_since = 0.0
        self._stopping = False

    def run(self) -> None:
        """Serve. Raises OSError where the disk fails so that the log must be opened anew."""
        wakeup, theirs = socket.socketpair()
        theirs.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno())
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "_stopping", True))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._listen.setblocking(False)
        for source in (wakeup, self._listen, self._control):
            self._selector.register(source, selectors.EVENT_READ)
        beaten = 0.0
        while not self._stopping:
            if time.monotonic() - beaten >= _BEAT:
                self._control.send("beat")
                beaten = time.monotonic()
            for key, _ in self._selector.select(_BEAT):
                if key.fileobj is self._control:
                    return
                if key.fileobj is self._listen:
                    self._accept()
                elif key.fileobj is not wakeup:
                    self._read(key.data)
            self._commit()
            if self._unsynced_since and time.monotonic() - self._unsynced_since > _SYNC_EVERY:
                self._sync()

    def _accept(self) -> None:
        try:
            connection, _ = self._listen.accept()
        except OSError:
            return
        if peer_uid(connection) != os.geteuid():
            connection.close()
            return
        connection.setblocking(False)
        self._selector.register(connection, selectors.EVENT_READ, _Caller(connection))

    def _read(self, caller: _Caller) -> None:
        try:
            data = caller.socket.recv(_CHUNK)
            if not data:
                raise ConnectionError
            for kind, body in caller.frames.feed(data):
                self._take(caller, kind, body)
        except (OSError, ValueError) as error:
            if not isinstance(error, BlockingIOError):
                self._close(caller)

    def _take(self, caller: _Caller, kind: int, body: bytes) -> None:
        if kind == Ask.RECORDS:
            self._lines += _lines(body)
            self._waiting.append(caller)
        elif kind == Ask.RELAXED:
            self._relaxed(caller, _lines(body))
        elif kind == Ask.HEAD:
            self._commit()
            head = self._log.head()
            self._say(caller, Say.HEAD, SIZE.pack(head.size) + head.root)
        elif kind == Ask.KEEP:
            self._keep(caller, body)
        else:
            raise ValueError("a frame of no known kind")

    def _commit(self) -> None:
        """Everything that came in meanwhile, with one write to the disk."""
        if not self._waiting:
            return
        lines, waiting = self._lines, self._waiting
        self._lines, self._waiting = [], []
        kind, words = Say.DONE, b""
        try:
            self._log.append(lines)
        except OSError as error:
            kind, words = Say.REFUSED, _why(error)
        if kind is Say.DONE:
            self._sync()
        for caller in waiting:
            self._say(caller, kind, words)

    def _relaxed(self, caller: _Caller, lines: list[bytes]) -> None:
        try:
            self._log.append(lines)
        except OSError as error:
            self._say(caller, Say.REFUSED, _why(error))
            return
        self._unsynced_since = self._unsynced_since or time.monotonic()
        self._say(caller, Say.DONE)

    def _keep(self, caller: _Caller, note: bytes) -> None:
        try:
            self._log.keep(note)
            self._say(caller, Say.KEPT)
        except AuditError as error:
            self._say(caller, Say.KEPT, error.message.encode())
        except OSError as error:
            self._say(caller, Say.KEPT, _why(error))

    def _sync(self) -> None:
        self._log.sync()
        self._unsynced_since = 0.0

    def _say(self, caller: _Caller, kind: Say, body: bytes = b"") -> None:
        """A worker that does not read its answers is given up: it connects anew, and sends again."""
        try:
            data = frame(kind, body)
            if caller.socket.fileno() >= 0 and caller.socket.send(data) != len(data):
                self._close(caller)
        except OSError:
            self._close(caller)

    def _close(self, caller: _Caller) -> None:
        if caller.socket.fileno() >= 0:
            self._selector.unregister(caller.socket)
            caller.socket.close()


def _lines(body: bytes) -> list[bytes]:
    return body.split(b"\n") if body else []


def _why(error: OSError) -> bytes:
    return (error.strerror or str(error)).encode()


def main() -> int:
    """Read the control channel's first line, and serve."""
    parser = argparse.ArgumentParser(prog="hsmsign-auditor")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--listen-fd", type=int, required=True)
    given = parser.parse_args()
    os.set_inheritable(given.listen_fd, False)
    control = ChildControl(given.control_fd)
    message = control.receive()
    if message is None:
        return 0
    try:
        folder = Path(message["folder"])
        log = AuditLog.open(folder)
        log.append([Records().event("started")])
        log.sync()
        confine([Path("/usr"), Path("/lib"), Path(sys.prefix), Path(hsmsign.__file__).parent], [folder])
    except HsmsignError as error:
        control.send("failed", message=error.message, hint=error.hint)
        return EXIT_CONFIG
    except OSError as error:
        control.send("failed", message=f"the audit log cannot be written: {error.strerror}", hint="is the disk full?")
        return EXIT_DISK
    control.send("ready")
    try:
        Auditor(log, control, socket.socket(fileno=given.listen_fd)).run()
        log.close()
    except OSError as error:
        control.send("failed", message=f"the audit log cannot be written: {error.strerror}", hint="see the disk")
        return EXIT_DISK
    return 0


if __name__ == "__main__":
    sys.exit(main())

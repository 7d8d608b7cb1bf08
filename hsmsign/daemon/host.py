"""The device host: the process that loads a vendor's library, knows the PIN, and signs.

    python -m hsmsign.daemon.host --control-fd N --listen-fd M

It has no network and no database. The supervisor owns the listening Unix socket, so that whoever
connects while a host is replaced simply waits. Threads: this one (accepts, beats, watches), one for
management (it alone asks python-pkcs11), one a management connection, and the native pool's.

Exit codes: 0 done, 70 internal error, 75 to be replaced (the device hangs, or only a new process can see
its token).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

from hsmsign.backends import native
from hsmsign.backends.base import Backend, BackendConfig, Replaceable
from hsmsign.backends.registry import make_backend
from hsmsign.daemon.control import ChildControl, peer_uid
from hsmsign.daemon.manage_server import OneThread, read_exactly, serve_management
from hsmsign.model.device import DeviceHealth
from hsmsign.model.hostwire import HELLO, HELLO_MANAGE, HELLO_SIGN, MAGIC, PROTOCOL_VERSION, from_json

EXIT_REPLACE = 75
_BEAT = 1.0
_HELLO_TIMEOUT = 5.0
_DRAIN = 10.0
_NOT_OURS = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_PID", "DATABASE_URL")
"""Variables of the supervisor and the store, which a vendor's library has no business with."""


class Host:
    """One device, its listening socket, and the supervisor's control channel."""

    def __init__(self, backend: Backend, control: ChildControl, listen: socket.socket, drain: float) -> None:
        self._backend = backend
        self._control = control
        self._listen = listen
        self._drain = drain
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = OneThread(self._wake)
        self._told: DeviceHealth | None = None
        self._told_ready = False
        self._started = False
        self._ticking = False
        self._stopping = False
        self._drained = False

    def run(self) -> int:
        """Serve until SIGTERM, or until the supervisor is gone. Returns the exit code."""
        signal.signal(signal.SIGTERM, lambda *_: self._stop())
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's ^C is the supervisor's business
        self._listen.setblocking(False)
        self._thread.submit(self._start)
        next_beat = 0.0
        while not self._drained:
            now = time.monotonic()
            if now >= next_beat:
                next_beat = now + _BEAT
                self._beat()
            if not self._wait(next_beat - now):
                return 0
            self._tell_health()
            if self._started and not self._told_ready:
                self._told_ready = True
                self._control.send("ready")
        self._backend.close()
        return 0

    def _start(self) -> None:
        self._backend.start()
        self._started = True

    def _wait(self, timeout: float) -> bool:
        """Sleep until there is something to do, and do it. False: the supervisor is gone."""
        poller = select.poll()
        poller.register(self._wakeup, select.POLLIN)
        poller.register(self._control.fileno(), select.POLLIN)
        if self._started and not self._stopping:
            poller.register(self._listen, select.POLLIN)
            if not self._ticking:
                poller.register(self._backend.fault_fd(), select.POLLIN)
        ready = {fd for fd, _ in poller.poll(max(0.0, timeout) * 1000)}
        if self._wakeup in ready:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wakeup)
        if self._control.fileno() in ready and self._control.receive() is None:
            return False
        if self._listen.fileno() in ready:
            self._accept()
        if ready - {self._wakeup, self._control.fileno(), self._listen.fileno()}:
            self._tick()
        return True

    def _beat(self) -> None:
        """Once a second: tell that we live, look at the device, and at how long it takes."""
        self._control.send("beat")
        config = self._backend.config
        longest = config.manage_timeout + (self._drain if self._stopping else 0.0)  # draining is a job, too
        if self._backend.oldest_active() > config.hang_after or self._thread.busy() > longest:
            os._exit(EXIT_REPLACE)  # a thread is stuck inside the vendor's library: nothing can be closed
        if isinstance(self._backend, Replaceable) and self._backend.outdated():
            os._exit(EXIT_REPLACE)
        if self._started and not self._stopping:
            self._tick()

    def _tick(self) -> None:
        if self._ticking:
            return
        self._ticking = True

        def tick() -> None:
            self._backend.tick()
            self._ticking = False

        self._thread.submit(tick)

    def _tell_health(self) -> None:
        health = self._backend.health()
        if health != self._told:
            self._told = health
            self._control.send(
                "health", state=health.state.name, message=health.message, hint=health.hint, ckr=health.ckr
            )

    def _accept(self) -> None:
        try:
            connection, _ = self._listen.accept()
        except OSError:  # it went away again
            return
        threading.Thread(target=self._greet, args=(connection,), name="connection", daemon=True).start()

    def _greet(self, connection: socket.socket) -> None:
        """Read a connection's hello and give it to whom it is for."""
        try:
            kind = _read_hello(connection)
            if kind == HELLO_SIGN:
                self._backend.serve(connection)
            elif kind == HELLO_MANAGE:
                serve_management(connection, self._backend, self._thread)
            else:
                connection.close()
        except Exception as error:  # noqa: BLE001 - one connection's trouble is not the host's
            print(f"device host: a connection ended: {type(error).__name__}", file=sys.stderr)
            connection.close()

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._thread.submit(self._finish)
            self._wake()

    def _finish(self) -> None:
        self._backend.drain(self._drain)
        self._drained = True

    def _wake(self) -> None:
        os.eventfd_write(self._wakeup, 1)


def _read_hello(connection: socket.socket) -> int:
    """What the connection is for; 0 where it is none of ours."""
    if peer_uid(connection) not in (os.geteuid(), 0):
        return 0
    connection.settimeout(_HELLO_TIMEOUT)
    head = read_exactly(connection, HELLO.size)
    connection.settimeout(None)
    if head is None:
        return 0
    magic, version, kind, _ = HELLO.unpack(head)
    return int(kind) if magic == MAGIC and version == PROTOCOL_VERSION else 0


def _close_others(keep: set[int]) -> None:
    """Close what was inherited by mistake."""
    for name in [entry.name for entry in Path("/proc/self/fd").iterdir()]:
        if int(name) > 2 and int(name) not in keep:
            with contextlib.suppress(OSError):
                os.close(int(name))


def _clean_environment(config: BackendConfig, extra: dict[str, str]) -> None:
    ours = {source.env for source in config.secrets}
    for name in _NOT_OURS:
        if name not in ours:
            os.environ.pop(name, None)
    os.environ.update(extra)
    os.environ.setdefault("TSS2_LOG", "all+NONE")  # the TPM's software writes each failed command to stderr


def _filter_system_calls(config: BackendConfig) -> None:
    """What a vendor's library does is not known: it may speak to a device over the network, or start programs."""
    tpm = config.tpm
    programs = config.kind == "pkcs11" or (tpm is not None and tpm.simulator is not None)
    network = programs or (tpm is not None and not tpm.tcti.startswith("device:"))
    native.filter_system_calls(programs=programs, network=network)


def main(arguments: list[str] | None = None) -> int:
    """Run a device host. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="hsmsign-host")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--listen-fd", type=int, required=True)
    given = parser.parse_args(arguments)
    _close_others({given.control_fd, given.listen_fd})
    os.set_inheritable(given.listen_fd, False)
    native.harden_process()
    control = ChildControl(given.control_fd)
    order: dict[str, Any] | None = control.receive()
    if order is None:
        return 0
    config: BackendConfig = from_json(BackendConfig, order["config"])
    _clean_environment(config, order.get("env") or {})
    _filter_system_calls(config)
    backend = make_backend(
        config, pin_refused=bool(order.get("pin_refused")), logging_in=lambda: control.send("logging-in")
    )
    listen = socket.socket(fileno=given.listen_fd)
    return Host(backend, control, listen, float(order.get("drain", _DRAIN))).run()


def run() -> None:
    """`main`, and out at once: what still runs in a vendor's library is not waited for."""
    try:
        code = main()
    except Exception as error:  # noqa: BLE001 - the last line of defence
        print(f"device host: {type(error).__name__}: {error}", file=sys.stderr)
        code = 70
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    run()

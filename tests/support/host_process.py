"""A real device host, with the test in the place of its supervisor and of its front worker."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hsmsign.backends.base import BackendConfig, ObjectQuery
from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.device import DeviceHealth, DeviceInfo, DeviceKey
from hsmsign.model.hostwire import HELLO_MANAGE, LENGTH, error_from_json, from_json, hello, to_json
from tests.support.frames import SignConnection

PATIENCE = 60.0
"""Seconds until a test gives up waiting for something that should happen at once."""


class HostProcess:
    """Starts a host; `stop` ends it. The listening socket outlives it, as the supervisor's does."""

    def __init__(
        self,
        config: BackendConfig,
        folder: Path,
        *,
        pin_refused: bool = False,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.config = config
        self.path = folder / f"{config.name}.sock"
        self._environment = environment or {}
        self._listen = socket.socket(socket.AF_UNIX)
        self.path.unlink(missing_ok=True)
        self._listen.bind(str(self.path))
        self._listen.listen(64)
        self._changed = threading.Condition()
        self.events: list[dict[str, Any]] = []
        self.start(pin_refused=pin_refused)

    def start(self, *, pin_refused: bool = False) -> None:
        """Start a process, the first one or another in its place."""
        ours, theirs = socket.socketpair()
        self.events = []
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "hsmsign.daemon.host",
                "--control-fd",
                str(theirs.fileno()),
                "--listen-fd",
                str(self._listen.fileno()),
            ],
            pass_fds=(theirs.fileno(), self._listen.fileno()),
            env={**os.environ, **self._environment},
            stderr=subprocess.PIPE,
        )
        theirs.close()
        self._control = ours
        order = {"config": to_json(self.config), "pin_refused": pin_refused, "env": {}}
        ours.sendall(json.dumps(order).encode() + b"\n")
        threading.Thread(target=self._read_events, args=(ours, self.events), daemon=True).start()

    def _read_events(self, control: socket.socket, events: list[dict[str, Any]]) -> None:
        with control.makefile("rb") as lines:
            try:
                for line in lines:
                    with self._changed:
                        events.append(json.loads(line))
                        self._changed.notify_all()
            except OSError:
                pass
        with self._changed:
            events.append({"event": "gone"})
            self._changed.notify_all()

    def wait_for(self, what: Callable[[dict[str, Any]], bool], *, after: int = 0) -> dict[str, Any]:
        """The first event, from number `after` on, for which `what` is true."""

        def found() -> dict[str, Any] | None:
            return next((event for event in self.events[after:] if what(event)), None)

        with self._changed:
            self._changed.wait_for(lambda: found() or {"event": "gone"} in self.events, PATIENCE)
        event = found()
        assert event is not None, f"it did not come, but: {[e for e in self.events if e['event'] != 'beat']}"
        return event

    def wait_for_state(self, state: str, *, after: int = 0) -> dict[str, Any]:
        """The event of the health being `state`."""
        return self.wait_for(lambda event: event.get("state") == state, after=after)

    def wait_for_beats(self, number: int) -> None:
        """Wait until the host has looked at its device that many times more."""
        for _ in range(number):
            self.wait_for(lambda event: event["event"] == "beat", after=len(self.events))

    def connect(self) -> socket.socket:
        """A connection to the host, before its hello."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE)
        connection.connect(str(self.path))
        return connection

    def signing(self) -> SignConnection:
        """A signing connection."""
        return SignConnection(self.connect())

    def ask(self, op: str, **args: object) -> Any:
        """One management request, on a connection of its own. Raises the host's error."""
        with self.connect() as connection:
            connection.sendall(hello(HELLO_MANAGE))
            body = json.dumps({"op": op, "args": {name: to_json(value) for name, value in args.items()}}).encode()
            connection.sendall(LENGTH.pack(len(body)) + body)
            with connection.makefile("rb") as answers:
                head = answers.read(LENGTH.size)
                if len(head) < LENGTH.size:
                    raise ConnectionError("the host closed the connection")
                answer = json.loads(answers.read(LENGTH.unpack(head)[0]))
        if "error" in answer:
            raise error_from_json(answer["error"])
        return answer["ok"]

    def health(self) -> DeviceHealth:
        """Its health, as a worker sees it."""
        health: DeviceHealth = from_json(DeviceHealth, self.ask("health"))
        return health

    def describe(self) -> DeviceInfo:
        """Its description."""
        info: DeviceInfo = from_json(DeviceInfo, self.ask("describe"))
        return info

    def generate(self, algorithm: KeyAlgorithm, object_id: bytes | None = None, label: str = "test key") -> DeviceKey:
        """A new key."""
        return self.generate_with(algorithm=algorithm, object_id=object_id or os.urandom(16), label=label)

    def generate_with(self, **asked: object) -> DeviceKey:
        """A new key, by all that can be asked of it."""
        key: DeviceKey = from_json(DeviceKey, self.ask("generate", **asked))
        return key

    def find(self, query: ObjectQuery) -> list[DeviceKey]:
        """The keys that fit."""
        keys: list[DeviceKey] = from_json(
            list[DeviceKey], self.ask("find", id=query.id, label=query.label, locator=query.locator)
        )
        return keys

    def destroy(self, locator: bytes) -> bool:
        """Destroy a key."""
        return bool(self.ask("destroy", locator=locator))

    def ended(self) -> int:
        """Wait for the process to end by itself; its exit code."""
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """Kill the process outright."""
        self.process.kill()
        self.process.wait(PATIENCE)
        self._control.close()

    def terminate(self) -> int:
        """Ask it to drain and end; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def abandon(self) -> None:
        """Be gone, as a supervisor that was killed."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)  # the thread that reads events keeps it from being closed

    def stop(self) -> None:
        """End the process, whatever its state, and let go of everything."""
        self.abandon()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(PATIENCE)
        if self.process.stderr is not None:
            sys.stderr.write(self.process.stderr.read().decode("utf-8", "replace"))
            self.process.stderr.close()
        self._listen.close()

"""A child process of the supervisor: started with a control channel, heard, stopped, killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

Event = dict[str, Any]

_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0
_SETTLED = 10.0
"""Seconds after which a child that ends is not counted as one that keeps failing."""
_STARTING = 60.0
"""Seconds that a child may take until its first sign of life."""


class HasFd(Protocol):
    """A socket, or what else a child inherits."""

    def fileno(self) -> int:
        """The descriptor."""
        ...


class Child:
    """One process. `ready` is set at its first "ready"; `on_event` gets everything else that it says."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self.name = name
        self.pid = process.pid
        self.started = time.monotonic()
        self.heard: float | None = None
        self.failure: Event | None = None
        self.stopping = False
        self.ready = asyncio.Event()
        self.on_event: Callable[[Event], None] = lambda _: None
        self._process = process
        self._control = control

    @classmethod
    def start(
        cls,
        name: str,
        module: str,
        arguments: Mapping[str, HasFd | None],
        message: Mapping[str, object],
        environment: Mapping[str, str],
    ) -> Child:
        """Run `python -m module --control-fd N` with more descriptors by option, and tell it its configuration."""
        ours, theirs = socket.socketpair()
        given: dict[str, HasFd] = {
            "--control-fd": theirs,
            **{option: sock for option, sock in arguments.items() if sock is not None},
        }
        command: list[str] = [sys.executable, "-P", "-m", module]  # -P: no modules from the folder it is started in
        for option, sock in given.items():
            command += [option, str(sock.fileno())]
        fds: Sequence[int] = [sock.fileno() for sock in given.values()]
        try:
            process = subprocess.Popen(
                command, pass_fds=fds, env=dict(environment), stdin=subprocess.DEVNULL, start_new_session=True
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.sendall(json.dumps(message).encode() + b"\n")
        return cls(name, process, ours)

    async def run(self) -> int:
        """Listen to it until it has ended. Its exit code; negative: the signal that ended it."""
        reader, writer = await asyncio.open_unix_connection(sock=self._control, limit=1 << 20)
        with contextlib.suppress(OSError, ValueError):
            while line := await reader.readline():
                self._hear(json.loads(line))
        writer.close()
        return await self.reap()

    async def reap(self) -> int:
        """Wait until it has ended; after its channel has, that takes a moment at most. Its exit code."""
        while (code := self._process.poll()) is None:  # noqa: ASYNC110 - a process sets no event
            await asyncio.sleep(0.01)
        return code

    def _hear(self, event: Event) -> None:
        self.heard = time.monotonic()
        if event.get("event") == "ready":
            self.ready.set()
        elif event.get("event") == "failed":
            self.failure = event
        self.on_event(event)

    def silent_for(self) -> float:
        """Seconds since it was last heard, beyond what it may take to start."""
        if self.heard is None:
            return time.monotonic() - self.started - _STARTING
        return time.monotonic() - self.heard

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def terminate(self) -> None:
        """Ask it to finish and go."""
        self.stopping = True
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self.alive():
            self._process.send_signal(number)


class Backoff:
    """How long to wait before a child is started again: not at all the first time."""

    def __init__(self) -> None:
        self._failures = 0

    def after(self, lived: float) -> float:
        """Seconds to wait after a child that lived so long."""
        self._failures = 0 if lived > _SETTLED else self._failures + 1
        return 0.0 if self._failures <= 1 else min(_FIRST_WAIT * 2.0 ** (self._failures - 2), _LONGEST_WAIT)

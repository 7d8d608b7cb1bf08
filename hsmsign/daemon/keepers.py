"""Keepers: each sees to it that one device host, or the front worker, is there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import structlog

from hsmsign.backends.base import BackendConfig
from hsmsign.daemon import listeners
from hsmsign.daemon.children import Backoff, Child, Event
from hsmsign.daemon.config import Config
from hsmsign.daemon.pin_memory import REFUSED, PinMemory
from hsmsign.daemon.worker_config import WorkerConfig
from hsmsign.model.hostwire import to_json

_PARTING = 2.0
"""Seconds that a worker which does not serve yet is given to go."""
_STUCK = REFUSED | {"BROKEN"}
_SUPERVISORS_OWN = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_PID")
log = structlog.get_logger()


class Environments:
    """What of our own environment each child is given: a PIN's variable goes to the host that needs it alone.

    Also the variables of backends that a reload took away stay secret: they are still in our own environment.
    """

    def __init__(self) -> None:
        self._secret: set[str] = set()

    def learn(self, config: Config) -> None:
        """Keep the variables that this configuration names."""
        self._secret |= {source.env for backend in config.backends for source in backend.secrets if source.env}

    def for_worker(self) -> dict[str, str]:
        """What a front worker gets."""
        return self._without({*self._secret, "CREDENTIALS_DIRECTORY"})

    def for_host(self, backend: BackendConfig) -> dict[str, str]:
        """What the host of this backend gets."""
        withheld = self._secret - {source.env for source in backend.secrets}
        uses_credentials = any(source.credential for source in backend.secrets)
        return self._without(withheld if uses_credentials else {*withheld, "CREDENTIALS_DIRECTORY"})

    def _without(self, names: set[str]) -> dict[str, str]:
        # nor what systemd said to the supervisor alone
        return {name: value for name, value in os.environ.items() if name not in names and name not in _SUPERVISORS_OWN}


class HostKeeper:
    """One device host after the other, on one listening socket that callers can always reach."""

    def __init__(
        self, backend: BackendConfig, config: Config, environments: Environments, changed: Callable[[], None]
    ) -> None:
        self.child: Child | None = None
        self._environments = environments
        self._backend = backend
        self._config = config
        self._changed = changed
        self._socket, self.path = listeners.open_host_socket(config.run_dir / "hosts", backend.name)
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._state = ""
        self._pin = PinMemory()

    @property
    def name(self) -> str:
        """The backend's name."""
        return self._backend.name

    def start(self) -> None:
        """Begin to keep a host running."""
        self._task = asyncio.get_running_loop().create_task(self._keep())

    async def _keep(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            began, expected = time.monotonic(), False
            try:
                child = self._spawn()
                code = await child.run()
                expected = child.stopping
                log.info("device host ended", backend=self.name, pid=child.pid, code=code)
                if self._pin.host_ended():
                    self._tell_of_unfinished_login()
            except OSError as error:  # no memory, no descriptors: perhaps in a moment
                log.error("cannot start a device host", backend=self.name, error=error.strerror)
            wait = 0.0 if expected else backoff.after(time.monotonic() - began)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._stopping.wait()

    def _spawn(self) -> Child:
        message = {
            "config": to_json(self._backend),
            "pin_refused": self._pin.refused,
            "drain": self._config.drain_seconds,
        }
        arguments: dict[str, socket.socket | None] = {"--listen-fd": self._socket}
        environment = self._environments.for_host(self._backend)
        self._pin.host_starts(self._backend)
        self.child = Child.start(f"host {self.name}", "hsmsign.daemon.host", arguments, message, environment)
        self.child.on_event = self._heard
        log.info("device host started", backend=self.name, pid=self.child.pid)
        self._changed()
        return self.child

    def _tell_of_unfinished_login(self) -> None:
        log.error(
            "the device host ended while it logged in; the PIN is not tried again before a reload",
            backend=self.name,
            hint="see the vendor's log and the token's PIN counter, then reload",
        )

    def _heard(self, event: Event) -> None:
        if event.get("event") == "logging-in":
            self._pin.login_begins(self._backend)
        if event.get("event") != "health":
            return
        self._state = str(event.get("state", ""))
        self._pin.device_is(self._state)
        level = log.error if self._state in _STUCK else log.info
        details = {key: event[key] for key in ("message", "hint", "ckr") if event.get(key)}
        level("device", backend=self.name, state=self._state, **details)

    def reload(self, backend: BackendConfig, config: Config) -> None:
        """Take a new configuration. The host is replaced where it changed, or where it is stuck: a
        reload is a person's word that the PIN may be tried again."""
        replaced = backend != self._backend or self._state in _STUCK or self._pin.refused
        self._backend, self._config = backend, config
        if replaced and self.child is not None:
            self._pin.person_reloads()
            self._state = ""
            self.child.on_event = lambda _: None
            self.child.terminate()

    async def stop(self) -> None:
        """End the host, gently, and keep none."""
        self._stopping.set()
        if self._task is not None:
            if self.child is not None:
                self.child.terminate()
            await asyncio.wait([self._task])  # not the task itself: whoever gives up waiting must not end it
        self._socket.close()
        self.path.unlink(missing_ok=True)


class WorkerKeeper:
    """The front worker, and while the configuration changes, the one before it."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.current: Child | None = None
        self.endpoint = ""
        self._changed = changed
        self._starting: Child | None = None
        self._retiring: set[Child] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reserved: socket.socket | None = None
        self._unix: socket.socket | None = None
        self._metrics: socket.socket | None = None
        self._web: socket.socket | None = None
        self._enroll: socket.socket | None = None
        self.metrics_endpoint = self.web_endpoint = self.enroll_endpoint = ""
        self._stopping = False

    def listen(self, config: Config) -> None:
        """Open what callers connect to."""
        if config.listen is not None:
            host, port = config.listen
            self._reserved, port = listeners.reserve_port(host, port)
            self.endpoint = _endpoint(host, port)
        if config.metrics is not None:
            self._metrics, self.metrics_endpoint = _listen(*config.metrics)
        if config.web is not None:
            self._web, self.web_endpoint = _listen(*config.web)
        if config.enroll is not None:
            self._enroll, self.enroll_endpoint = _listen(*config.enroll)
        if config.unix_socket is not None:
            self._unix = listeners.open_public_unix(config.unix_socket, config.unix_group)

    @property
    def children(self) -> list[Child]:
        """All workers that run now."""
        return [child for child in (self.current, self._starting, *self._retiring) if child is not None]

    async def start(self, config: WorkerConfig, environment: dict[str, str]) -> Event | None:
        """Start a worker and wait until it serves; then let the one before it finish and go.

        Gives what it said where it cannot start: then nothing has changed, as where waiting is cancelled.
        """
        # a worker that is still there may be making a key, which looks like what a crash leaves
        child = self._spawn(replace(config, mend=self.current is None), environment)
        run = asyncio.get_running_loop().create_task(child.run())
        ready = asyncio.get_running_loop().create_task(child.ready.wait())
        self._starting = child
        try:
            await asyncio.wait([run, ready], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self._give_up(child, run)
            raise
        finally:
            self._starting = None
            ready.cancel()
        if not child.ready.is_set():
            return child.failure or {"message": f"the front worker ended with {run.result()} before it was ready"}
        before, self.current = self.current, child
        keep = asyncio.get_running_loop().create_task(self._keep(child, run, config, environment))
        self._tasks.add(keep)
        keep.add_done_callback(self._tasks.discard)
        if before is not None and before.alive():
            self._retiring.add(before)
            before.terminate()
        return None

    @staticmethod
    async def _give_up(child: Child, run: asyncio.Task[int]) -> None:
        """End a worker that has nothing under way yet, whatever it hangs in."""
        child.terminate()
        await asyncio.wait([run], timeout=_PARTING)
        child.kill()
        await asyncio.wait([run])

    def _spawn(self, config: WorkerConfig, environment: dict[str, str]) -> Child:
        message = {"config": to_json(replace(config, listen=self.endpoint))}
        sockets = {"--unix-fd": self._unix, "--metrics-fd": self._metrics, "--web-fd": self._web}
        sockets["--enroll-fd"] = self._enroll
        child = Child.start("worker", "hsmsign.daemon.worker", sockets, message, environment)
        log.info("worker started", pid=child.pid)
        return child

    async def _keep(
        self, child: Child, run: asyncio.Task[int], config: WorkerConfig, environment: dict[str, str]
    ) -> None:
        backoff = Backoff()
        while True:
            code = await run
            self._retiring.discard(child)
            log.info("worker ended", pid=child.pid, code=code)
            if child is not self.current or self._stopping:
                return
            await asyncio.sleep(backoff.after(time.monotonic() - child.started))
            if child is not self.current or self._stopping:
                return
            try:
                child = self.current = self._spawn(replace(config, mend=not self._retiring), environment)
            except OSError as error:  # no memory, no descriptors: perhaps in a moment
                log.error("cannot start a worker", error=error.strerror)
                continue
            child.on_event = lambda event: self._changed() if event.get("event") == "ready" else None
            run = asyncio.get_running_loop().create_task(child.run())

    async def stop(self) -> None:
        """End all workers; what they have under way is finished."""
        self._stopping = True
        for child in self.children:
            child.terminate()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def close(self) -> None:
        """Let go of the sockets, and of the path in the file system."""
        for reserved in (self._reserved, self._metrics, self._web, self._enroll):
            if reserved is not None:
                reserved.close()
        if self._unix is not None:
            Path(self._unix.getsockname()).unlink(missing_ok=True)
            self._unix.close()


def _listen(host: str, port: int) -> tuple[socket.socket, str]:
    """A port on which a worker answers HTTP, and its name."""
    reserved, port = listeners.reserve_port(host, port)
    reserved.listen()
    return reserved, _endpoint(host, port)


def _endpoint(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

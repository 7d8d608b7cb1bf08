"""A keeper sees to it that one device host is there. Those of the front workers are in hsmsign.daemon.workers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable

import structlog

from hsmsign.backends.base import BackendConfig
from hsmsign.daemon import listeners
from hsmsign.daemon.children import Backoff, Child, Event
from hsmsign.daemon.config import Config
from hsmsign.daemon.pin_memory import REFUSED, PinMemory
from hsmsign.model.hostwire import to_json

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

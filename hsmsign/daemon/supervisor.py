"""The supervisor: starts the device hosts and the front workers, and replaces whichever goes away.

It parses nothing that a stranger sends and touches no device: it owns the sockets that outlive the
others, remembers which PIN was refused, and carries out SIGTERM (drain) and SIGHUP (reload).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import structlog

from hsmsign.daemon import config as configuration
from hsmsign.daemon import listeners, logs
from hsmsign.daemon.audit_keeper import AuditKeeper
from hsmsign.daemon.children import Child
from hsmsign.daemon.config import Config
from hsmsign.daemon.keepers import Environments, HostKeeper
from hsmsign.daemon.notify import Notifier
from hsmsign.daemon.worker_config import Durability, HostAddress, WorkerConfig
from hsmsign.daemon.workers import WorkersKeeper
from hsmsign.model.errors import HsmsignError

EXIT_CONFIG = 78
_PATROL = 0.25
_T = TypeVar("_T")
log = structlog.get_logger()


class Supervisor:
    """The daemon as a whole, on one event loop."""

    def __init__(self, path: Path, config: Config) -> None:
        self._path = path
        self._config = config
        self._notify = Notifier()
        self._hosts: dict[str, HostKeeper] = {}
        self._workers: WorkersKeeper | None = None
        self._audit: AuditKeeper | None = None
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._reload = asyncio.Event()
        self._endpoints: dict[str, object] = {}
        self._environments = Environments()
        self._leaving: list[HostKeeper] = []

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT. Returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        self._config.run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        locks = [listeners.lock_state(self._config.state_dir), listeners.lock_run(self._config.run_dir)]
        self._endpoints_file.unlink(missing_ok=True)
        try:
            self._open()
            patrol = loop.create_task(self._patrol())
            try:
                return await self._serve()
            finally:
                await self._end_children()
                patrol.cancel()  # as late as this: a child that hangs does not hold up the others' end
        finally:
            self._endpoints_file.unlink(missing_ok=True)
            for lock in locks:
                os.close(lock)

    @property
    def _endpoints_file(self) -> Path:
        return self._config.run_dir / "endpoints.json"

    def _open(self) -> None:
        config = self._config
        self._environments.learn(config)
        self._workers = WorkersKeeper(config, self._changed)
        if config.audit.durability is not Durability.OFF:
            environment = self._environments.for_worker()
            self._audit = AuditKeeper(config.audit.folder, config.run_dir, environment, self._changed)
        for backend in config.backends:
            self._hosts[backend.name] = HostKeeper(backend, config, self._environments, self._changed)

    async def _serve(self) -> int:
        assert self._workers is not None  # noqa: S101 - _open made it
        for host in self._hosts.values():
            host.start()
        failure = await self._unless_stopped(self._audit.start()) if self._audit is not None else None
        if failure is None and not self._stop.is_set():
            start = self._workers.start(self._worker_config(self._config), self._environments.for_worker())
            failure = await self._unless_stopped(start)
        if failure is not None:
            log.error("the daemon cannot start", error=failure.get("message", ""), hint=failure.get("hint", ""))
            return EXIT_CONFIG
        if not self._stop.is_set():
            self._serving()
        while not self._stop.is_set():
            waits = [asyncio.create_task(event.wait()) for event in (self._stop, self._reload)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
            if self._reload.is_set() and not self._stop.is_set():
                self._reload.clear()
                await self._unless_stopped(self._reload_now())
        self._notify.stopping()
        log.info("stopping", drain_seconds=self._config.drain_seconds)
        return 0

    def _serving(self) -> None:
        self._changed()
        log.info("ready", **{key: value for key, value in self._endpoints.items() if key != "pids"})
        self._notify.ready("serving")

    async def _unless_stopped(self, work: Coroutine[Any, Any, _T]) -> _T | None:
        """Do it, or give it up as soon as we are asked to stop (None)."""
        task = asyncio.create_task(work)
        stop = asyncio.create_task(self._stop.wait())
        await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not task.done():
            task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            return None

    def _asked_to_stop(self) -> None:
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    def _worker_config(self, config: Config) -> WorkerConfig:
        assert self._workers is not None  # noqa: S101 - _open made it
        hosts = tuple(
            HostAddress(backend.name, backend.kind, self._hosts[backend.name].path) for backend in config.backends
        )
        return config.for_worker(
            self._workers.doors.endpoint, hosts, self._audit.path if self._audit is not None else None
        )

    # ---- SIGHUP ----

    async def _reload_now(self) -> None:
        self._notify.reloading()
        try:
            await self._take(configuration.load(self._path))
            log.info("reloaded", config=str(self._path))
            self._notify.ready("serving")
        except (HsmsignError, OSError) as error:
            said = (
                {"error": error.message, "hint": error.hint}
                if isinstance(error, HsmsignError)
                else {"error": str(error)}
            )
            log.error("reload refused; the old configuration stays", **said)
            self._notify.ready("serving; the last reload was refused")

    async def _take(self, config: Config) -> None:
        """Bring everything to a new configuration: new parts first, old ones go when those are ready."""
        assert self._workers is not None  # noqa: S101 - _open made it
        old = self._config
        if (config.state_dir, config.run_dir) != (old.state_dir, old.run_dir):
            raise configuration.restart_needed("daemon.state_dir or daemon.run_dir")
        places = ("listen", "unix_socket", "unix_group", "metrics", "web", "enroll")
        if any(getattr(config, place) != getattr(old, place) for place in places):
            raise configuration.restart_needed("where the daemon listens")
        off = Durability.OFF
        if (config.audit.folder, config.audit.durability is off) != (old.audit.folder, old.audit.durability is off):
            raise configuration.restart_needed("audit.folder, or whether there is an audit log")
        self._environments.learn(config)
        added = {
            backend.name: HostKeeper(backend, config, self._environments, self._changed)
            for backend in config.backends
            if backend.name not in self._hosts
        }
        before = dict(self._hosts)
        wanted = {backend.name: backend for backend in config.backends}
        self._hosts = {name: before.get(name) or added[name] for name in wanted}
        self._leaving = [host for name, host in before.items() if name not in wanted]
        failure = await self._workers.start(self._worker_config(config), self._environments.for_worker())
        if failure is not None:
            self._hosts, self._leaving = before, []
            for host in added.values():
                await host.stop()
            raise HsmsignError(failure.get("message", "the new worker did not start"), hint=failure.get("hint", ""))
        self._config = config
        for host in added.values():
            host.start()
        for name, host in before.items():
            if name in wanted:
                host.reload(wanted[name], config)
        while self._leaving:
            await self._leaving[-1].stop()
            self._leaving.pop()
        logs.configure(config.log_level, config.log_format, "supervisor")
        self._changed()

    # ---- what goes on beside it ----

    async def _patrol(self) -> None:
        """Whoever is silent for too long hangs, and is ended; its keeper starts another."""
        while True:
            await asyncio.sleep(_PATROL)
            self._notify.alive()
            for child in self._children():
                if child.silent_for() > self._config.heartbeat_seconds:
                    log.error("a process is silent; it is replaced", child=child.name, pid=child.pid)
                    child.kill()

    def _children(self) -> list[Child]:
        children = [host.child for host in (*self._hosts.values(), *self._leaving) if host.child is not None]
        if self._audit is not None and self._audit.child is not None:
            children.append(self._audit.child)
        return [*children, *(self._workers.children if self._workers is not None else [])]

    def _changed(self) -> None:
        """Write down where we are, for people, tools and tests; whole or not at all."""
        workers = self._workers.current if self._workers is not None else []
        if self._workers is None or not workers or not all(child.ready.is_set() for child in workers):
            return
        doors = self._workers.doors
        self._endpoints = {
            "tcp": doors.endpoint,
            "unix": str(self._config.unix_socket or ""),
            **doors.endpoints,
            "pids": {
                "supervisor": os.getpid(),
                "worker": workers[0].pid,
                "workers": [child.pid for child in workers],
                **({"auditor": self._audit.child.pid} if self._audit is not None and self._audit.child else {}),
                "hosts": {name: host.child.pid for name, host in self._hosts.items() if host.child is not None},
            },
        }
        temporary = self._endpoints_file.with_suffix(".new")
        try:
            temporary.write_text(json.dumps(self._endpoints, indent=2) + "\n")
            temporary.replace(self._endpoints_file)
        except OSError as error:  # a full disk: what is running goes on
            log.warning("cannot write the endpoints file", error=error.strerror)

    async def _end_children(self) -> None:
        """Callers first, devices after them: what is under way still finds its device."""
        if self._workers is not None:
            await self._within(self._workers.stop(), self._config.drain_seconds + 5)
        await self._within(self._end_hosts(), self._config.drain_seconds + 5)
        if self._audit is not None:
            await self._within(self._audit.stop(), self._config.drain_seconds + 5)
        for child in self._children():
            child.kill()
        if self._workers is not None:
            self._workers.close()

    async def _end_hosts(self) -> None:
        hosts = (*self._hosts.values(), *self._leaving)
        await asyncio.gather(*(host.stop() for host in hosts), return_exceptions=True)

    async def _within(self, work: Coroutine[Any, Any, object], seconds: float) -> None:
        task = asyncio.create_task(work)
        hurry = asyncio.create_task(self._hurry.wait())
        await asyncio.wait([task, hurry], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def run(path: Path) -> int:
    """Run the daemon of a configuration file. Raises HsmsignError where it cannot start."""
    config = configuration.load(path)
    logs.configure(config.log_level, config.log_format, "supervisor")
    return asyncio.run(Supervisor(path, config).run())

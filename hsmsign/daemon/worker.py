"""The front worker: the process that callers talk to. No PIN, no vendor's library, no key.

    python -m hsmsign.daemon.run_worker --control-fd N --ledger-fd I [--unix-fd M] [--metrics-fd K] [--web-fd L]
        [--enroll-fd J]

The first line of the control channel holds the configuration. SIGTERM means: finish what is under way,
take nothing new, exit 0. The channel's end means that the supervisor is gone, and the worker goes too.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import signal
from collections.abc import Coroutine, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
import uvloop

from hsmsign.audit.auditing import Audit, LoggedAudit, NoAudit
from hsmsign.audit.recorder import Recorder
from hsmsign.daemon import logs, worker_files, worker_sockets, worker_tls
from hsmsign.daemon.control import ChildControl
from hsmsign.daemon.worker_config import Durability, WorkerConfig
from hsmsign.daemon.worker_sockets import Inherited
from hsmsign.devices.base import Device
from hsmsign.devices.remote import RemoteDevice
from hsmsign.keyring import Keyring
from hsmsign.keyring.approvals import Approvals
from hsmsign.keyring.locks import KeyLocks
from hsmsign.model.device import DeviceHealth, DeviceState
from hsmsign.model.errors import ConfigurationError, HsmsignError
from hsmsign.model.hostwire import from_json
from hsmsign.model.revocation import NO_CRLS
from hsmsign.policy import Policy
from hsmsign.server.app import Application, build
from hsmsign.server.confinement import confine
from hsmsign.server.doorman import Doorman, own_folder, raise_descriptors
from hsmsign.server.identity import Identifier
from hsmsign.server.tls_files import TlsFiles
from hsmsign.server.tracing import Tracing
from hsmsign.signing import Admission, SigningPipeline
from hsmsign.signing.checkpoints import Checkpointer
from hsmsign.signing.places import Places
from hsmsign.store import Store

if TYPE_CHECKING:
    from hsmsign.daemon.worker_tracing import OpenTelemetry
    from hsmsign.pki.office import Office
    from hsmsign.web.server import WebServer
    from hsmsign.web.siblings import Siblings

_BEAT = 1.0
log = structlog.get_logger()


class Worker:
    """One worker's objects, from the store to the ports."""

    def __init__(self, config: WorkerConfig, control: ChildControl, inherited: Inherited) -> None:
        self._config = config
        self._control = control
        self._ledger = inherited.ledger
        self._unix = inherited.unix
        self._metrics = inherited.metrics
        self._web = inherited.web
        self._enroll = inherited.enroll
        self._siblings: Siblings | None = None
        self._office: Office | None = None
        self._webs: list[WebServer] = []
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._application: Application | None = None

    async def run(self) -> int:
        """Serve until SIGTERM or until the supervisor is gone. Returns the exit code."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's ^C is the supervisor's business
        loop.add_reader(self._control.fileno(), self._supervisor_gone)
        config = self._config
        store, devices, keyring = await self._open_keys()
        prefix = f"hsmsign/{secrets.token_hex(8)}" if self._unix is not None else None
        tls = TlsFiles(config.tls) if config.tls is not None and config.listen else None
        places = Places(devices, config.limits.max_in_flight)
        recorder, audit, checkpointer = self._open_audit(keyring, places, devices[config.default_backend])
        audit = self._open_web(audit, recorder, devices, places)
        audit, tracing = self._open_tracing(audit)
        identify = Identifier(
            prefix,
            tls12=config.tls is not None and config.tls.tls12,
            crls=tls.crls if tls is not None else lambda: NO_CRLS,
        )
        application = self._application = self._build(store, keyring, devices, places, audit, identify, tracing)
        doorman = self._open_ports(application, prefix, tls)
        await application.server.start()
        application.set_serving(True)
        self._control.send("ready")
        beside = self._begin_beside(tls, checkpointer)
        await self._stop.wait()
        log.info("draining", seconds=config.drain_seconds)
        if doorman is not None:
            doorman.close_door()
        await application.stop(config.drain_seconds)
        if self._office is not None:
            await self._office.queue.close(config.drain_seconds)
        await keyring.close()
        await application.settle()
        if checkpointer is not None:
            await checkpointer.make()
        if recorder is not None:
            await recorder.close()
        for device in devices.values():
            await device.close()
        await asyncio.to_thread(store.close)
        if tracing is not None:
            await asyncio.to_thread(tracing.close)
        for web in self._webs:
            web.stop()
        for task in beside:
            task.cancel()
        return 0

    async def _open_keys(self) -> tuple[Store, dict[str, RemoteDevice], Keyring]:
        """The store, the ways to the devices, and the names of keys."""
        config = self._config
        store = await asyncio.to_thread(Store.open, config.store_url)
        devices = {
            host.name: await RemoteDevice.open(host.name, host.kind, host.socket, max_jobs=config.limits.max_in_flight)
            for host in config.hosts
        }
        try:
            locks = KeyLocks(config.run_dir / "keys.lock")
        except OSError as error:
            raise ConfigurationError(f"cannot write in {config.run_dir}: {error.strerror}") from error
        keyring = Keyring(store, devices, config.default_backend, ledger=self._ledger, locks=locks)
        for device in devices.values():
            self._follow(keyring, device)
        return store, devices, keyring

    def _build(
        self,
        store: Store,
        keyring: Keyring,
        devices: Mapping[str, Device],
        places: Places,
        audit: Audit,
        identify: Identifier,
        tracing: Tracing | None,
    ) -> Application:
        """Everything that answers calls, but no port."""
        config = self._config
        policy = Policy(config.policy)
        admission = Admission(config.policy.limits, config.limits.max_in_flight_per_caller, ledger=self._ledger)
        approvals = Approvals(store)
        pipeline = SigningPipeline(keyring, places, config.limits, policy, admission, audit, approvals)
        self._open_pki(store, keyring, pipeline, policy, audit)
        return build(
            keyring=keyring,
            pipeline=pipeline,
            policy=policy,
            devices=devices,
            default_backend=config.default_backend,
            limits=config.limits,
            version=version("hsmsign"),
            identify=identify,
            audit=audit,
            approvals=approvals,
            tracing=tracing,
            audit_log=(config.audit.folder if config.audit_socket is not None else None, config.audit.key),
            office=self._office,
            ledger=self._ledger,
            generation=config.generation,
        )

    def _open_pki(
        self, store: Store, keyring: Keyring, pipeline: SigningPipeline, policy: Policy, audit: Audit
    ) -> None:
        """The certificate authority, where there is one, and its HTTP ports."""
        config = self._config
        if config.pki is None:
            return
        from hsmsign.daemon import worker_pki  # not small, and not everybody has a CA

        self._office = worker_pki.open_office(config.pki, store, keyring, pipeline, config.limits, self._ledger)
        many = config.workers
        if self._web is not None:
            self._webs.append(worker_pki.open_relying(self._web, self._office, many))
        if self._enroll is not None and config.enroll_tls is not None:
            tls = config.enroll_tls
            self._webs.append(worker_pki.open_enrolling(self._enroll, self._office, audit, policy, keyring, tls, many))

    def _begin_beside(self, tls: TlsFiles | None, checkpointer: Checkpointer | None) -> list[asyncio.Task[None]]:
        """What goes on beside the calls, until it is cancelled."""
        work: list[Coroutine[Any, Any, None]] = [self._beat()]
        if tls is not None:
            work.append(worker_tls.watch(tls, self._webs))
        if self._siblings is not None and self._config.workers > 1:
            work.append(self._siblings.run())
        if checkpointer is not None and self._config.number == 0:  # the others at their end: then it is for the last
            work.append(checkpointer.run(self._config.audit.checkpoint_seconds))
        if self._office is not None:
            work += [self._office.publisher.run(), self._office.responding.run()]
        work += [web.run() for web in self._webs]
        tasks = [asyncio.get_running_loop().create_task(one) for one in work]
        for task in tasks:
            task.add_done_callback(_ended)
        return tasks

    def _open_web(
        self, audit: Audit, recorder: Recorder | None, devices: Mapping[str, Device], places: Places
    ) -> Audit:
        """Metrics and health over HTTP, where they are wanted; what is recorded is then counted, too."""
        if self._metrics is None:
            return audit
        from hsmsign.daemon.worker_web import open_web  # not small, and not everybody wants it

        audit, web, self._siblings = open_web(
            self._metrics,
            self._config,
            audit=audit,
            devices=devices,
            active=self._calls_under_way,
            waiting=recorder.waiting if recorder is not None else lambda: 0,
            stopping=self._stop.is_set,
            places=places,
            office=lambda: self._office,
            private=_doors(self._config),
        )
        self._webs.append(web)
        return audit

    def _open_tracing(self, audit: Audit) -> tuple[Audit, OpenTelemetry | None]:
        """Traces, where they are wanted; what is recorded is then traced, too."""
        if self._config.tracing is None:
            return audit, None
        from hsmsign.daemon.worker_tracing import OpenTelemetry  # large, and not everybody wants or has it

        tracing = OpenTelemetry(self._config.tracing)
        return tracing.audited(audit), tracing

    def _calls_under_way(self) -> int:
        return self._application.active() if self._application is not None else 0

    def _open_audit(
        self, keyring: Keyring, places: Places, home: Device
    ) -> tuple[Recorder | None, Audit, Checkpointer | None]:
        """The way to the audit log, and what signs its checkpoints."""
        config, said = self._config, self._config.audit
        if config.audit_socket is None:
            log.warning("nothing is recorded: audit.durability is off")
            return None, NoAudit(), None
        recorder = Recorder(
            config.audit_socket, relaxed=said.durability is Durability.RELAXED, busy=self._calls_under_way
        )
        checkpointer = None
        if said.checkpoint_seconds:
            checkpointer = Checkpointer(keyring, places, home, recorder, origin=said.origin, key=said.key)
        return recorder, LoggedAudit(recorder, durable=said.durability is Durability.STRICT), checkpointer

    async def _beat(self) -> None:
        """To the very end: a worker that drains is alive."""
        while True:
            self._control.send("beat")
            if self._application is not None:
                self._application.look()
            await asyncio.sleep(_BEAT)

    def _supervisor_gone(self) -> None:
        log.error("the supervisor is gone")
        os._exit(70)  # nobody waits for anything any more, and a half-alive worker would hold the port

    def _open_ports(self, application: Application, prefix: str | None, tls: TlsFiles | None) -> Doorman | None:
        config = self._config
        if tls is not None:
            self._open_tcp(application, config.listen, tls)
        if self._unix is None or prefix is None:
            return None
        inner = _doors(config) / f"{os.getpid()}.sock"
        inner.unlink(missing_ok=True)
        application.server.add_insecure_port(f"unix:{inner}")
        most, of_one = config.max_unix_connections, config.limits.max_connections_per_caller
        ledger, generation = self._ledger, config.generation
        return Doorman(self._unix, inner, prefix, most, of_one, ledger=ledger, generation=generation)

    def _open_tcp(self, application: Application, listen: str, tls: TlsFiles) -> None:
        try:
            application.server.add_secure_port(listen, tls.credentials())
        except RuntimeError as error:  # gRPC's only word for it; the details went to its own log
            raise ConfigurationError(f"cannot listen on {listen}", hint="is it in use? see server.listen") from error

    def _follow(self, keyring: Keyring, device: RemoteDevice) -> None:
        def changed(health: DeviceHealth) -> None:
            log.info("backend", backend=device.name, state=health.state.value, message=health.message)
            if health.state is DeviceState.READY:
                task = asyncio.get_running_loop().create_task(_mend(keyring, device.name))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

        device.on_health(changed)


async def _mend(keyring: Keyring, backend: str) -> None:
    """Finish, or undo, what a crash left half made. It is tried again at the next READY."""
    try:
        await keyring.recover(backend)
    except HsmsignError as error:
        log.warning("could not mend what an earlier crash left", backend=backend, error=error.message)


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a part of the worker failed; calls go on without it", error=repr(error))


def _doors(config: WorkerConfig) -> Path:
    """Where gRPC's private sockets are, and those between workers."""
    return config.run_dir / "workers"


def _give_up(config: WorkerConfig) -> None:
    """Take what is needed, and then give up what is not: for good. Raises HsmsignError."""
    raise_descriptors()
    own_folder(_doors(config))
    for missing in confine(worker_files.readable(config), worker_files.writable(config)):
        log.warning("this kernel lacks a protection", missing=missing)


def main() -> int:
    """Read the control channel's first line, and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--control-fd", type=int, required=True)
    worker_sockets.add_options(parser)
    arguments = parser.parse_args()
    control = ChildControl(arguments.control_fd)
    message = control.receive()
    if message is None:
        return 0
    config: WorkerConfig = from_json(WorkerConfig, message["config"])
    logs.configure(config.log_level, config.log_format, "worker" if config.workers == 1 else f"worker {config.number}")

    async def serve(inherited: Inherited) -> int:
        return await Worker(config, control, inherited).run()

    try:
        inherited = worker_sockets.inherit(arguments, message["slot"])
        _give_up(config)
        return uvloop.run(serve(inherited))
    except HsmsignError as error:
        log.error("the worker cannot start", error=error.message, hint=error.hint)
        control.send("failed", message=error.message, hint=error.hint)
        return 78

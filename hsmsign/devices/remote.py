"""A device behind the process wall, as a worker's event loop uses it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import structlog

from hsmsign.devices.base import Lookup, NotAnsweringError
from hsmsign.devices.connection import open_connection
from hsmsign.devices.health import refusal
from hsmsign.devices.link import Link, LinkLost
from hsmsign.devices.manage import HostLost, ManageClient
from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.attestation import AttesterIdentity, Certified
from hsmsign.model.device import DeviceHealth, DeviceInfo, DeviceKey, DeviceState, SignOrder, SignOutcome
from hsmsign.model.errors import DeviceUnavailableError, HsmsignError
from hsmsign.model.hostwire import HELLO_SIGN, from_json

_FIRST_WAIT, _LONGEST_WAIT = 0.01, 0.5
_HEALTH_PERIOD = 1.0
_ATTEMPTS = 3
"""How many hosts a management call may outlive."""
_LOOK_AFTER = 0.15
"""Seconds that an order which could go elsewhere is left alone before its device is looked at."""
_ANSWERS_WITHIN = 0.25
"""Seconds for a host to say how it is: that asks nothing of the device."""
_SILENT_AFTER = 0.4
"""Seconds inside one signature after which orders that can go elsewhere do."""
_WAITING = frozenset({DeviceState.STARTING, DeviceState.HEALING})

_log = structlog.get_logger(__name__)
HealthListener = Callable[[DeviceHealth], None]


class RemoteDevice:
    """One token in a host of its own (hsmsign.devices.base.Device)."""

    def __init__(self, name: str, kind: str, path: Path, link: Link, manage: ManageClient) -> None:
        self._name, self._kind, self._path = name, kind, path
        self._link, self._manage = link, manage
        self._watch = ManageClient(path)  # of its own: health does not wait for a key that is being made
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._writing = False
        self._calls: dict[int, asyncio.Future[SignOutcome]] = {}
        self._movable: dict[int, asyncio.Future[SignOutcome]] = {}
        """Those of the calls that do not wait for the device, the oldest first."""
        self._moving = asyncio.Event()
        self._silent = False
        self._health = DeviceHealth(DeviceState.STARTING, "the device host has not answered yet")
        self._info: DeviceInfo | None = None
        self._listeners: list[HealthListener] = []
        self._lost = asyncio.Event()
        self._look = asyncio.Event()
        self._ready = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def open(
        cls, name: str, kind: str, socket_path: Path, *, max_jobs: int = 65536, max_bytes: int = 256 << 20
    ) -> RemoteDevice:
        """Begin to reach for the host, and go on until `close`. Does not wait for it."""
        device = cls(name, kind, socket_path, Link(max_jobs=max_jobs, max_bytes=max_bytes), ManageClient(socket_path))
        device._start(device._keep_connected(), device._watch_health(), device._watch_movable())
        return device

    def _start(self, *jobs: Coroutine[Any, Any, None]) -> None:
        self._lost.set()
        self._tasks = [self._loop.create_task(job) for job in jobs]

    async def close(self) -> None:
        """Let go of the host. Calls that still wait end with DeviceUnavailableError."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._disconnect()
        self._manage.close()
        self._watch.close()
        for call in self._calls.values():
            if not call.done():
                call.set_exception(DeviceUnavailableError("the daemon is going down", retry_after=1.0))
        self._calls.clear()

    @property
    def name(self) -> str:
        """The backend's name in the configuration."""
        return self._name

    @property
    def kind(self) -> str:
        """The backend's kind."""
        return self._kind

    def health(self) -> DeviceHealth:
        """How it was when last heard of."""
        return self._health

    def info(self) -> DeviceInfo | None:
        """Who it is; None until it was ready once."""
        return self._info

    def in_flight(self) -> int:
        """Signatures that wait or are under way for this worker."""
        return self._link.jobs()

    def on_health(self, listener: HealthListener) -> None:
        """Have `listener` called, on the event loop, at every change of health."""
        self._listeners.append(listener)

    # ---- signatures ----

    async def sign(self, order: SignOrder, *, waits: bool = True) -> SignOutcome:
        """Make many signatures: see hsmsign.devices.base.Device.sign."""
        if not waits and not self.answering():
            raise self._not_answering()
        order_id = self._link.submit(order)
        call: asyncio.Future[SignOutcome] = self._loop.create_future()
        self._calls[order_id] = call
        if not waits:
            self._movable[order_id] = call
            self._moving.set()
        self._mind_writing()
        try:
            outcome = await call
        except asyncio.CancelledError:
            self._link.cancel(order_id)
            self._mind_writing()
            raise
        finally:
            self._calls.pop(order_id, None)
            self._movable.pop(order_id, None)
        if outcome.failures:
            self._look.set()  # perhaps the device has a new state: do not wait for the next look
        return outcome

    def _readable(self) -> None:
        try:
            self._link.pump()
        except LinkLost:
            self._disconnect()
        self._answer()
        self._mind_writing()

    def _answer(self) -> None:
        for order_id, outcome in self._link.reap():
            call = self._calls.get(order_id)
            if call is not None and not call.done():
                call.set_result(outcome)

    def _writable(self) -> None:
        try:
            self._link.flush()
        except LinkLost:
            self._disconnect()
        self._mind_writing()

    def _mind_writing(self) -> None:
        wanted = self._socket is not None and self._link.wants_write()
        if wanted == self._writing or self._socket is None:
            return
        self._writing = wanted
        if wanted:
            self._loop.add_writer(self._socket.fileno(), self._writable)
        else:
            self._loop.remove_writer(self._socket.fileno())

    # ---- orders that can go elsewhere ----

    def answering(self) -> bool:
        """Whether it would begin with an order at once."""
        return self._socket is not None and not self._silent and self._health.state is DeviceState.READY

    def _not_answering(self) -> NotAnsweringError:
        return NotAnsweringError(
            f"the device of backend {self._name!r} does not answer",
            hint="look at it: hsmsign backend list",
            metadata={"backend": self._name},
            retry_after=1.0,
        )

    def _send_away(self) -> None:
        for order_id, call in self._movable.items():
            self._link.cancel(order_id)
            if not call.done():
                call.set_exception(self._not_answering())
        self._movable.clear()
        self._mind_writing()

    async def _watch_movable(self) -> None:
        """A device may be silent without being gone: then only its orders tell."""
        while True:
            await self._moving.wait()
            newest = next(reversed(self._movable), -1)
            await asyncio.sleep(_LOOK_AFTER)
            oldest = next(iter(self._movable), None)
            if oldest is None:
                self._moving.clear()
            elif oldest <= newest and not await self._works():
                _log.warning("a device is silent: replicas take over where there are any", backend=self._name)
                self._silent = True
                self._send_away()

    async def _works(self) -> bool:
        try:
            async with asyncio.timeout(_ANSWERS_WITHIN):
                health = from_json(DeviceHealth, await self._watch.ask("health"))
        except (TimeoutError, HsmsignError, ValueError, TypeError, KeyError):
            return False
        return bool(health.busy < _SILENT_AFTER)

    # ---- the connection ----

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.detach()  # the link owns the descriptor
            self._socket = None
            self._writing = False
        self._link.detach()
        self._send_away()
        self._lost.set()

    async def _keep_connected(self) -> None:
        wait = _FIRST_WAIT
        while True:
            await self._lost.wait()
            try:
                connection = open_connection(self._path, HELLO_SIGN)
            except OSError:
                await asyncio.sleep(wait)
                wait = min(wait * 2, _LONGEST_WAIT)
                continue
            self._lost.clear()
            self._attach(connection)
            self._look.set()
            # a host that drops the connection at once must not make this spin
            await asyncio.sleep(_FIRST_WAIT)
            wait = _FIRST_WAIT

    def _attach(self, connection: socket.socket) -> None:
        self._socket = connection
        self._loop.add_reader(connection.fileno(), self._readable)
        try:
            self._link.attach(connection.fileno())
        except LinkLost:
            self._disconnect()
        self._answer()
        self._mind_writing()

    # ---- health ----

    async def _watch_health(self) -> None:
        while True:
            self._look.clear()
            try:
                await self._set_health(from_json(DeviceHealth, await self._watch.ask("health")))
            except (HsmsignError, ValueError, TypeError, KeyError) as error:  # the last three: an answer in no form
                said = error if isinstance(error, HsmsignError) else DeviceUnavailableError("the device host babbles")
                await self._set_health(DeviceHealth(DeviceState.STARTING, said.message, said.hint))
                await asyncio.sleep(_FIRST_WAIT * 5)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_HEALTH_PERIOD):
                    await self._look.wait()

    async def _set_health(self, health: DeviceHealth) -> None:
        if health.state is DeviceState.READY and (self._info is None or self._health.state is not DeviceState.READY):
            self._info = from_json(DeviceInfo, await self._manage.ask("describe"))
        if self._silent and health.busy < _SILENT_AFTER:
            self._silent = False
        if health == self._health:
            return
        self._health = health
        if health.state is not DeviceState.READY:
            self._send_away()
        async with self._ready:
            self._ready.notify_all()
        for listener in self._listeners:
            listener(health)

    async def _usable(self) -> None:
        """Wait while the device is being brought (back); raise what it is if it is not usable."""
        async with self._ready:
            await self._ready.wait_for(lambda: self._health.state not in _WAITING)
        error = refusal(self._name, self._health)
        if error is not None:
            raise error

    # ---- management ----

    async def generate(self, algorithm: KeyAlgorithm, object_id: bytes, label: str, pcrs: str = "") -> DeviceKey:
        """Make a key pair; a host that dies meanwhile is asked again, which finds what it had made."""
        asked = {"algorithm": algorithm, "object_id": object_id, "label": label, "pcrs": pcrs}
        answer = await self._manage_call("generate", **asked)
        return from_json(DeviceKey, answer)  # type: ignore[no-any-return]

    async def find(self, lookup: Lookup) -> Sequence[DeviceKey]:
        """The key pairs that fit."""
        answer = await self._manage_call("find", id=lookup.id, label=lookup.label, locator=lookup.locator)
        return from_json(list[DeviceKey], answer)  # type: ignore[no-any-return]

    async def destroy(self, locator: bytes) -> bool:
        """Destroy a key pair. False where there was nothing, also where a host that died had done it."""
        return bool(await self._manage_call("destroy", locator=locator))

    async def attester(self) -> AttesterIdentity:
        """Who proves where keys of this device live."""
        return from_json(AttesterIdentity, await self._manage_call("attester"))  # type: ignore[no-any-return]

    async def certify(self, locator: bytes, qualifying: bytes) -> Certified:
        """Have the device say that a key is in it."""
        answer = await self._manage_call("certify", locator=locator, qualifying=qualifying)
        return from_json(Certified, answer)  # type: ignore[no-any-return]

    async def activate(self, credential: bytes, secret: bytes) -> bytes:
        """Open a verifier's challenge."""
        answer = await self._manage_call("activate", credential=credential, secret=secret)
        return from_json(bytes, answer)  # type: ignore[no-any-return]

    async def _manage_call(self, op: str, **arguments: object) -> Any:
        """Every operation may be repeated: the same `generate` gives the pair that is there."""
        for attempt in range(1, _ATTEMPTS + 1):
            await self._usable()
            try:
                return await self._manage.ask(op, **arguments)
            except HostLost:
                self._look.set()
                if attempt == _ATTEMPTS:
                    raise
                await asyncio.sleep(_FIRST_WAIT)
        raise AssertionError("unreachable")

"""A device in memory, with keys of `cryptography`, that can be told to fail."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from hsmsign.devices.base import Lookup, NotAnsweringError
from hsmsign.model import locators
from hsmsign.model.algorithms import Family, InputKind, KeyAlgorithm, Scheme, SignatureFormat
from hsmsign.model.device import (
    DeviceFacts,
    DeviceHealth,
    DeviceInfo,
    DeviceKey,
    DeviceState,
    JobFailure,
    JobStatus,
    Protection,
    SignOrder,
    SignOutcome,
)

CURVES = {256: ec.SECP256R1(), 384: ec.SECP384R1(), 521: ec.SECP521R1()}


def make_private(algorithm: KeyAlgorithm):
    if algorithm.family is Family.EC:
        return ec.generate_private_key(CURVES[algorithm.bits])
    if algorithm.family is Family.RSA:
        return rsa.generate_private_key(65537, algorithm.bits)
    return ed25519.Ed25519PrivateKey.generate()


def spki(private) -> bytes:
    return private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def sign_one(private, order: SignOrder, data: bytes) -> bytes:
    scheme = order.scheme
    if scheme is Scheme.ED25519:
        return private.sign(data)
    digest = data if order.kind is InputKind.DIGEST else hashlib.new(scheme.hash.value, data).digest()
    algorithm = {"sha256": hashes.SHA256, "sha384": hashes.SHA384, "sha512": hashes.SHA512}[scheme.hash.value]()
    prehashed = utils.Prehashed(algorithm)
    if scheme.family is Family.EC:
        der = private.sign(digest, ec.ECDSA(prehashed))
        if order.format is SignatureFormat.DER:
            return der
        size = (private.key_size + 7) // 8
        return b"".join(number.to_bytes(size, "big") for number in utils.decode_dss_signature(der))
    if "PSS" in scheme.name:
        return private.sign(digest, padding.PSS(padding.MGF1(algorithm), algorithm.digest_size), prehashed)
    return private.sign(digest, padding.PKCS1v15(), prehashed)


@dataclass
class Thing:
    """A key pair on the fake token."""

    id: bytes
    label: str
    algorithm: KeyAlgorithm
    private: object

    @property
    def locator(self) -> bytes:
        return locators.by_id(self.id)


@dataclass
class FakeDevice:
    """Implements `hsmsign.devices.base.Device`. `before` and `after` are called around every generate,
    find and destroy with its name, and may raise."""

    name: str = "soft"
    kind: str = "softhsm"
    algorithms: tuple[KeyAlgorithm, ...] = tuple(KeyAlgorithm)
    things: list[Thing] = field(default_factory=list)
    state: DeviceHealth = field(default_factory=lambda: DeviceHealth(DeviceState.READY))
    known: bool = True
    before: Callable[[str], None] = lambda call: None
    after: Callable[[str], None] = lambda call: None
    gate: asyncio.Event | None = None
    """Signatures and new keys wait for it."""
    failing: JobFailure | None = None
    """The status and the CKR of every item that is to fail; `index` says which one (-1: all)."""
    orders: list[SignOrder] = field(default_factory=list)
    cancelled: int = 0
    calls: list[str] = field(default_factory=list)
    watchers: list[Callable[[DeviceHealth], None]] = field(default_factory=list)
    flying: int = 0
    silent: bool = False
    leaving: list[asyncio.Event] = field(default_factory=list)

    def health(self) -> DeviceHealth:
        return self.state

    def on_health(self, callback: Callable[[DeviceHealth], None]) -> None:
        self.watchers.append(callback)

    def become(self, state: DeviceState, message: str = "") -> None:
        self.state = DeviceHealth(state, message)
        for watcher in self.watchers:
            watcher(self.state)

    def info(self) -> DeviceInfo | None:
        if not self.known:
            return None
        return DeviceInfo(
            protection=Protection.SOFTWARE,
            module_path="/usr/lib/fake.so",
            library="Fake",
            library_version="1.0",
            cryptoki_version="2.40",
            token_label="fake token",
            token_serial="0123",
            token_manufacturer="Fakes",
            token_model="F1",
            firmware_version="1.1",
            algorithms=self.algorithms,
            sessions=2,
        )

    def in_flight(self) -> int:
        return self.flying

    def answering(self) -> bool:
        return self.state.state is DeviceState.READY and not self.silent

    def fall_silent(self) -> None:
        """What is under way and does not wait ends, as with a device that does not answer any more."""
        self.silent = True
        for call in self.leaving:
            call.set()

    async def sign(self, order: SignOrder, *, waits: bool = True) -> SignOutcome:
        if not waits:
            return await self._or_leave(order)
        return await self._sign(order)

    async def _or_leave(self, order: SignOrder) -> SignOutcome:
        if not self.answering():
            raise NotAnsweringError("it does not answer")
        gone = asyncio.Event()
        self.leaving.append(gone)
        tasks = asyncio.create_task(self._sign(order)), asyncio.create_task(gone.wait())
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
        if gone.is_set():
            raise NotAnsweringError("it does not answer")
        return tasks[0].result()

    async def _sign(self, order: SignOrder) -> SignOutcome:
        self.orders.append(order)
        self.flying += len(order.inputs)
        try:
            if self.gate is not None:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += len(order.inputs)
            raise
        finally:
            self.flying -= len(order.inputs)
        thing = next((one for one in self.things if one.locator == order.locator), None)
        signatures, failures = [], []
        for index, data in enumerate(order.inputs):
            fail = self.failing
            if thing is None:
                fail = JobFailure(-1, JobStatus.KEY_NOT_FOUND)
            if fail is not None and fail.index in (-1, index):
                failures.append(JobFailure(index, fail.status, fail.ckr))
                signatures.append(b"")
            else:
                signatures.append(sign_one(thing.private, order, data))
        return SignOutcome(signatures, tuple(failures))

    async def generate(self, algorithm: KeyAlgorithm, object_id: bytes, label: str, pcrs: str = "") -> DeviceKey:
        self._enter("generate")
        if self.gate is not None:
            await self.gate.wait()
        thing = self.put(algorithm, object_id, label)
        self.after("generate")
        return self._key(thing)

    async def find(self, lookup: Lookup) -> Sequence[DeviceKey]:
        self._enter("find")
        return [
            self._key(thing)
            for thing in self.things
            if lookup.id in (None, thing.id) and lookup.label in (None, thing.label)
        ]

    async def destroy(self, locator: bytes) -> bool:
        self._enter("destroy")
        left = [thing for thing in self.things if thing.locator != locator]
        gone = len(left) < len(self.things)
        self.things = left
        self.after("destroy")
        return gone

    def put(self, algorithm: KeyAlgorithm, object_id: bytes, label: str) -> Thing:
        thing = Thing(object_id, label, algorithm, make_private(algorithm))
        self.things.append(thing)
        return thing

    def _enter(self, call: str) -> None:
        self.calls.append(call)
        self.before(call)

    def _key(self, thing: Thing) -> DeviceKey:
        facts = DeviceFacts(True, False, True, True, True, "u-1")
        uri = "pkcs11:token=fake%20token;id=" + "".join(f"%{byte:02X}" for byte in thing.id)
        return DeviceKey(thing.locator, thing.algorithm, spki(thing.private), facts, uri)

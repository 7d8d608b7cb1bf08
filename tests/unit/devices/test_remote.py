"""A worker's view of a device, with a real device host and a real SoftHSM token behind it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import load_der_public_key

from hsmsign.devices.base import Lookup
from hsmsign.devices.remote import RemoteDevice
from hsmsign.model.algorithms import InputKind, KeyAlgorithm, Scheme, SignatureFormat
from hsmsign.model.device import DeviceFacts, DeviceKey, DeviceState, JobStatus, SignOrder
from hsmsign.model.errors import PinRefusedError, QueueFullError
from tests.support.host_process import HostProcess
from tests.support.softhsm import config_for, make_token


@pytest.fixture
def host(tmp_path: Path) -> Iterator[HostProcess]:
    process = HostProcess(config_for(make_token(tmp_path / "token")), tmp_path)
    yield process
    process.stop()


def order(key: DeviceKey, inputs: list[bytes], deadline: float = 0.0) -> SignOrder:
    return SignOrder(
        key.locator, Scheme.ECDSA_P256_SHA256, InputKind.DIGEST, SignatureFormat.DER, inputs, deadline=deadline
    )


def digests(count: int) -> list[bytes]:
    return [hashlib.sha256(str(i).encode()).digest() for i in range(count)]


def check(key: DeviceKey, inputs: list[bytes], signatures: list[bytes]) -> None:
    public = load_der_public_key(key.public_key)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert len(inputs) == len(signatures)
    for value, signature in zip(inputs, signatures, strict=True):
        public.verify(signature, value, ec.ECDSA(utils.Prehashed(hashes.SHA256())))


async def test_ten_thousand_signatures_come_back_in_their_order(host: HostProcess) -> None:
    device = await RemoteDevice.open("soft", "softhsm", host.path)
    key = await device.generate(KeyAlgorithm.EC_P256, os.urandom(16), "many")
    inputs = digests(10_000)
    outcome = await device.sign(order(key, inputs))
    assert outcome.failures == ()
    check(key, inputs[::97], outcome.signatures[::97])
    assert device.in_flight() == 0
    await device.close()


async def test_the_health_and_the_device_are_known_once_it_is_ready(host: HostProcess) -> None:
    device = await RemoteDevice.open("soft", "softhsm", host.path)
    assert device.health().state is DeviceState.STARTING
    await device.find(Lookup(label="nothing"))
    assert device.health().state is DeviceState.READY
    info = device.info()
    assert info is not None
    assert KeyAlgorithm.EC_P256 in info.algorithms
    await device.close()


async def test_a_key_is_found_and_destroyed_once(host: HostProcess) -> None:
    device = await RemoteDevice.open("soft", "softhsm", host.path)
    object_id = os.urandom(16)
    key = await device.generate(KeyAlgorithm.EC_P256, object_id, "short-lived")
    assert list(await device.find(Lookup(id=object_id))) == [key]
    assert await device.destroy(key.locator) is True
    assert await device.destroy(key.locator) is False
    outcome = await device.sign(order(key, digests(1)))
    assert outcome.failures[0].status is JobStatus.KEY_NOT_FOUND
    await device.close()


async def test_orders_outlive_a_host_that_is_killed(host: HostProcess) -> None:
    device = await RemoteDevice.open("soft", "softhsm", host.path)
    key = await device.generate(KeyAlgorithm.EC_P256, os.urandom(16), "survivor")
    inputs = digests(4000)
    calls = [asyncio.create_task(device.sign(order(key, inputs))) for _ in range(4)]
    await asyncio.sleep(0.05)
    await asyncio.to_thread(host.kill)
    assert not all(call.done() for call in calls)
    await asyncio.to_thread(host.start)
    for outcome in await asyncio.gather(*calls):
        assert outcome.failures == ()
        check(key, inputs[::401], outcome.signatures[::401])
    await device.close()


async def test_making_a_key_outlives_a_host_that_is_killed_and_makes_one_key(host: HostProcess) -> None:
    device = await RemoteDevice.open("soft", "softhsm", host.path)
    await device.find(Lookup(label="nothing"))
    object_id = os.urandom(16)
    os.kill(host.process.pid, signal.SIGSTOP)  # so that the request is surely with the host that dies
    making = asyncio.create_task(device.generate(KeyAlgorithm.EC_P384, object_id, "twice"))
    await asyncio.sleep(0.2)
    await asyncio.to_thread(host.kill)
    await asyncio.to_thread(host.start)
    key = await making
    assert list(await device.find(Lookup(id=object_id))) == [key]
    await device.close()


async def test_a_cancelled_call_leaves_nothing_in_flight(host: HostProcess) -> None:
    device = await RemoteDevice.open("soft", "softhsm", host.path)
    key = await device.generate(KeyAlgorithm.EC_P256, os.urandom(16), "cancelled")
    os.kill(host.process.pid, signal.SIGSTOP)
    call = asyncio.create_task(device.sign(order(key, digests(20_000))))
    await asyncio.sleep(0.1)
    assert device.in_flight() == 20_000
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert device.in_flight() == 0
    os.kill(host.process.pid, signal.SIGCONT)
    inputs = digests(3)
    check(key, inputs, (await device.sign(order(key, inputs))).signatures)
    await device.close()


async def test_more_than_may_wait_is_refused_and_nothing_of_it_is_queued(host: HostProcess) -> None:
    device = await RemoteDevice.open("soft", "softhsm", host.path, max_jobs=100)
    key = await device.generate(KeyAlgorithm.EC_P256, os.urandom(16), "full")
    os.kill(host.process.pid, signal.SIGSTOP)
    waiting = asyncio.create_task(device.sign(order(key, digests(90))))
    await asyncio.sleep(0)
    with pytest.raises(QueueFullError):
        await device.sign(order(key, digests(11)))
    assert device.in_flight() == 90
    os.kill(host.process.pid, signal.SIGCONT)
    assert (await waiting).failures == ()
    await device.close()


async def test_what_is_past_its_deadline_is_not_signed(host: HostProcess) -> None:
    device = await RemoteDevice.open("soft", "softhsm", host.path)
    key = await device.generate(KeyAlgorithm.EC_P256, os.urandom(16), "late")
    outcome = await device.sign(order(key, digests(5), deadline=time.monotonic() - 1))
    assert [failure.status for failure in outcome.failures] == [JobStatus.DEADLINE] * 5
    assert outcome.signatures == [b""] * 5
    await device.close()


async def test_inputs_of_different_lengths_keep_their_bounds(host: HostProcess) -> None:
    device = await RemoteDevice.open("soft", "softhsm", host.path)
    key = await device.generate(KeyAlgorithm.EC_P256, os.urandom(16), "messages")
    messages = [b"x" * length for length in (1, 0, 300, 7, 70_000)]
    mixed = SignOrder(key.locator, Scheme.ECDSA_P256_SHA256, InputKind.MESSAGE, SignatureFormat.DER, messages)
    outcome = await device.sign(mixed)
    check(key, [hashlib.sha256(message).digest() for message in messages], outcome.signatures)
    await device.close()


@pytest.mark.parametrize(
    "nonsense",
    [b"\x00\x00\x00\x04nope" * 64, b"\x00\x00\x00\x02{}" * 64, b"\xff" * 4096, b"\x00\x00\x00\x10{", b""],
    ids=["no JSON", "no answer", "too long", "cut off", "nothing"],
)
async def test_a_host_that_talks_nonsense_is_no_device_and_the_next_one_is(tmp_path: Path, nonsense: bytes) -> None:
    config = config_for(make_token(tmp_path / "token"))
    path = tmp_path / f"{config.name}.sock"

    async def babble(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(nonsense)
        writer.close()

    server = await asyncio.start_unix_server(babble, path)
    device = await RemoteDevice.open("soft", "softhsm", path)
    key = DeviceKey(b"\x01a\x00", KeyAlgorithm.EC_P256, b"", DeviceFacts(), "")
    outcome = await device.sign(order(key, digests(3), time.monotonic() + 0.5))
    assert len(outcome.failures) == 3
    assert {failure.status for failure in outcome.failures} <= {JobStatus.DEADLINE, JobStatus.HOST_LOST}
    assert device.health().state is DeviceState.STARTING
    server.close()
    await server.wait_closed()
    host = HostProcess(config, tmp_path)
    try:
        key = await device.generate(KeyAlgorithm.EC_P256, os.urandom(16), "at last")
        inputs = digests(3)
        check(key, inputs, list((await device.sign(order(key, inputs))).signatures))
    finally:
        await device.close()
        host.stop()


async def test_a_refused_pin_is_said_at_once(tmp_path: Path) -> None:
    host = HostProcess(config_for(make_token(tmp_path / "token")), tmp_path, pin_refused=True)
    device = await RemoteDevice.open("soft", "softhsm", host.path)
    with pytest.raises(PinRefusedError):
        await device.generate(KeyAlgorithm.EC_P256, os.urandom(16), "never")
    await device.close()
    host.stop()

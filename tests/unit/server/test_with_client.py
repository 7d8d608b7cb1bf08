"""The package's own client against the services: the two agree on every word."""

from __future__ import annotations

import hashlib

import pytest

import hsmsign.aio
from hsmsign.client.values import AdoptedObject
from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.device import JobFailure, JobStatus
from hsmsign.model.errors import AdoptedKeyError, DeviceError, DigestLengthError, KeyNotFoundError

DIGESTS = [hashlib.sha256(bytes([number])).digest() for number in range(40)]


@pytest.fixture
async def client(daemon):
    async with hsmsign.aio.connect(daemon.unix) as made:
        yield made


async def test_keys_and_signatures_by_the_client(client) -> None:
    key = await client.create_key("web-1", "ecdsa-p256", labels={"team": "web"})
    assert key.name == "keys/web-1"
    signature = await client.sign("web-1", digest=DIGESTS[0])
    assert (await client.verify("web-1", signature.value, digest=DIGESTS[0])).valid
    assert (await client.public_key_info("web-1")).key_version == "keys/web-1/versions/1"
    assert (await client.rotate_key("web-1")).primary_version == "keys/web-1/versions/2"
    assert [one.name async for one in client.list_keys(labels={"team": "web"})] == ["keys/web-1"]
    await client.destroy_key("web-1")


async def test_batches_and_streams_by_the_client(client) -> None:
    await client.create_key("web-1", "ecdsa-p256")
    batch = await client.sign_batch("web-1", DIGESTS)
    assert all(batch.signatures())
    streamed = [signature async for signature in client.sign_stream("web-1", DIGESTS, group_size=4)]
    for digest, signature in zip(DIGESTS, streamed, strict=True):
        assert isinstance(signature, bytes)
        assert (await client.verify("web-1", signature, digest=digest)).valid


async def test_errors_come_back_as_what_they_were(client, daemon) -> None:
    with pytest.raises(KeyNotFoundError) as caught:
        await client.get_key("none")
    assert "hsmsign key list" in caught.value.hint
    await client.create_key("web-1", "ecdsa-p256")
    with pytest.raises(DigestLengthError):
        await client.sign("web-1", digest=b"short")
    daemon.device.failing = JobFailure(-1, JobStatus.DEVICE_ERROR, 0x30)
    with pytest.raises(DeviceError) as device_error:
        await client.sign("web-1", digest=DIGESTS[0])
    assert device_error.value.metadata["ckr"] == "CKR_DEVICE_ERROR"


async def test_an_adopted_key_by_the_client(client, daemon) -> None:
    daemon.device.put(KeyAlgorithm.EC_P256, b"\1", "theirs")
    await client.create_key("web-1", adopt="pkcs11:object=theirs")
    with pytest.raises(AdoptedKeyError):
        await client.destroy_key("web-1")
    await client.destroy_key("web-1", adopted=AdoptedObject.RELEASE)
    assert len(daemon.device.things) == 1

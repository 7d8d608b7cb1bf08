"""Destroying versions and keys, and adopting objects."""

from __future__ import annotations

import uuid

import pytest

from hsmsign.keyring import AdoptedObject, Keyring
from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.errors import (
    AdoptedKeyError,
    AlgorithmMismatchError,
    FailedPreconditionError,
    InvalidArgumentError,
    KeyExistsError,
    ObjectAmbiguousError,
    ObjectNotFoundError,
    UriError,
    VersionStateError,
)
from hsmsign.store import VersionState
from tests.support.fake_device import FakeDevice

P256 = KeyAlgorithm.EC_P256
URI = "pkcs11:token=fake%20token;object=theirs;id=%01%02;type=private"


async def test_a_destroyed_key_is_gone_from_the_device_and_its_name_stays_taken(
    keyring: Keyring, device: FakeDevice
) -> None:
    await keyring.create("web-1", P256)
    await keyring.rotate("keys/web-1")
    await keyring.resolve("keys/web-1")
    key = await keyring.destroy("keys/web-1")
    assert device.things == []
    assert [row.state for row in key.versions] == [VersionState.DESTROYED] * 2
    assert all(row.destroyed and row.public_key for row in key.versions)
    assert key.primary == ""
    with pytest.raises(VersionStateError):
        await keyring.resolve("keys/web-1")
    assert (await keyring.resolve("keys/web-1/versions/1")).state is VersionState.DESTROYED
    with pytest.raises(KeyExistsError):
        await keyring.create("web-1", P256)
    with pytest.raises(FailedPreconditionError, match="destroyed"):
        await keyring.rotate("keys/web-1")
    with pytest.raises(VersionStateError):
        await keyring.update_version("keys/web-1/versions/1", VersionState.ENABLED)


async def test_destroying_twice_is_no_error(keyring: Keyring) -> None:
    await keyring.create("web-1", P256)
    first = await keyring.destroy("keys/web-1")
    assert await keyring.destroy("keys/web-1") == first


async def test_destroying_the_primary_version_makes_the_newest_enabled_one_primary(
    keyring: Keyring, device: FakeDevice
) -> None:
    await keyring.create("web-1", P256)
    for _ in range(3):
        await keyring.rotate("keys/web-1")
    await keyring.update_version("keys/web-1/versions/3", VersionState.DISABLED)
    key = await keyring.destroy("keys/web-1/versions/4")
    assert key.primary == "keys/web-1/versions/2"
    assert len(device.things) == 3


async def test_destroying_another_version_leaves_the_primary_one(keyring: Keyring) -> None:
    await keyring.create("web-1", P256)
    await keyring.rotate("keys/web-1")
    assert (await keyring.destroy("keys/web-1/versions/1")).primary == "keys/web-1/versions/2"


async def test_validate_only_shows_what_would_be_and_changes_nothing(keyring: Keyring, device: FakeDevice) -> None:
    before = await keyring.create("web-1", P256)
    shown = await keyring.destroy("keys/web-1", validate_only=True)
    assert shown.primary == ""
    assert await keyring.get("keys/web-1") == before
    assert len(device.things) == 1


async def test_an_adopted_object_is_named_and_not_made(keyring: Keyring, device: FakeDevice) -> None:
    thing = device.put(P256, b"\x01\x02", "theirs")
    key = await keyring.create("web-1", adopt_uri=URI)
    assert "generate" not in device.calls
    assert (key.row.algorithm, key.versions[0].adopted) == (P256, True)
    assert (await keyring.resolve("keys/web-1")).locator == thing.locator


async def test_an_object_that_has_a_name_is_not_adopted_again(keyring: Keyring, device: FakeDevice) -> None:
    device.put(P256, b"\x01\x02", "theirs")
    await keyring.create("web-1", adopt_uri=URI)
    with pytest.raises(KeyExistsError, match="keys/web-1/versions/1"):
        await keyring.create("web-2", adopt_uri="pkcs11:object=theirs")


async def test_a_key_that_was_made_here_is_not_adopted(keyring: Keyring, device: FakeDevice) -> None:
    await keyring.create("web-1", P256)
    uri = "pkcs11:id=" + "".join(f"%{byte:02x}" for byte in device.things[0].id)
    with pytest.raises(KeyExistsError):
        await keyring.create("web-2", adopt_uri=uri)


async def test_a_repeated_adoption_is_the_same_key(keyring: Keyring, device: FakeDevice) -> None:
    device.put(P256, b"\x01\x02", "theirs")
    request = str(uuid.uuid4())
    first = await keyring.create("web-1", adopt_uri=URI, request_id=request)
    assert await keyring.create("web-1", adopt_uri=URI, request_id=request) == first


@pytest.mark.parametrize("part", ["token=else", "serial=9", "manufacturer=Else", "model=E"])
async def test_a_uri_of_another_token_finds_nothing(keyring: Keyring, device: FakeDevice, part: str) -> None:
    device.put(P256, b"\x01\x02", "theirs")
    with pytest.raises(ObjectNotFoundError, match=part.partition("=")[0]):
        await keyring.create("web-1", adopt_uri=f"pkcs11:{part};object=theirs")


async def test_exactly_one_object_must_fit(keyring: Keyring, device: FakeDevice) -> None:
    with pytest.raises(ObjectNotFoundError):
        await keyring.create("web-1", adopt_uri=URI)
    device.put(P256, b"\x01\x02", "theirs")
    device.put(P256, b"\x03", "theirs")
    with pytest.raises(ObjectAmbiguousError):
        await keyring.create("web-1", adopt_uri="pkcs11:object=theirs")
    assert (await keyring.create("web-1", adopt_uri=URI)).primary


async def test_an_algorithm_that_is_said_must_fit_the_object(keyring: Keyring, device: FakeDevice) -> None:
    device.put(P256, b"\x01\x02", "theirs")
    with pytest.raises(AlgorithmMismatchError, match="ecdsa-p256"):
        await keyring.create("web-1", KeyAlgorithm.EC_P384, adopt_uri=URI)
    await keyring.create("web-1", P256, adopt_uri=URI)


async def test_a_uri_with_a_pin_is_refused_without_repeating_it(keyring: Keyring) -> None:
    with pytest.raises(UriError) as caught:
        await keyring.create("web-1", adopt_uri=URI + "?pin-value=sesame")
    assert "sesame" not in repr(caught.value.args) + caught.value.hint


async def test_an_adopted_key_is_not_destroyed_before_it_is_said_what_becomes_of_the_object(
    keyring: Keyring, device: FakeDevice
) -> None:
    device.put(P256, b"\x01\x02", "theirs")
    await keyring.create("web-1", adopt_uri=URI)
    with pytest.raises(AdoptedKeyError):
        await keyring.destroy("keys/web-1")
    with pytest.raises(AdoptedKeyError):
        await keyring.destroy("keys/web-1", validate_only=True)
    assert len(device.things) == 1
    assert (await keyring.resolve("keys/web-1")).state is VersionState.ENABLED


async def test_a_released_object_stays_and_can_be_adopted_again(keyring: Keyring, device: FakeDevice) -> None:
    device.put(P256, b"\x01\x02", "theirs")
    await keyring.create("web-1", adopt_uri=URI)
    await keyring.rotate("keys/web-1")
    key = await keyring.destroy("keys/web-1", adopted=AdoptedObject.RELEASE)
    assert [row.state for row in key.versions] == [VersionState.DESTROYED] * 2
    assert [thing.label for thing in device.things] == ["theirs"]
    await keyring.create("web-2", adopt_uri=URI)


async def test_an_adopted_object_is_destroyed_where_that_is_said(keyring: Keyring, device: FakeDevice) -> None:
    device.put(P256, b"\x01\x02", "theirs")
    await keyring.create("web-1", adopt_uri=URI)
    await keyring.destroy("keys/web-1", adopted=AdoptedObject.DESTROY)
    assert device.things == []


async def test_a_key_that_was_made_here_cannot_be_released(keyring: Keyring, device: FakeDevice) -> None:
    await keyring.create("web-1", P256)
    with pytest.raises(InvalidArgumentError, match="release"):
        await keyring.destroy("keys/web-1", adopted=AdoptedObject.RELEASE)
    assert len(device.things) == 1

"""Further tokens for a version: what proves that they hold its key, and what becomes of them when it is destroyed."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

import pytest

from hsmsign.keyring import AdoptedObject, Keyring, destroying, replicas
from hsmsign.keyring.values import Place
from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.device import DeviceInfo, DeviceState, Protection
from hsmsign.model.errors import (
    BackendNotFoundError,
    DeviceError,
    DeviceUnavailableError,
    FailedPreconditionError,
    HsmsignError,
    InvalidArgumentError,
    KeyExistsError,
    KeyNotFoundError,
    ObjectAmbiguousError,
    ObjectNotFoundError,
    VersionStateError,
)
from hsmsign.store import VersionState
from tests.support.fake_device import FakeDevice, Thing, make_private

P256 = KeyAlgorithm.EC_P256


def copy(device: FakeDevice, other: FakeDevice, *, id: bytes | None = None, label: str | None = None) -> Thing:
    """What a vendor's tool does: the newest key of one token is on the other, too."""
    there = device.things[-1]
    made = dataclasses.replace(there, id=id or there.id, label=label or there.label)
    other.things.append(made)
    return made


@pytest.fixture
async def key(keyring: Keyring, device: FakeDevice) -> str:
    return (await keyring.create("web", P256)).name


async def test_a_token_with_the_same_key_signs_for_it_too(
    keyring: Keyring, device: FakeDevice, other: FakeDevice, key: str
) -> None:
    before = await keyring.resolve(key)
    assert before.replicas == ()
    thing = copy(device, other)
    etag = (await keyring.get(key)).etag
    made, version = await keyring.add_replica(key, "other")
    assert [(one.backend, one.locator) for one in version.replicas] == [("other", thing.locator)]
    assert version.replicas[0].facts.extractable is False
    assert made == await keyring.get(key)
    assert made.etag != etag
    assert (await keyring.resolve(key)).replicas == (Place("other", thing.locator),)
    assert (await keyring.list())[0][0].versions[0].replicas == version.replicas
    again = await keyring.add_replica(f"{key}/versions/1", "other")
    assert again[1] == version


async def test_one_with_another_id_is_found_by_its_uri(
    keyring: Keyring, device: FakeDevice, other: FakeDevice, key: str
) -> None:
    copy(device, other, id=b"\x09", label="theirs")
    with pytest.raises(ObjectNotFoundError):
        await keyring.add_replica(key, "other")
    with pytest.raises(ObjectNotFoundError, match="another serial"):
        await keyring.add_replica(key, "other", "pkcs11:serial=9999;id=%09")
    _, version = await keyring.add_replica(key, "other", "pkcs11:token=fake%20token;object=theirs;id=%09")
    assert [one.backend for one in version.replicas] == ["other"]


async def test_another_key_with_the_same_id_is_no_replica(
    keyring: Keyring, device: FakeDevice, other: FakeDevice, key: str
) -> None:
    other.put(P256, device.things[-1].id, "web")
    with pytest.raises(ObjectNotFoundError, match="another key"):
        await keyring.add_replica(key, "other")
    assert (await keyring.resolve(key)).replicas == ()


async def test_a_private_key_that_does_not_fit_the_public_one_beside_it_is_no_replica(
    keyring: Keyring, device: FakeDevice, other: FakeDevice, key: str
) -> None:
    thing = copy(device, other)
    found = other._key(thing)
    other.find = lambda lookup: answer([found])  # type: ignore[method-assign]
    thing.private = make_private(P256)
    with pytest.raises(DeviceError, match="is not that of keys/web/versions/1"):
        await keyring.add_replica(key, "other")
    assert (await keyring.resolve(key)).replicas == ()


async def answer(value: object) -> object:
    return value


async def test_a_token_on_which_only_the_public_key_is_found_is_no_replica(
    keyring: Keyring, device: FakeDevice, other: FakeDevice, key: str
) -> None:
    found = other._key(copy(device, other))
    other.find = lambda lookup: answer([found])  # type: ignore[method-assign]
    other.things.clear()
    with pytest.raises(DeviceError, match="KEY_NOT_FOUND"):
        await keyring.add_replica(key, "other")


async def test_two_copies_on_a_token_want_a_uri(
    keyring: Keyring, device: FakeDevice, other: FakeDevice, key: str
) -> None:
    copy(device, other)
    copy(device, other, label="second")
    with pytest.raises(ObjectAmbiguousError):
        await keyring.add_replica(key, "other")


async def test_a_token_that_protects_keys_otherwise_is_no_replica(
    keyring: Keyring, device: FakeDevice, other: FakeDevice, key: str
) -> None:
    copy(device, other)
    info = other.info()
    assert isinstance(info, DeviceInfo)
    other.info = lambda: dataclasses.replace(info, protection=Protection.HSM)  # type: ignore[method-assign]
    with pytest.raises(FailedPreconditionError, match="HSM"):
        await keyring.add_replica(key, "other")


@pytest.mark.parametrize(
    ("name", "backend", "error"),
    [
        ("keys/web", "soft", InvalidArgumentError),
        ("keys/web", "nowhere", BackendNotFoundError),
        ("keys/web/versions/2", "other", KeyNotFoundError),
        ("keys/none", "other", KeyNotFoundError),
    ],
)
async def test_what_cannot_be_is_said(
    keyring: Keyring, key: str, name: str, backend: str, error: type[HsmsignError]
) -> None:
    with pytest.raises(error):
        await keyring.add_replica(name, backend)


async def test_a_copy_of_a_key_gets_no_other_name(
    keyring: Keyring, device: FakeDevice, other: FakeDevice, key: str
) -> None:
    """Under another name the purpose and the approvals of the first would not hold."""
    thing = copy(device, other)
    uri = f"pkcs11:object={thing.label.replace('/', '%2F')}"
    with pytest.raises(KeyExistsError, match="a copy of keys/web/versions/1") as error:
        await keyring.create("theirs", backend="other", adopt_uri=uri)
    assert "hsmsign replica add web --backend other" in error.value.hint
    await keyring.add_replica(key, "other")
    with pytest.raises(KeyExistsError, match="keys/web/versions/1"):
        await keyring.create("theirs", backend="other", adopt_uri=uri)
    await keyring.remove_replica(key, "other")
    with pytest.raises(KeyExistsError, match="a copy of keys/web/versions/1"):
        await keyring.create("theirs", backend="other", adopt_uri=uri)
    await keyring.destroy(key)
    with pytest.raises(KeyExistsError, match="which was destroyed"):
        await keyring.create("theirs", backend="other", adopt_uri=uri)


async def test_an_object_that_a_name_let_go_can_be_named_anew_where_it_or_a_copy_lies(
    keyring: Keyring, device: FakeDevice, other: FakeDevice
) -> None:
    device.put(P256, b"\x01", "theirs")
    await keyring.create("old", adopt_uri="pkcs11:id=%01")
    copy(device, other)
    await keyring.destroy("keys/old", adopted=AdoptedObject.RELEASE)
    await keyring.create("new", backend="other", adopt_uri="pkcs11:id=%01")


async def test_a_replica_that_is_removed_keeps_its_object(
    keyring: Keyring, device: FakeDevice, other: FakeDevice, key: str
) -> None:
    copy(device, other)
    await keyring.add_replica(key, "other")
    _, version = await keyring.remove_replica(key, "other")
    assert version.replicas == ()
    assert (await keyring.resolve(key)).replicas == ()
    assert len(other.things) == 1
    with pytest.raises(InvalidArgumentError, match="no replica on backend 'other'"):
        await keyring.remove_replica(key, "other")


async def test_destroying_a_version_destroys_its_key_on_every_token(
    keyring: Keyring, device: FakeDevice, other: FakeDevice, key: str
) -> None:
    copy(device, other)
    await keyring.add_replica(key, "other")
    done = await keyring.destroy(key)
    assert [one.state for one in done.versions] == [VersionState.DESTROYED]
    assert (device.things, other.things) == ([], [])
    assert done.versions[0].replicas == ()
    with pytest.raises(VersionStateError):
        await keyring.add_replica(f"{key}/versions/1", "other")


async def test_an_adopted_key_that_is_released_stays_on_every_token(
    keyring: Keyring, device: FakeDevice, other: FakeDevice
) -> None:
    device.put(P256, b"\x01", "theirs")
    await keyring.create("old", adopt_uri="pkcs11:id=%01")
    copy(device, other)
    await keyring.add_replica("keys/old", "other")
    done = await keyring.destroy("keys/old", adopted=AdoptedObject.RELEASE)
    assert done.versions[0].state is VersionState.DESTROYED
    assert (len(device.things), len(other.things)) == (1, 1)


@pytest.mark.parametrize("away", ["soft", "other"])
async def test_a_token_that_is_away_when_its_key_is_destroyed_lets_go_of_it_when_it_is_back(
    keyring: Keyring, device: FakeDevice, other: FakeDevice, key: str, away: str
) -> None:
    copy(device, other)
    await keyring.add_replica(key, "other")
    absent, present = (device, other) if away == "soft" else (other, device)

    def refuse(call: str) -> None:
        if call == "destroy":
            raise DeviceUnavailableError("it is away")

    absent.before = refuse
    with pytest.raises(DeviceUnavailableError):
        await keyring.destroy(key)
    assert (len(absent.things), len(present.things)) == (1, 0)
    assert (await keyring.get(key)).versions[0].state is VersionState.DESTROYING
    assert await keyring.recover(present.name) == 0
    assert (await keyring.get(key)).versions[0].state is VersionState.DESTROYING
    absent.before = lambda call: None
    absent.become(DeviceState.READY)
    assert await keyring.recover(away) == 1
    assert absent.things == []
    assert (await keyring.get(key)).versions[0].state is VersionState.DESTROYED


async def test_a_new_version_has_no_replicas(keyring: Keyring, device: FakeDevice, other: FakeDevice, key: str) -> None:
    copy(device, other)
    await keyring.add_replica(key, "other")
    await keyring.rotate(key)
    assert (await keyring.resolve(key)).replicas == ()
    assert (await keyring.resolve(f"{key}/versions/1")).replicas != ()


async def never() -> None:
    await asyncio.Event().wait()


async def until(what: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not what():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def heals(device: FakeDevice) -> None:
    """It is being brought back, which never ends: what is asked of it waits, as with a device behind its wall."""
    device.become(DeviceState.HEALING)
    device.destroy = device.find = lambda _: never()  # type: ignore[method-assign]


@pytest.mark.parametrize("away", ["soft", "other"])
async def test_a_destroy_that_waits_for_a_token_lets_go_of_the_key(
    keyring: Keyring,
    device: FakeDevice,
    other: FakeDevice,
    key: str,
    away: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(destroying, "_PATIENCE", 0.05, raising=False)
    copy(device, other)
    await keyring.add_replica(key, "other")
    await keyring.rotate(key)
    absent, present = (device, other) if away == "soft" else (other, device)
    doomed = device.things[0].locator
    heals(absent)
    destroyed = asyncio.create_task(keyring.destroy(f"{key}/versions/1"))
    await until(lambda: "destroy" in present.calls)
    async with asyncio.timeout(30):
        await keyring.update(key, labels={"team": "web"})
        await keyring.update_version(f"{key}/versions/2", VersionState.DISABLED)
        with pytest.raises(DeviceUnavailableError, match=f"backend '{away}'") as error:
            await destroyed
        await keyring.close()
    assert error.value.retry_after
    assert doomed not in [one.locator for one in present.things]
    version = (await keyring.get(key)).versions[0]
    assert version.state is VersionState.DESTROYING
    assert [one.backend for one in version.replicas] == (["other"] if away == "other" else [])
    del absent.destroy
    absent.become(DeviceState.READY)
    assert await keyring.recover(away) == 1
    assert (await keyring.get(key)).versions[0].state is VersionState.DESTROYED


async def test_a_token_that_is_away_keeps_no_other_from_destroying_its_object_at_once(
    keyring: Keyring, device: FakeDevice, other: FakeDevice, key: str
) -> None:
    copy(device, other)
    await keyring.add_replica(key, "other")
    back = asyncio.Event()
    let_go = other.destroy

    async def waiting(locator: bytes) -> bool:
        await back.wait()
        return await let_go(locator)

    other.destroy = waiting  # type: ignore[method-assign]
    destroyed = asyncio.create_task(keyring.destroy(key))
    await until(lambda: not device.things)
    assert len(other.things) == 1
    back.set()
    assert (await destroyed).versions[0].state is VersionState.DESTROYED


async def test_a_token_that_does_not_answer_becomes_no_replica_and_nobody_waits_for_it(
    keyring: Keyring, device: FakeDevice, other: FakeDevice, key: str
) -> None:
    copy(device, other)
    heals(other)
    async with asyncio.timeout(30):
        with pytest.raises(DeviceUnavailableError, match="backend 'other' does not answer") as error:
            await keyring.add_replica(key, "other")
        await keyring.update(key, labels={"team": "web"})
        await keyring.close()
    assert error.value.retry_after


async def test_a_token_that_goes_away_while_it_is_looked_at_becomes_no_replica(
    keyring: Keyring, device: FakeDevice, other: FakeDevice, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "_PATIENCE", 0.05, raising=False)
    copy(device, other)
    other.find = lambda _: never()  # type: ignore[method-assign]
    async with asyncio.timeout(30):
        with pytest.raises(DeviceUnavailableError, match="backend 'other'"):
            await keyring.add_replica(key, "other")
        await keyring.update(key, labels={"team": "web"})
    assert (await keyring.resolve(key)).replicas == ()


async def test_a_version_that_is_on_its_way_out_is_destroyed_when_its_last_replica_is_taken_off(
    keyring: Keyring, device: FakeDevice, other: FakeDevice, key: str
) -> None:
    copy(device, other)
    await keyring.add_replica(key, "other")

    def refuse(call: str) -> None:
        raise DeviceUnavailableError("it never comes back")

    other.before = refuse
    with pytest.raises(DeviceUnavailableError):
        await keyring.destroy(key)
    _, version = await keyring.remove_replica(f"{key}/versions/1", "other")
    assert version.state is VersionState.DESTROYED
    assert version.destroyed
    assert (await keyring.destroy(key)).versions == (version,)


async def test_a_version_on_its_way_out_whose_own_object_is_still_there_stays_so_without_its_replica(
    keyring: Keyring, device: FakeDevice, other: FakeDevice, key: str
) -> None:
    copy(device, other)
    await keyring.add_replica(key, "other")

    def refuse(call: str) -> None:
        raise DeviceUnavailableError("it is away")

    device.before = other.before = refuse
    with pytest.raises(DeviceUnavailableError):
        await keyring.destroy(key)
    _, version = await keyring.remove_replica(f"{key}/versions/1", "other")
    assert (version.state, version.destroyed) == (VersionState.DESTROYING, None)

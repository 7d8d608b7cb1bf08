"""What is left when something goes away in the middle, and how it is mended.

A crash is a task that is cancelled where it stands and a second keyring over the same store and device.
"""

from __future__ import annotations

import asyncio
import uuid

import pytest
import sqlalchemy as sa

from hsmsign.keyring import Keyring
from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.errors import (
    DeviceError,
    DeviceUnavailableError,
    KeyExistsError,
    KeyNotFoundError,
    ObjectAmbiguousError,
    StoreFullError,
    StoreUnavailableError,
    VersionStateError,
)
from hsmsign.store import Store, VersionState
from hsmsign.store.tables import versions
from tests.support.fake_device import FakeDevice

P256 = KeyAlgorithm.EC_P256


class Crash(BaseException):
    """The process ends here: nobody catches it."""


def fail_once(error: BaseException, *, call: str, times: int = 1):
    left = [times]

    def hook(now: str) -> None:
        if now == call and left[0]:
            left[0] -= 1
            raise error

    return hook


async def states(store: Store) -> list[str]:
    return await store.read(lambda c: list(c.execute(sa.select(versions.c.state)).scalars()))


async def crash(keyring: Keyring, work) -> None:
    """Run `work` in a process of its own that ends with Crash."""
    with pytest.raises(Crash):
        await work


def again(store: Store, device: FakeDevice) -> Keyring:
    """The next process."""
    device.before = device.after = lambda call: None
    return Keyring(store, {"soft": device}, "soft")


@pytest.mark.parametrize("where", ["before", "after"])
async def test_a_device_that_fails_to_make_a_key_leaves_no_name_and_no_object(
    keyring: Keyring, store: Store, device: FakeDevice, where: str
) -> None:
    setattr(device, where, fail_once(DeviceError("no"), call="generate"))
    with pytest.raises(DeviceError):
        await keyring.create("web-1", P256)
    assert device.things == []
    assert await states(store) == []
    await keyring.create("web-1", P256)


async def test_a_rotation_that_fails_leaves_the_key_as_it_was(keyring: Keyring, device: FakeDevice) -> None:
    before = await keyring.create("web-1", P256)
    device.after = fail_once(DeviceError("no"), call="generate")
    with pytest.raises(DeviceError):
        await keyring.rotate("keys/web-1")
    assert await keyring.get("keys/web-1") == before
    assert len(device.things) == 1


@pytest.mark.parametrize("where", ["before", "after"])
async def test_a_crash_while_a_key_is_made_is_mended_when_the_device_is_ready(
    keyring: Keyring, store: Store, device: FakeDevice, where: str
) -> None:
    setattr(device, where, fail_once(Crash(), call="generate"))
    await crash(keyring, keyring.create("web-1", P256))
    assert await states(store) == ["creating"]
    second = again(store, device)
    with pytest.raises(KeyNotFoundError):
        await second.get("keys/web-1")
    with pytest.raises(KeyNotFoundError):
        await second.resolve("keys/web-1/versions/1")
    assert (await second.list())[0] == []
    assert await second.recover("soft") == 1
    assert device.things == []
    assert await states(store) == []
    await second.create("web-1", P256)


async def test_a_name_whose_making_crashed_can_be_made_before_anything_was_mended(
    keyring: Keyring, store: Store, device: FakeDevice
) -> None:
    request = str(uuid.uuid4())
    device.after = fail_once(Crash(), call="generate")
    await crash(keyring, keyring.create("web-1", P256, request_id=request))
    second = again(store, device)
    key = await second.create("web-1", P256, request_id=request)
    assert len(device.things) == 1
    assert key.primary == "keys/web-1/versions/1"
    assert (await second.resolve("keys/web-1")).locator == device.things[0].locator


async def test_a_crash_while_a_key_is_rotated_leaves_the_old_version_to_sign(
    keyring: Keyring, store: Store, device: FakeDevice
) -> None:
    before = await keyring.create("web-1", P256)
    device.after = fail_once(Crash(), call="generate")
    await crash(keyring, keyring.rotate("keys/web-1"))
    second = again(store, device)
    assert (await second.get("keys/web-1")).versions == before.versions
    assert await second.recover("soft") == 1
    assert len(device.things) == 1
    assert (await second.rotate("keys/web-1")).primary == "keys/web-1/versions/2"


async def test_a_full_disk_after_the_key_was_made_leaves_no_key_that_nobody_knows(
    keyring: Keyring, store: Store, device: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = [False]
    write = store.write

    async def writing(work):
        if full[0]:
            raise StoreFullError("the disk under the store is full")
        return await write(work)

    monkeypatch.setattr(store, "write", writing)
    device.after = lambda call: full.__setitem__(0, True)
    with pytest.raises(StoreFullError):
        await keyring.create("web-1", P256)
    assert device.things == []
    with pytest.raises(KeyNotFoundError):
        await keyring.get("keys/web-1")
    full[0] = False
    device.after = lambda call: None
    assert (await keyring.create("web-1", P256)).primary == "keys/web-1/versions/1"
    assert await states(store) == ["enabled"]


async def test_what_cannot_be_taken_away_now_is_taken_away_later(
    keyring: Keyring, store: Store, device: FakeDevice
) -> None:
    gone = DeviceUnavailableError("away")
    device.after = fail_once(gone, call="generate")
    device.before = fail_once(gone, call="destroy")
    with pytest.raises(DeviceUnavailableError):
        await keyring.create("web-1", P256)
    assert len(device.things) == 1
    assert await keyring.recover("soft") == 1
    assert device.things == []
    assert await states(store) == []


@pytest.mark.parametrize("where", ["before", "after"])
async def test_a_key_whose_destruction_was_begun_never_signs_again_and_is_destroyed_later(
    keyring: Keyring, store: Store, device: FakeDevice, where: str
) -> None:
    await keyring.create("web-1", P256)
    await keyring.resolve("keys/web-1")
    setattr(device, where, fail_once(DeviceUnavailableError("away"), call="destroy"))
    with pytest.raises(DeviceUnavailableError):
        await keyring.destroy("keys/web-1")
    with pytest.raises(VersionStateError):
        await keyring.resolve("keys/web-1")
    with pytest.raises(VersionStateError):
        await keyring.update_version("keys/web-1/versions/1", VersionState.ENABLED)
    assert await keyring.recover("soft") == 1
    assert device.things == []
    assert await states(store) == ["destroyed"]


async def test_the_same_destruction_again_finishes_it(keyring: Keyring, store: Store, device: FakeDevice) -> None:
    await keyring.create("web-1", P256)
    device.before = fail_once(DeviceUnavailableError("away"), call="destroy")
    with pytest.raises(DeviceUnavailableError):
        await keyring.destroy("keys/web-1")
    await keyring.destroy("keys/web-1")
    assert device.things == []
    assert await states(store) == ["destroyed"]


async def test_mending_leaves_alone_what_is_being_made_now(keyring: Keyring, device: FakeDevice) -> None:
    await keyring.recover("soft")
    device.gate, begun = asyncio.Event(), asyncio.Event()
    device.before = lambda call: begun.set()
    making = asyncio.create_task(keyring.create("web-1", P256))
    await begun.wait()
    mending = asyncio.create_task(keyring.recover("soft"))
    await asyncio.wait([mending], timeout=0.2)
    device.gate.set()
    assert (await making).primary == "keys/web-1/versions/1"
    assert await mending == 0
    assert len(device.things) == 1


async def test_a_commit_that_was_done_but_not_heard_of_does_not_cost_the_key(
    keyring: Keyring, store: Store, device: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = store.write

    async def deaf(work):
        answer = await write(work)
        if device.things:
            raise StoreUnavailableError("the connection broke")
        return answer

    request = str(uuid.uuid4())
    monkeypatch.setattr(store, "write", deaf)
    with pytest.raises(StoreUnavailableError):
        await keyring.create("web-1", P256, request_id=request)
    monkeypatch.setattr(store, "write", write)
    assert len(device.things) == 1
    assert (await keyring.create("web-1", P256, request_id=request)).primary == "keys/web-1/versions/1"


async def test_a_device_that_is_away_again_ends_the_mending(keyring: Keyring, store: Store, device: FakeDevice) -> None:
    device.after = fail_once(Crash(), call="generate")
    await crash(keyring, keyring.create("web-1", P256))
    second = again(store, device)
    device.before = fail_once(DeviceUnavailableError("away"), call="destroy")
    with pytest.raises(DeviceUnavailableError):
        await second.recover("soft")
    assert await second.recover("soft") == 1


async def test_one_version_that_cannot_be_mended_does_not_keep_the_others(
    keyring: Keyring, store: Store, device: FakeDevice
) -> None:
    for id in ("a", "b"):
        device.after = fail_once(Crash(), call="generate")
        await crash(keyring, keyring.create(id, P256))
    second = again(store, device)
    device.before = fail_once(ObjectAmbiguousError("two"), call="destroy")
    assert await second.recover("soft") == 1
    assert await states(store) == ["creating"]


async def test_new_keys_wait_until_what_was_left_is_mended(keyring: Keyring, store: Store, device: FakeDevice) -> None:
    device.after = fail_once(Crash(), call="generate")
    await crash(keyring, keyring.create("web-1", P256))
    second = again(store, device)
    await second.create("web-2", P256)
    assert [thing.label for thing in device.things] == ["keys/web-2/versions/1"]


async def test_a_key_that_exists_is_not_touched_by_a_failed_second_making(keyring: Keyring, device: FakeDevice) -> None:
    await keyring.create("web-1", P256)
    with pytest.raises(KeyExistsError):
        await keyring.create("web-1", P256)
    assert len(device.things) == 1
    assert "destroy" not in device.calls

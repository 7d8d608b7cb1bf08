"""Key handles: names, versions, labels, pages."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from hsmsign.keyring import Keyring, ResolvedKey
from hsmsign.keyring.cache import ResolvedCache
from hsmsign.ledger import Ledger, Ledgers
from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.errors import (
    BackendNotFoundError,
    CapabilityMissingError,
    DeviceUnavailableError,
    EtagError,
    FailedPreconditionError,
    InvalidArgumentError,
    KeyExistsError,
    KeyNotFoundError,
    ResourceNameError,
    VersionStateError,
)
from hsmsign.model.key_facts import KeyFacts
from hsmsign.store import Store, VersionState
from tests.support.fake_device import FakeDevice, spki

P256 = KeyAlgorithm.EC_P256


async def test_a_new_key_is_on_the_device_under_its_name_and_can_be_resolved(
    keyring: Keyring, device: FakeDevice
) -> None:
    key = await keyring.create("web-1", P256, labels={"team": "web"})
    thing = device.things[0]
    assert key.primary == "keys/web-1/versions/1"
    assert (thing.label, len(thing.id), thing.algorithm) == (key.primary, 16, P256)
    resolved = await keyring.resolve("keys/web-1")
    assert (resolved.name, resolved.device, resolved.locator) == (key.primary, "soft", thing.locator)
    assert resolved.public_key == spki(thing.private) == key.versions[0].public_key
    assert key.versions[0].facts.never_extractable is True


async def test_a_name_that_is_taken_is_refused_and_makes_nothing(keyring: Keyring, device: FakeDevice) -> None:
    await keyring.create("web-1", P256)
    with pytest.raises(KeyExistsError):
        await keyring.create("web-1", P256)
    assert len(device.things) == 1


async def test_two_that_want_the_same_name_at_once_do_not_both_get_it(keyring: Keyring, device: FakeDevice) -> None:
    results = await asyncio.gather(*[keyring.create("web-1", P256) for _ in range(5)], return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["Key", *["KeyExistsError"] * 4]
    assert len(device.things) == 1


@pytest.mark.parametrize("bad", ["", "-a", "A", "a/b", "a" * 64, "a\n", "ä"])
async def test_a_bad_name_is_refused(keyring: Keyring, bad: str, device: FakeDevice) -> None:
    with pytest.raises(ResourceNameError):
        await keyring.create(bad, P256)
    assert device.calls == []


@pytest.mark.parametrize(
    "labels",
    [
        {"A": "x"},
        {"": "x"},
        {"a" * 64: "x"},
        {"a": "x" * 256},
        {"a": "\0"},
        {f"l{number}": "" for number in range(65)},
    ],
)
async def test_bad_labels_are_refused(keyring: Keyring, labels: dict[str, str]) -> None:
    with pytest.raises(InvalidArgumentError):
        await keyring.create("web-1", P256, labels=labels)


async def test_a_backend_that_is_not_there_is_said_with_those_that_are(keyring: Keyring) -> None:
    with pytest.raises(BackendNotFoundError) as caught:
        await keyring.create("web-1", P256, backend="gone")
    assert "other, soft" in caught.value.hint


async def test_an_algorithm_that_the_device_lacks_takes_no_name(keyring: Keyring, device: FakeDevice) -> None:
    device.algorithms = (P256,)
    with pytest.raises(CapabilityMissingError, match="rsa-2048"):
        await keyring.create("web-1", KeyAlgorithm.RSA_2048)
    await keyring.create("web-1", P256)


async def test_a_device_that_was_never_ready_takes_no_name(keyring: Keyring, device: FakeDevice) -> None:
    device.known = False
    with pytest.raises(DeviceUnavailableError):
        await keyring.create("web-1", P256)
    device.known = True
    await keyring.create("web-1", P256)


async def test_no_algorithm_and_nothing_to_adopt_is_refused(keyring: Keyring) -> None:
    with pytest.raises(InvalidArgumentError, match="algorithm"):
        await keyring.create("web-1")


async def test_the_same_request_again_is_the_same_key(keyring: Keyring, device: FakeDevice) -> None:
    request = str(uuid.uuid4())
    first = await keyring.create("web-1", P256, request_id=request)
    assert await keyring.create("web-1", P256, request_id=request.upper()) == first
    assert len(device.things) == 1


async def test_the_same_request_twice_at_once_makes_one_key(keyring: Keyring, device: FakeDevice) -> None:
    request = str(uuid.uuid4())
    made = await asyncio.gather(*[keyring.create("web-1", P256, request_id=request) for _ in range(4)])
    assert all(one == made[0] for one in made)
    assert len(device.things) == 1


@pytest.mark.parametrize(
    "change",
    [{"key_id": "web-2"}, {"algorithm": KeyAlgorithm.EC_P384}, {"labels": {"a": "b"}}, {"backend": "other"}],
)
async def test_a_request_id_cannot_be_used_for_another_request(keyring: Keyring, change: dict) -> None:
    request = str(uuid.uuid4())
    await keyring.create("web-1", P256, request_id=request)
    with pytest.raises(FailedPreconditionError, match="another request"):
        await keyring.create(**{"key_id": "web-1", "algorithm": P256, "request_id": request, **change})
    with pytest.raises(FailedPreconditionError, match="another request"):
        await keyring.rotate("keys/web-1", request_id=request)


@pytest.mark.parametrize("bad", ["1", "x" * 36, "{" + "0" * 34 + "}"])
async def test_a_request_id_is_a_uuid(keyring: Keyring, bad: str) -> None:
    with pytest.raises(InvalidArgumentError, match="UUID"):
        await keyring.create("web-1", P256, request_id=bad)


async def test_a_caller_that_goes_away_does_not_leave_half_a_key(keyring: Keyring, device: FakeDevice) -> None:
    request = str(uuid.uuid4())
    begun = asyncio.Event()
    device.before = lambda call: begun.set()
    task = asyncio.create_task(keyring.create("web-1", P256, request_id=request))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    key = await keyring.create("web-1", P256, request_id=request)
    assert key.primary == "keys/web-1/versions/1"
    assert len(device.things) == 1


async def test_a_rotation_makes_a_new_primary_version_and_keeps_the_old_one(
    keyring: Keyring, device: FakeDevice
) -> None:
    await keyring.create("web-1", P256)
    old = await keyring.resolve("keys/web-1")
    key = await keyring.rotate("keys/web-1")
    assert [row.number for row in key.versions] == [1, 2]
    assert (await keyring.resolve("keys/web-1")).name == "keys/web-1/versions/2"
    assert await keyring.resolve("keys/web-1/versions/1") == old
    assert len(device.things) == 2


async def test_a_repeated_rotation_rotates_once(keyring: Keyring, device: FakeDevice) -> None:
    await keyring.create("web-1", P256)
    request = str(uuid.uuid4())
    await asyncio.gather(*[keyring.rotate("keys/web-1", request_id=request) for _ in range(3)])
    assert len(device.things) == 2


@pytest.mark.parametrize("name", ["keys/none", "keys/web-1/versions/9"])
async def test_what_does_not_exist_is_not_found(keyring: Keyring, name: str) -> None:
    await keyring.create("web-1", P256)
    with pytest.raises(KeyNotFoundError):
        await keyring.resolve(name)
    with pytest.raises(KeyNotFoundError):
        await keyring.destroy(name)


@pytest.mark.parametrize("name", ["", "keys/", "keys/A", "web-1", "keys/a/versions/0", "keys/a/versions/01"])
async def test_a_name_outside_the_grammar_is_refused(keyring: Keyring, name: str) -> None:
    with pytest.raises(ResourceNameError):
        await keyring.resolve(name)


async def test_a_disabled_version_is_disabled_at_once_also_where_it_was_remembered(keyring: Keyring) -> None:
    await keyring.create("web-1", P256)
    await keyring.resolve("keys/web-1")
    assert keyring.cached("keys/web-1") is not None
    await keyring.update_version("keys/web-1/versions/1", VersionState.DISABLED)
    assert keyring.cached("keys/web-1") is None
    assert (await keyring.resolve("keys/web-1")).state is VersionState.DISABLED
    await keyring.update_version("keys/web-1/versions/1", VersionState.ENABLED)
    assert (await keyring.resolve("keys/web-1")).state is VersionState.ENABLED


async def test_what_was_read_before_a_change_is_neither_told_nor_remembered_after_it(
    keyring: Keyring, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keyring.create("web-1", P256)
    read, has_read, go_on = store.read, asyncio.Event(), asyncio.Event()

    async def slow(work):
        found = await read(work)
        has_read.set()
        await go_on.wait()
        return found

    monkeypatch.setattr(store, "read", slow)
    reading = asyncio.create_task(keyring.resolve("keys/web-1"))
    await has_read.wait()
    monkeypatch.setattr(store, "read", read)
    await keyring.update_version("keys/web-1/versions/1", VersionState.DISABLED)
    assert (await keyring.resolve("keys/web-1")).state is VersionState.DISABLED
    await keyring.update_version("keys/web-1/versions/1", VersionState.ENABLED)
    await keyring.update_version("keys/web-1/versions/1", VersionState.DISABLED)
    go_on.set()
    assert (await reading).state is VersionState.ENABLED
    assert (await keyring.resolve("keys/web-1")).state is VersionState.DISABLED


async def test_many_that_ask_for_one_name_at_once_make_one_read(
    keyring: Keyring, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keyring.create("web-1", P256)
    reads, read = [], store.read

    async def counted(work):
        reads.append(work)
        return await read(work)

    monkeypatch.setattr(store, "read", counted)
    found = await asyncio.gather(*[keyring.resolve("keys/web-1") for _ in range(50)])
    assert len(reads) == 1
    assert all(one is found[0] for one in found)


def test_the_names_that_were_used_last_are_remembered() -> None:
    cache = ResolvedCache(2)
    key = ResolvedKey("n", "soft", b"l", P256, VersionState.ENABLED, b"", KeyFacts("n"))
    for name in ("keys/a", "keys/b"):
        cache.put(name, key, cache.generation)
    cache.get("keys/a")
    cache.put("keys/c", key, cache.generation)
    assert [cache.get(name) is not None for name in ("keys/a", "keys/b", "keys/c")] == [True, False, True]


def test_what_another_worker_changes_is_no_longer_remembered() -> None:
    ledgers = Ledgers()
    ours, theirs = (ResolvedCache(9, Ledger(ledgers.fd, ledgers.take())) for _ in range(2))
    key = ResolvedKey("n", "soft", b"l", P256, VersionState.ENABLED, b"", KeyFacts("n"))
    before = ours.generation
    ours.put("keys/n", key, before)
    theirs.forget("other")
    assert ours.get("keys/n") is None  # only they know what they changed
    ours.put("keys/n", key, before)  # read before the change
    assert ours.get("keys/n") is None
    ours.put("keys/n", key, ours.generation)
    ours.forget("other")
    assert ours.get("keys/n") is key  # our own change was of another key
    ledgers.close()


async def test_a_caller_that_goes_away_while_disabling_does_not_leave_the_version_remembered(keyring: Keyring) -> None:
    await keyring.create("web-1", P256)
    await keyring.resolve("keys/web-1")
    task = asyncio.create_task(keyring.update_version("keys/web-1/versions/1", VersionState.DISABLED))
    await asyncio.sleep(0)
    task.cancel()
    await keyring.close()
    assert (await keyring.resolve("keys/web-1")).state is VersionState.DISABLED


async def test_an_etag_of_before_is_refused(keyring: Keyring) -> None:
    key = await keyring.create("web-1", P256)
    changed = await keyring.update("keys/web-1", labels={"a": "1"}, etag=key.etag)
    assert changed.etag != key.etag
    for change in ({"labels": {}}, {"primary": key.primary}):
        with pytest.raises(EtagError):
            await keyring.update("keys/web-1", etag=key.etag, **change)
    with pytest.raises(EtagError):
        await keyring.destroy("keys/web-1", etag=key.etag)
    assert (await keyring.get("keys/web-1")).row.labels == {"a": "1"}


async def test_an_older_version_can_be_made_primary_but_not_a_disabled_one(keyring: Keyring) -> None:
    await keyring.create("web-1", P256)
    await keyring.rotate("keys/web-1")
    await keyring.resolve("keys/web-1")
    await keyring.update("keys/web-1", primary="keys/web-1/versions/1")
    assert (await keyring.resolve("keys/web-1")).name == "keys/web-1/versions/1"
    await keyring.update_version("keys/web-1/versions/2", VersionState.DISABLED)
    with pytest.raises(VersionStateError):
        await keyring.update("keys/web-1", primary="keys/web-1/versions/2")
    with pytest.raises(KeyNotFoundError):
        await keyring.update("keys/web-1", primary="keys/web-1/versions/3")
    with pytest.raises(InvalidArgumentError, match="no version of"):
        await keyring.update("keys/web-1", primary="keys/web-2/versions/1")


async def names(keyring: Keyring, **wanted) -> list[str]:
    found, token = [], ""
    while True:
        keys, token = await keyring.list(page_token=token, **wanted)
        found += [key.row.id for key in keys]
        if not token:
            return found


async def test_pages_show_every_key_once_in_order(keyring: Keyring) -> None:
    ids = [f"k{number}" for number in (3, 1, 4, 5, 9, 2, 6)]
    for id in ids:
        await keyring.create(id, P256)
    for size in (1, 2, 3, 7, 0, 5000):
        assert await names(keyring, page_size=size) == sorted(ids)
    keys, token = await keyring.list(page_size=7)
    assert (len(keys), token) == (7, "")


async def test_a_page_goes_on_where_the_last_ended_also_when_keys_came_in_between(keyring: Keyring) -> None:
    for id in ("b", "d", "f"):
        await keyring.create(id, P256)
    _, token = await keyring.list(page_size=2)
    await keyring.create("a", P256)
    await keyring.create("e", P256)
    keys, _ = await keyring.list(page_size=2, page_token=token)
    assert [key.row.id for key in keys] == ["e", "f"]


async def test_lists_are_filtered_by_labels_and_backend(keyring: Keyring) -> None:
    await keyring.create("a", P256, labels={"team": "web", "x/y.z-1": "ä'\""})
    await keyring.create("b", P256, labels={"team": "web"}, backend="other")
    await keyring.create("c", P256)
    assert await names(keyring, labels={"team": "web"}) == ["a", "b"]
    assert await names(keyring, labels={"team": "web", "x/y.z-1": "ä'\""}) == ["a"]
    assert await names(keyring, labels={"team": ""}) == []
    assert await names(keyring, backend="other") == ["b"]


@pytest.mark.parametrize("token", ["x", "%%%", "bnVsbA", "WzEsMl0", "W10", "ä", "W" * 4000])
async def test_a_page_token_that_is_not_ours_is_refused(keyring: Keyring, token: str) -> None:
    with pytest.raises(InvalidArgumentError, match="page_token"):
        await keyring.list(page_token=token)


async def test_a_page_token_belongs_to_its_filters(keyring: Keyring) -> None:
    for id in ("a", "b"):
        await keyring.create(id, P256, labels={"x": "y"})
    _, token = await keyring.list(page_size=1, labels={"x": "y"})
    with pytest.raises(InvalidArgumentError, match="other filters"):
        await keyring.list(page_size=1, page_token=token)


async def test_a_negative_page_is_refused(keyring: Keyring) -> None:
    with pytest.raises(InvalidArgumentError, match="page_size"):
        await keyring.list(page_size=-1)

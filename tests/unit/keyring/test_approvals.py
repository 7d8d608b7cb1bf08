from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from hsmsign.keyring import Keyring
from hsmsign.keyring.approvals import Approvals
from hsmsign.keyring.approving import MESSAGE_KEPT, OPEN_MAX, Wanted
from hsmsign.keyring.values import AdoptedObject
from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.caller import Caller
from hsmsign.model.dual_control import ApprovalState, DualControl, Operation
from hsmsign.model.errors import (
    ApprovalDeniedError,
    ApprovalNotFoundError,
    ApprovalRequiredError,
    CallerLimitError,
    EtagError,
    FailedPreconditionError,
    InvalidArgumentError,
    OwnRequestError,
    ResourceNameError,
)
from hsmsign.model.purpose import Purpose, PurposeKind
from hsmsign.store import Store, VersionState
from tests.support.clock import Clock
from tests.support.fake_device import FakeDevice

ANN, BEN, CLEO, DAN = (Caller(f"spiffe://corp/{name}") for name in ("ann", "ben", "cleo", "dan"))
TWO = DualControl(2)
JWT = Purpose(PurposeKind.JWT)


@pytest.fixture
def approvals(store: Store) -> Approvals:
    return Approvals(store)


@pytest.fixture
async def key(keyring: Keyring) -> str:
    made = await keyring.create("root", KeyAlgorithm.EC_P256, control=TWO)
    assert made.row.control == TWO
    return made.name


async def asked(work) -> str:
    """The name of the request that `work` was refused with."""
    with pytest.raises(ApprovalRequiredError) as error:
        await work
    return error.value.metadata["approval"]


async def grant(approvals: Approvals, name: str, *callers: Caller) -> ApprovalState:
    for caller in callers:
        row = await approvals.decide(name, caller, grant=True)
    return row.state


async def test_destroying_waits_for_two_others_and_is_done_once(
    keyring: Keyring, approvals: Approvals, key: str, device: FakeDevice
) -> None:
    name = await asked(keyring.destroy(key, by=ANN))
    assert (await approvals.get(name)).summary == "destroy keys/root/versions/1"
    assert await grant(approvals, name, BEN) is ApprovalState.PENDING
    assert await asked(keyring.destroy(key, by=ANN)) == name
    assert len(device.things) == 1
    assert await grant(approvals, name, CLEO) is ApprovalState.GRANTED
    done = await keyring.destroy(key, by=ANN)
    assert (done.versions[0].state, done.approval) == (VersionState.DESTROYED, name)
    assert not device.things
    assert (await approvals.get(name)).state is ApprovalState.USED
    assert (await keyring.destroy(key, by=ANN)).approval == ""  # nothing is left to approve


async def test_an_approval_is_for_its_requester_and_for_exactly_what_was_asked(
    keyring: Keyring, approvals: Approvals, key: str
) -> None:
    name = await asked(keyring.destroy(f"{key}/versions/1", by=ANN))
    await grant(approvals, name, BEN, CLEO)
    assert await asked(keyring.destroy(f"{key}/versions/1", by=DAN)) != name
    await keyring.rotate(key)
    assert await asked(keyring.destroy(key, by=ANN)) != name
    assert (await keyring.destroy(f"{key}/versions/1", by=ANN)).approval == name


async def test_nobody_approves_their_own_request_nor_twice(keyring: Keyring, approvals: Approvals, key: str) -> None:
    name = await asked(keyring.destroy(key, by=Caller("spiffe://corp/ann", ("sha256:aa", "unix-group:100"))))
    with pytest.raises(OwnRequestError):
        await approvals.decide(name, ANN, grant=True)
    with pytest.raises(OwnRequestError):  # the same key under another name
        await approvals.decide(name, Caller("dns:ann.corp", ("sha256:aa",)), grant=True)
    assert await grant(approvals, name, Caller("unix:7", ("unix-group:100",))) is ApprovalState.PENDING
    assert await grant(approvals, name, Caller("unix:7", ("unix-group:100",))) is ApprovalState.PENDING
    assert await grant(approvals, name, Caller("unix:8", ("unix-group:100",))) is ApprovalState.GRANTED
    other = await asked(keyring.update(key, purpose=JWT, by=ANN))
    await grant(approvals, other, Caller("spiffe://corp/ben", ("sha256:bb",)))
    with pytest.raises(OwnRequestError, match="approved it already"):
        await approvals.decide(other, Caller("dns:ben.corp", ("sha256:bb",)), grant=True)


async def test_one_no_is_no(keyring: Keyring, approvals: Approvals, key: str) -> None:
    name = await asked(keyring.destroy(key, by=ANN))
    await grant(approvals, name, BEN, CLEO)
    await approvals.decide(name, DAN, grant=False)
    with pytest.raises(ApprovalDeniedError, match="spiffe://corp/dan"):
        await keyring.destroy(key, by=ANN)
    with pytest.raises(FailedPreconditionError, match="denied"):
        await approvals.decide(name, BEN, grant=True)


async def test_a_purpose_and_the_dual_control_itself_change_with_approvals_only(
    keyring: Keyring, approvals: Approvals, key: str
) -> None:
    purpose = await asked(keyring.update(key, purpose=JWT, by=ANN))
    assert '"kind": "jwt"' in (await approvals.get(purpose)).summary
    weaker = await asked(keyring.update(key, control=DualControl(), by=ANN))
    assert weaker != purpose
    assert (await keyring.get(key)).row.purpose.kind is PurposeKind.ANY
    await keyring.update(key, labels={"team": "ca"}, purpose=Purpose(), control=TWO, by=ANN)  # these stay as they are
    await grant(approvals, purpose, BEN, CLEO)
    with pytest.raises(EtagError):
        await keyring.update(key, purpose=JWT, etag="1-1", by=ANN)
    changed = await keyring.update(key, purpose=JWT, by=ANN)
    assert (changed.row.purpose, changed.approval) == (JWT, purpose)
    await grant(approvals, weaker, BEN, CLEO)
    assert (await keyring.update(key, control=DualControl(), by=ANN)).row.control == DualControl()
    assert (await keyring.destroy(key, by=ANN)).approval == ""


async def test_labels_do_not_ride_on_an_approval_for_something_else(
    keyring: Keyring, approvals: Approvals, key: str
) -> None:
    name = await asked(keyring.update(key, purpose=JWT, by=ANN))
    await grant(approvals, name, BEN, CLEO)
    assert await asked(keyring.update(key, purpose=JWT, labels={"team": "web"}, by=ANN)) != name
    assert (await keyring.get(key)).row.labels == {}


async def test_approvals_that_were_given_for_less_do_not_count_for_more(
    keyring: Keyring, approvals: Approvals, key: str
) -> None:
    destroy = await asked(keyring.destroy(key, by=ANN))
    more = await asked(keyring.update(key, control=DualControl(3), by=ANN))
    await grant(approvals, destroy, BEN, CLEO)
    await grant(approvals, more, BEN, CLEO)
    await keyring.update(key, control=DualControl(3), by=ANN)
    assert await asked(keyring.destroy(key, by=ANN)) != destroy


async def test_an_approval_expires(keyring: Keyring, store: Store) -> None:
    clock = Clock()
    approvals = Approvals(store, clock=lambda: int(clock.now * 1_000_000))
    control = DualControl(1, signing=True, within=60)
    wanted = Wanted("root", Operation.SIGN, ANN, ("x",), "sign it", b"x" * (MESSAGE_KEPT + 1))
    name = await asked(approvals.spend(control, wanted))
    assert (await approvals.get(name)).message == b""
    await grant(approvals, name, BEN)
    clock.now += 60
    assert approvals.state(await approvals.get(name)) is ApprovalState.EXPIRED
    with pytest.raises(FailedPreconditionError, match="expired"):
        await approvals.decide(name, CLEO, grant=True)
    assert await asked(approvals.spend(control, wanted)) != name
    assert len((await approvals.list())[0]) == 1
    assert len((await approvals.list(everything=True))[0]) == 2
    clock.now += 31 * 86_400
    await asked(approvals.spend(control, wanted))
    assert len((await approvals.list(everything=True))[0]) == 1


async def test_of_two_that_use_an_approval_at_once_one_gets_it(keyring: Keyring, approvals: Approvals) -> None:
    wanted = Wanted("root", Operation.SIGN, ANN, ("x",), "sign it")
    name = await asked(approvals.spend(DualControl(1), wanted))
    await grant(approvals, name, BEN)
    answers = await asyncio.gather(*(approvals.spend(DualControl(1), wanted) for _ in range(5)), return_exceptions=True)
    assert answers.count(name) == 1
    assert sum(isinstance(answer, ApprovalRequiredError) for answer in answers) == 4
    await approvals.give_back(name)
    assert await approvals.spend(DualControl(1), wanted) == name


async def test_one_caller_cannot_fill_the_store(keyring: Keyring, approvals: Approvals) -> None:
    for number in range(OPEN_MAX):
        await asked(approvals.spend(TWO, Wanted("root", Operation.SIGN, ANN, (number,), "sign it")))
    with pytest.raises(CallerLimitError):
        await approvals.spend(TWO, Wanted("root", Operation.SIGN, ANN, ("more",), "sign it"))
    await asked(approvals.spend(TWO, Wanted("root", Operation.SIGN, BEN, ("more",), "sign it")))


async def test_requests_come_in_pages(keyring: Keyring, approvals: Approvals, key: str) -> None:
    names = set()
    for number in range(5):
        names.add(await asked(approvals.spend(TWO, Wanted("root", Operation.SIGN, ANN, (number,), "sign it"))))
    names.add(await asked(approvals.spend(TWO, Wanted("other", Operation.SIGN, ANN, (), "sign it"))))
    found, token = await approvals.list(page_size=4)
    rest, end = await approvals.list(page_size=4, page_token=token)
    assert {f"approvals/{row.id}" for row in found + rest} == names
    assert end == ""
    assert len((await approvals.list(key="keys/other"))[0]) == 1


@pytest.mark.parametrize("name", ["approvals/0123456789abcdef", "approvals/x", "keys/root", ""])
async def test_what_is_no_request_is_told(approvals: Approvals, name: str) -> None:
    with pytest.raises((ApprovalNotFoundError, ResourceNameError)):
        await approvals.decide(name, BEN, grant=True)


@pytest.mark.parametrize(
    "control", [DualControl(17), DualControl(-1), DualControl(0, signing=True), DualControl(1, within=59)]
)
async def test_a_dual_control_that_makes_no_sense_is_refused(keyring: Keyring, control: DualControl) -> None:
    with pytest.raises(InvalidArgumentError):
        await keyring.create("root", KeyAlgorithm.EC_P256, control=control)


async def test_releasing_an_adopted_object_is_no_way_around(keyring: Keyring, device: FakeDevice) -> None:
    made = await keyring.create("root", KeyAlgorithm.EC_P256, control=TWO)
    with pytest.raises(InvalidArgumentError):
        await keyring.destroy(made.name, adopted=AdoptedObject.RELEASE, by=ANN)
    planned = await keyring.destroy(made.name, validate_only=True, by=ANN)  # asks nobody
    assert planned.versions[0].state is VersionState.DESTROYING
    assert (await keyring.get(made.name)).versions[0].state is VersionState.ENABLED


async def test_a_replica_is_taken_off_when_others_approved_it(
    keyring: Keyring, approvals: Approvals, key: str, device: FakeDevice, other: FakeDevice
) -> None:
    """Its object stays where it is: a destroyed version would leave it behind."""
    other.things.append(replace(device.things[-1]))
    await keyring.add_replica(key, "other")
    name = await asked(keyring.remove_replica(key, "other", ANN))
    assert len((await keyring.resolve(key)).replicas) == 1
    await grant(approvals, name, BEN, CLEO)
    done, version = await keyring.remove_replica(key, "other", ANN)
    assert (done.approval, version.replicas) == (name, ())

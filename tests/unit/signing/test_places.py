"""One key on several tokens: who is asked, and what a caller hears when one of them dies."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import time
from collections.abc import Awaitable, Callable

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from hsmsign.devices.base import NotAnsweringError
from hsmsign.keyring import ResolvedKey
from hsmsign.keyring.values import Place
from hsmsign.model.algorithms import InputKind, KeyAlgorithm, Scheme, SignatureFormat
from hsmsign.model.device import DeviceState, JobFailure, JobStatus, SignOrder, SignOutcome
from hsmsign.model.errors import (
    BackendNotFoundError,
    DeadlineError,
    DeviceUnavailableError,
    ObjectNotFoundError,
    QueueFullError,
    TokenNotPresentError,
)
from hsmsign.model.key_facts import KeyFacts
from hsmsign.signing import places
from hsmsign.signing.breaker import TRIPS_AT, Breaker
from hsmsign.signing.places import Places, Signed
from hsmsign.store import VersionState
from tests.support.clock import Clock
from tests.support.fake_device import FakeDevice

P256 = KeyAlgorithm.EC_P256
DIGESTS = [hashlib.sha256(bytes([number])).digest() for number in range(5)]
EVERYTHING = JobFailure(-1, JobStatus.DEVICE_ERROR, 0x30)


class Token(FakeDevice):
    """As behind its wall: what waits for it does so until it is back."""

    async def sign(self, order: SignOrder, *, waits: bool = True) -> SignOutcome:
        while waits and self.state.state in (DeviceState.STARTING, DeviceState.HEALING):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        return await super().sign(order, waits=waits)


class Two:
    """A key on two tokens, with another id on the second."""

    def __init__(self) -> None:
        self.a, self.b = Token("a"), Token("b")
        self.private = self.a.put(P256, b"\x01", "key").private
        self.b.things.append(dataclasses.replace(self.a.things[0], id=b"\x02"))
        self.places = Places({"a": self.a, "b": self.b}, 20)
        self.key = ResolvedKey(
            "keys/k/versions/1",
            "a",
            self.a.things[0].locator,
            P256,
            VersionState.ENABLED,
            b"",
            KeyFacts("k"),
            replicas=(Place("b", self.b.things[0].locator),),
        )

    async def sign(self, inputs: list[bytes] = DIGESTS, deadline: float = 0.0) -> Signed:
        scheme = Scheme.ECDSA_P256_SHA256
        order = SignOrder(self.key.locator, scheme, InputKind.DIGEST, SignatureFormat.DER, inputs, deadline)
        return await self.places.sign(self.key, order)

    def check(self, signed: Signed, inputs: list[bytes] = DIGESTS) -> None:
        assert signed.failures == []
        for signature, digest in zip(signed.signatures, inputs, strict=True):
            self.private.public_key().verify(signature, digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))


@pytest.fixture
def two() -> Two:
    return Two()


async def until(what: Callable[[], object]) -> None:
    for _ in range(10_000):
        if what():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not happen")


async def begun(two: Two, device: FakeDevice) -> asyncio.Task[Signed]:
    """A call that waits inside this device."""
    device.gate = asyncio.Event()
    task = asyncio.create_task(two.sign())
    await until(lambda: device.flying)
    return task


async def test_the_keys_own_token_is_asked_where_nothing_waits(two: Two) -> None:
    two.check(await two.sign())
    assert (len(two.a.orders), len(two.b.orders)) == (1, 0)


async def test_the_token_with_less_to_do_is_asked(two: Two) -> None:
    waiting = await begun(two, two.a)
    two.check(await two.sign())
    assert len(two.b.orders) == 1
    assert two.a.gate is not None
    two.a.gate.set()
    two.check(await waiting)


@pytest.mark.parametrize(
    "state", [one for one in DeviceState if one is not DeviceState.READY], ids=lambda state: state.value
)
async def test_a_token_that_is_not_ready_is_passed_over(two: Two, state: DeviceState) -> None:
    two.a.become(state, "away")
    two.check(await two.sign())
    assert two.a.orders == []


async def test_what_waits_for_a_token_that_falls_silent_is_signed_by_the_other(two: Two) -> None:
    waiting = await begun(two, two.a)
    two.a.fall_silent()
    two.check(await waiting)
    assert two.places.moved == {"a": len(DIGESTS)}


async def test_a_token_that_falls_silent_while_the_other_is_away_is_waited_for(two: Two) -> None:
    two.b.become(DeviceState.TOKEN_NOT_PRESENT, "away")
    waiting = await begun(two, two.a)
    two.a.fall_silent()
    await asyncio.sleep(0.01)
    assert not waiting.done()
    assert two.a.gate is not None
    two.a.gate.set()
    two.check(await waiting)


async def test_where_the_other_goes_away_in_that_moment_the_first_is_waited_for(two: Two) -> None:
    waiting = await begun(two, two.a)
    two.b.failing = JobFailure(-1, JobStatus.NOT_PRESENT)
    two.a.fall_silent()
    two.a.gate = None
    two.check(await waiting)


@pytest.mark.parametrize(
    "status",
    [
        JobStatus.DEVICE_ERROR,
        JobStatus.KEY_NOT_FOUND,
        JobStatus.NOT_PRESENT,
        JobStatus.PIN_REFUSED,
        JobStatus.PIN_LOCKED,
        JobStatus.HOST_LOST,
        JobStatus.UNSUPPORTED,
        JobStatus.NO_MEMORY,
        JobStatus.BROKEN,
        JobStatus.BUSY,
    ],
)
async def test_what_one_token_cannot_sign_the_other_does(two: Two, status: JobStatus) -> None:
    two.a.failing = JobFailure(2, status)
    two.check(await two.sign())
    assert [one.inputs for one in two.b.orders] == [[DIGESTS[2]]]


@pytest.mark.parametrize("status", [JobStatus.DEADLINE, JobStatus.CANCELLED, JobStatus.BAD_INPUT])
async def test_what_another_token_would_answer_too_is_answered(two: Two, status: JobStatus) -> None:
    two.a.failing = JobFailure(2, status)
    signed = await two.sign()
    assert [one.index for one in signed.failures] == [2]
    assert [bool(one) for one in signed.signatures] == [True, True, False, True, True]
    assert two.b.orders == []


async def test_where_both_fail_the_callers_hear_of_the_last(two: Two) -> None:
    two.a.failing, two.b.failing = JobFailure(-1, JobStatus.KEY_NOT_FOUND), JobFailure(1, JobStatus.NOT_PRESENT)
    signed = await two.sign()
    assert [(one.index, type(one.error), one.error.metadata["backend"]) for one in signed.failures] == [
        (1, TokenNotPresentError, "b")
    ]
    two.b.things.clear()
    signed = await two.sign()
    assert [one.index for one in signed.failures] == list(range(len(DIGESTS)))
    assert isinstance(signed.failures[0].error, ObjectNotFoundError)


async def test_a_token_that_keeps_failing_is_asked_no_more(two: Two) -> None:
    two.a.failing = EVERYTHING
    for _ in range(TRIPS_AT):
        two.check(await two.sign([DIGESTS[0]]), [DIGESTS[0]])
    asked = len(two.a.orders)
    assert two.places.broken_off("a")
    two.check(await two.sign())
    assert len(two.a.orders) == asked
    two.b.become(DeviceState.TOKEN_NOT_PRESENT)
    two.b.failing = JobFailure(-1, JobStatus.NOT_PRESENT)
    signed = await two.sign([DIGESTS[0]])
    assert [type(one.error) for one in signed.failures] == [TokenNotPresentError]


async def test_a_full_queue_is_no_reason_to_refuse_while_the_other_has_room(two: Two) -> None:
    two.a.flying = 18
    two.b.flying = 19
    two.b.gate = asyncio.Event()
    with pytest.raises(QueueFullError):
        await two.sign()
    two.b.flying, two.b.gate = 10, None
    two.check(await two.sign())
    two.a.flying, two.b.flying = 10, 18
    two.check(await two.sign())
    assert (len(two.a.orders), len(two.b.orders)) == (1, 1)


async def test_a_backend_that_is_no_longer_configured_is_passed_over(two: Two) -> None:
    two.key = dataclasses.replace(two.key, device="gone")
    two.check(await two.sign())
    two.key = dataclasses.replace(two.key, replicas=())
    with pytest.raises(BackendNotFoundError, match="gone"):
        await two.sign()


async def test_nothing_is_signed_past_the_deadline(two: Two) -> None:
    with pytest.raises(DeadlineError):
        await two.sign(deadline=0.5)
    assert (two.a.orders, two.b.orders) == ([], [])


async def test_a_caller_that_goes_away_takes_its_order_with_it(two: Two) -> None:
    waiting = await begun(two, two.a)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await until(lambda: not two.a.flying)
    assert (two.a.cancelled, two.b.orders) == (len(DIGESTS), [])


async def test_where_neither_answers_and_none_comes_back_in_time_that_is_said(two: Two) -> None:
    for device in (two.a, two.b):
        device.become(DeviceState.STARTING)
        device.sign = _refuse  # type: ignore[method-assign]
    with pytest.raises(DeviceUnavailableError):
        await two.sign()


@pytest.mark.parametrize("back", ["a", "b"])
async def test_while_both_are_away_an_order_waits_for_whichever_is_back_first(two: Two, back: str) -> None:
    for device in (two.a, two.b):
        device.become(DeviceState.HEALING)
    waiting = asyncio.create_task(two.sign())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    returned, absent = (two.a, two.b) if back == "a" else (two.b, two.a)
    returned.become(DeviceState.READY)
    async with asyncio.timeout(30):
        two.check(await waiting)
    assert absent.orders == []


async def test_an_order_leaves_the_token_that_it_waits_for_when_that_goes_away_and_another_is_back(two: Two) -> None:
    two.b.become(DeviceState.HEALING)
    waiting = await begun(two, two.a)
    two.a.become(DeviceState.HEALING)
    await asyncio.sleep(0.01)
    assert not waiting.done()
    two.b.become(DeviceState.READY)
    async with asyncio.timeout(30):
        two.check(await waiting)
    assert (two.a.cancelled, two.places.moved) == (len(DIGESTS), {"a": len(DIGESTS)})


async def test_an_order_leaves_a_token_that_hangs_and_says_nothing_when_another_is_back(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "_PATIENCE", 0.01, raising=False)
    two.b.become(DeviceState.HEALING)
    waiting = await begun(two, two.a)
    two.b.become(DeviceState.READY)
    async with asyncio.timeout(30):
        two.check(await waiting)
    assert two.a.cancelled == len(DIGESTS)


async def test_a_token_that_refused_while_it_was_away_is_asked_again_when_it_is_back(two: Two) -> None:
    two.a.become(DeviceState.TOKEN_NOT_PRESENT)
    two.a.failing = JobFailure(-1, JobStatus.NOT_PRESENT)
    two.b.become(DeviceState.HEALING)
    waiting = asyncio.create_task(two.sign())
    await until(lambda: two.a.orders)
    await asyncio.sleep(0.01)
    assert not waiting.done()
    two.a.failing = None
    two.a.become(DeviceState.READY)
    async with asyncio.timeout(30):
        two.check(await waiting)
    assert two.b.orders == []


async def test_tokens_that_are_slower_than_they_are_waited_for_sign_nevertheless(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them falls silent over every signature: an order that went to and fro would never be signed."""
    monkeypatch.setattr(places, "_PATIENCE", 0.01, raising=False)
    for device in (two.a, two.b):
        _slow(device)
    async with asyncio.timeout(30):
        two.check(await two.sign())


def _slow(device: FakeDevice) -> None:
    signs = device.sign

    async def sign(order: SignOrder, *, waits: bool = True) -> SignOutcome:
        await asyncio.sleep(0.1 if waits else 0.005)
        if not waits:
            raise NotAnsweringError("it does not answer")
        return await signs(order)

    device.sign = sign  # type: ignore[method-assign]


async def test_while_both_are_away_nobody_waits_past_the_deadline(two: Two) -> None:
    for device in (two.a, two.b):
        device.become(DeviceState.HEALING)
    async with asyncio.timeout(30):
        with pytest.raises(DeadlineError):
            await two.sign(deadline=time.monotonic() + 0.05)
    for device in (two.a, two.b):
        device.become(DeviceState.READY)
    await asyncio.sleep(0.01)
    assert (two.a.orders, two.b.orders) == ([], [])


async def test_a_backend_that_is_no_longer_configured_does_not_hide_that_the_other_may_come_back(two: Two) -> None:
    two.key = dataclasses.replace(two.key, replicas=(Place("gone", b"\x02"),))
    two.a.become(DeviceState.STARTING)
    two.a.sign = _refuse  # type: ignore[method-assign]
    with pytest.raises(DeviceUnavailableError):
        await two.sign()


@pytest.mark.parametrize("how", ["silent", "full", "the caller goes"])
async def test_a_token_whose_try_came_to_nothing_is_tried_again_after_its_own_pause(two: Two, how: str) -> None:
    clock = Clock()
    two.places._breakers["a"] = breaker = Breaker("a", clock)
    two.a.failing = EVERYTHING
    for _ in range(TRIPS_AT):
        two.check(await two.sign([DIGESTS[0]]), [DIGESTS[0]])
    assert breaker.broken_off
    two.a.failing = None
    clock.now += 1
    await _in_vain(two, how)
    clock.now += 1
    asked = len(two.a.orders)
    two.check(await two.sign())
    assert len(two.a.orders) == asked + 1
    assert not breaker.broken_off


async def _in_vain(two: Two, how: str) -> None:
    """The token is tried, and does not come to answer."""
    if how == "full":
        signs, two.a.sign = two.a.sign, _full  # type: ignore[method-assign]
        two.check(await two.sign())
        two.a.sign = signs  # type: ignore[method-assign]
        return
    waiting = await begun(two, two.a)
    if how == "silent":
        two.a.fall_silent()
        two.check(await waiting)
    else:
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await until(lambda: not two.a.flying)
    two.a.silent, two.a.gate = False, None
    two.a.leaving.clear()


def _full(order: SignOrder, *, waits: bool = True) -> Awaitable[object]:
    raise QueueFullError("as much as may be")


def _refuse(order: SignOrder, *, waits: bool = True) -> Awaitable[object]:
    raise DeviceUnavailableError("no memory for another order")

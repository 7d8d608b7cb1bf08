"""One key on several tokens: who is asked, and what a caller hears when one of them dies."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import Awaitable, Callable

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from hsmsign.keyring import ResolvedKey
from hsmsign.keyring.values import Place
from hsmsign.model.algorithms import InputKind, KeyAlgorithm, Scheme, SignatureFormat
from hsmsign.model.device import DeviceState, JobFailure, JobStatus, SignOrder
from hsmsign.model.errors import (
    BackendNotFoundError,
    DeadlineError,
    DeviceUnavailableError,
    ObjectNotFoundError,
    QueueFullError,
    TokenNotPresentError,
)
from hsmsign.model.key_facts import KeyFacts
from hsmsign.signing.breaker import TRIPS_AT
from hsmsign.signing.places import Places, Signed
from hsmsign.store import VersionState
from tests.support.fake_device import FakeDevice

P256 = KeyAlgorithm.EC_P256
DIGESTS = [hashlib.sha256(bytes([number])).digest() for number in range(5)]
EVERYTHING = JobFailure(-1, JobStatus.DEVICE_ERROR, 0x30)


class Two:
    """A key on two tokens, with another id on the second."""

    def __init__(self) -> None:
        self.a, self.b = FakeDevice("a"), FakeDevice("b")
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


def _refuse(order: SignOrder, *, waits: bool = True) -> Awaitable[object]:
    raise DeviceUnavailableError("no memory for another order")

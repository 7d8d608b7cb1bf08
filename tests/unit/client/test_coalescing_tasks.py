"""Coalesced signatures with tasks, and a desk in the daemon's place that answers when it is told to."""

from __future__ import annotations

import asyncio
import contextvars
import random

import pytest

from hsmsign.client.coalescing import Coalescer
from hsmsign.client.coalescing_tasks import Tasks
from hsmsign.client.values import Signature, SignedBatch
from hsmsign.model.algorithms import InputKind, Scheme, SignatureFormat
from hsmsign.model.errors import (
    BatchSizeError,
    CallerLimitError,
    CancelledError,
    DeadlineError,
    DigestLengthError,
    HsmsignError,
)
from tests.support.daemon import PATIENCE

TRACE: contextvars.ContextVar[str] = contextvars.ContextVar("trace", default="none")
VERSION, SCHEME = "keys/a/versions/1", Scheme.ECDSA_P256_SHA256


def signed(name: str, data: bytes) -> bytes:
    return f"{name}:".encode() + data


class Flown:
    """A call that the desk has."""

    def __init__(self, name, inputs, timeout):
        self.name, self.inputs, self.timeout, self.trace = name, inputs, timeout, TRACE.get()
        self.landed = asyncio.get_running_loop().create_future()
        self.cancelled = False

    def answer(self, error: BaseException | None = None) -> None:
        entries = [DigestLengthError("x", 32, 3) if data == b"bad" else signed(self.name, data) for data in self.inputs]
        if error is None:
            self.landed.set_result(SignedBatch(entries, VERSION, SCHEME))
        else:
            self.landed.set_exception(error)


class Desk:
    def __init__(self):
        self.calls: asyncio.Queue[Flown] = asyncio.Queue()

    def full(self, name):
        return f"keys/{name}"

    async def one(self, kind, data, timeout):  # noqa: ASYNC109 - as its protocol has it
        (entry,) = await self.many(kind, [data], timeout)
        if isinstance(entry, HsmsignError):
            raise entry
        return Signature(entry, VERSION, SCHEME)

    async def many(self, kind, inputs, timeout):  # noqa: ASYNC109 - as above
        call = Flown(kind.name, inputs, timeout)
        self.calls.put_nowait(call)
        try:
            return await call.landed
        except asyncio.CancelledError:
            call.cancelled = True
            raise

    def late(self):
        return DeadlineError("too late")

    async def next(self) -> Flown:
        return await asyncio.wait_for(self.calls.get(), PATIENCE)


class Scene:
    def __init__(self):
        self.desk = Desk()
        self.tasks = Tasks(self.desk, Coalescer(clock=lambda: 0.0))

    async def sign(self, data, timeout=PATIENCE, name="a"):  # noqa: ASYNC109 - it is what is tested
        return (await self.tasks.sign(name, None, InputKind.DIGEST, SignatureFormat.DER, data, timeout)).value

    async def behind_one(self, *data):
        """Tasks that wait while one call is in the air: that, the first one's task, and theirs."""
        first = asyncio.create_task(self.sign(b"first"))
        call = await self.desk.next()
        tasks = [asyncio.create_task(self.sign(one)) for one in data]
        await asyncio.sleep(0)
        return call, first, tasks

    def idle(self):
        return not self.tasks._flying and all(
            not (lane.waiting or lane.flights or lane.in_air) for lane in self.tasks._coalescer._lanes.values()
        )


@pytest.fixture
async def scene():
    return Scene()


async def test_what_tasks_want_while_a_call_is_in_the_air_goes_together(scene):
    call, first, tasks = await scene.behind_one(*[str(number).encode() for number in range(63)])
    assert call.inputs == [b"first"]
    assert scene.desk.calls.empty()
    call.answer()
    batch = await scene.desk.next()
    assert batch.inputs == [str(number).encode() for number in range(63)]
    batch.answer()
    assert await first == b"keys/a:first"
    assert await asyncio.gather(*tasks) == [signed("keys/a", one) for one in batch.inputs]


async def test_tasks_that_sign_again_and_again_stay_together(scene):
    async def caller():
        for _ in range(5):
            await scene.sign(b"x")

    tasks = [asyncio.create_task(caller()) for _ in range(10)]
    sizes = []
    while not all(task.done() for task in tasks):
        call = await scene.desk.next()
        sizes.append(len(call.inputs))
        call.answer()
        for _ in range(10):
            await asyncio.sleep(0)
    assert sizes[:5] == [1, 9, 10, 10, 10]
    assert sum(sizes) == 50


async def test_one_bad_input_is_the_error_of_its_caller_alone(scene):
    call, _, tasks = await scene.behind_one(b"good", b"bad")
    call.answer()
    (await scene.desk.next()).answer()
    good, bad = await asyncio.gather(*tasks, return_exceptions=True)
    assert good == b"keys/a:good"
    assert isinstance(bad, DigestLengthError)


@pytest.mark.parametrize("error", [CallerLimitError("too fast"), ValueError("a bug")])
async def test_the_error_of_a_batch_is_each_ones_own_and_nothing_is_sent_again(scene, error):
    call, _, tasks = await scene.behind_one(b"1", b"2", b"3")
    call.answer()
    (await scene.desk.next()).answer(error)
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert len({id(one) for one in found}) == 3
    assert all(isinstance(one, HsmsignError) and str(error) in str(one) for one in found)
    assert scene.desk.calls.empty()
    assert scene.idle()


async def test_a_cancelled_task_takes_only_its_own_input_with_it(scene):
    call, _, (stays, goes) = await scene.behind_one(b"stays", b"goes")
    goes.cancel()
    await asyncio.sleep(0)
    call.answer()
    batch = await scene.desk.next()
    assert batch.inputs == [b"stays"]
    more = [asyncio.create_task(scene.sign(one)) for one in (b"1", b"2")]
    await asyncio.sleep(0)
    batch.answer()
    both = await scene.desk.next()
    more[0].cancel()
    await asyncio.sleep(0)
    both.answer()
    assert await stays == b"keys/a:stays"
    assert await more[1] == b"keys/a:2"
    assert more[0].cancelled()


@pytest.mark.parametrize("begun", [True, False])
async def test_a_batch_that_nobody_waits_for_is_cancelled_and_the_next_goes(scene, begun):
    call, _, tasks = await scene.behind_one(b"1", b"2")
    call.answer()
    if begun:
        batch = await scene.desk.next()
    else:
        while not scene.tasks._flying:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    following = asyncio.create_task(scene.sign(b"next"))
    last = await scene.desk.next()
    while last.inputs != [b"next"]:
        last = await scene.desk.next()
    last.answer()
    assert await following == b"keys/a:next"
    if begun:
        assert batch.cancelled
    assert scene.idle()


async def test_a_cancelled_call_of_ones_own_lets_the_others_go(scene):
    _, first, (waits,) = await scene.behind_one(b"waits")
    first.cancel()
    call = await scene.desk.next()
    assert call.inputs == [b"waits"]
    call.answer()
    assert await waits == b"keys/a:waits"


async def test_a_caller_whose_deadline_passes_hears_so_and_the_others_get_their_signatures(scene):
    call, _, (stays,) = await scene.behind_one(b"stays")
    with pytest.raises(DeadlineError):
        await scene.sign(b"hurried", 0.02)
    with pytest.raises(DeadlineError):
        await scene.sign(b"no time", -1.0)
    call.answer()
    batch = await scene.desk.next()
    assert batch.inputs == [b"stays"]
    late, longer = asyncio.create_task(scene.sign(b"late", 1.0)), asyncio.create_task(scene.sign(b"longer", 30.0))
    await asyncio.sleep(0)
    batch.answer()
    both = await scene.desk.next()
    assert both.inputs == [b"late", b"longer"]
    assert both.timeout > 20
    with pytest.raises(DeadlineError):
        await late
    both.answer()
    assert await longer == b"keys/a:longer"
    assert await stays


async def test_a_key_that_does_not_answer_holds_up_no_other(scene):
    stuck = asyncio.create_task(scene.sign(b"stuck", name="slow"))
    await scene.desk.next()
    task = asyncio.create_task(scene.sign(b"1", name="quick"))
    (await scene.desk.next()).answer()
    assert await task == b"keys/quick:1"
    stuck.cancel()


async def test_a_key_under_dual_control_gets_each_input_from_its_own_caller(scene):
    call, _, tasks = await scene.behind_one(b"1", b"2")
    call.answer()
    (await scene.desk.next()).answer(BatchSizeError("one input at a time"))
    singles = [await scene.desk.next(), await scene.desk.next()]
    assert [single.inputs for single in singles] == [[b"1"], [b"2"]]
    for single in singles:
        single.answer()
    assert await asyncio.gather(*tasks) == [b"keys/a:1", b"keys/a:2"]


async def test_a_call_is_made_in_the_context_of_its_oldest_caller(scene):
    async def traced(data, trace):
        TRACE.set(trace)
        return await scene.sign(data)

    call, _, _ = await scene.behind_one()
    tasks = [asyncio.create_task(traced(b"1", "oldest")), asyncio.create_task(traced(b"2", "other"))]
    await asyncio.sleep(0)
    call.answer()
    batch = await scene.desk.next()
    assert (batch.inputs, batch.trace) == ([b"1", b"2"], "oldest")
    batch.answer()
    await asyncio.gather(*tasks)


async def test_closing_tells_those_who_wait(scene):
    call, first, tasks = await scene.behind_one(b"1", b"2")
    scene.tasks.close()
    for found in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(found, CancelledError)
    call.answer()
    assert await first
    with pytest.raises(CancelledError, match="closed"):
        await scene.sign(b"x")


async def test_many_tasks_get_every_signature_once_and_theirs(scene):
    """No wake-up is lost, whoever gives up, and whatever fails."""
    chance, made = random.Random(1), 0

    async def answering():
        while True:
            call = await scene.desk.calls.get()
            await asyncio.sleep(0)
            if not call.landed.done():
                call.answer(CallerLimitError("x") if len(call.inputs) > 1 and chance.random() < 0.1 else None)

    async def caller(number):
        nonlocal made
        own = random.Random(number)
        for turn in range(60):
            data, name = f"{number}/{turn}".encode(), own.choice("ab")
            task = asyncio.create_task(scene.sign(data, own.choice((0.0, 30.0)), name))
            if own.random() < 0.1:
                for _ in range(own.randrange(4)):
                    await asyncio.sleep(0)
                task.cancel()
            try:
                assert await task == signed(f"keys/{name}", data)
                made += 1
            except (DeadlineError, CallerLimitError, asyncio.CancelledError):
                pass

    desks = [asyncio.create_task(answering()) for _ in range(2)]
    await asyncio.wait_for(asyncio.gather(*[caller(number) for number in range(64)]), PATIENCE)
    for _ in range(20):
        await asyncio.sleep(0)
    assert made > 500
    assert scene.idle()
    assert not scene.tasks._outstanding
    for desk in desks:
        desk.cancel()

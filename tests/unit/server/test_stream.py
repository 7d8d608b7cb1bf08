"""SignStream: answers in any order, errors one by one, and no caller that costs more than its window."""

from __future__ import annotations

import asyncio
import hashlib

import grpc
import pytest

from hsmsign.model.device import SignOrder, SignOutcome
from hsmsign.v1 import keys_pb2, signing_pb2
from tests.support.statuses import read, refusal

DIGEST = hashlib.sha256(b"hello").digest()


def request(id: int, *inputs: bytes, **more) -> signing_pb2.SignStreamRequest:
    group = signing_pb2.SignGroup(**{"name": "keys/web-1", "inputs": inputs or [DIGEST], **more})
    return signing_pb2.SignStreamRequest(id=id, group=group)


@pytest.fixture
async def stream(daemon):
    await daemon.keys.CreateKey(keys_pb2.CreateKeyRequest(key_id="web-1", algorithm=1))
    call = daemon.signing.SignStream()
    yield call
    call.cancel()


async def quiet(value) -> int:
    """What `value` comes to once it has stopped changing."""
    last = -1
    while (now := value()) != last:
        last = now
        await asyncio.sleep(0.1)
    return last


async def test_every_request_is_answered_with_its_id(stream) -> None:
    for id in range(30):
        await stream.write(request(id, DIGEST, DIGEST))
    await stream.done_writing()
    answers = [answer async for answer in stream]
    assert sorted(answer.id for answer in answers) == list(range(30))
    assert all(len(answer.result.signatures) == 2 for answer in answers)
    assert await stream.code() is grpc.StatusCode.OK


async def test_a_slow_request_does_not_hold_up_the_others(stream, daemon) -> None:
    sign = daemon.device.sign
    gate = asyncio.Event()

    async def sometimes_slow(order):
        if order.inputs[0] == b"\0" * 32:
            await gate.wait()
        return await sign(order)

    daemon.device.sign = sometimes_slow
    await stream.write(request(1, b"\0" * 32))
    await stream.write(request(2))
    assert (await stream.read()).id == 2
    gate.set()
    assert (await stream.read()).id == 1


async def test_a_bad_request_is_answered_and_the_stream_goes_on(stream) -> None:
    bad = [
        request(1, name="keys/none"),
        request(2, name="nonsense"),
        request(3, b"short"),
        request(4, scheme=99),
        request(5, inputs_crc32c=1),
        request(6, *[DIGEST] * 101),
        signing_pb2.SignStreamRequest(id=7),
        request(8),
    ]
    for one in bad:
        await stream.write(one)
    await stream.done_writing()
    answers = {answer.id: answer.result async for answer in stream}
    reasons = {id: read(answer.status).reason for id, answer in answers.items() if answer.HasField("status")}
    assert reasons == {
        1: "KEY_NOT_FOUND",
        2: "NAME_INVALID",
        4: "INVALID_ARGUMENT",
        5: "INPUT_CORRUPTED",
        6: "BATCH_SIZE",
        7: "BATCH_SIZE",
    }
    assert read(answers[3].failures[0].status).reason == "DIGEST_LENGTH"
    assert answers[8].signatures[0]


async def test_a_fault_inside_is_the_answer_of_one_request(stream, daemon) -> None:
    sign = daemon.device.sign

    async def broken(order):
        daemon.device.sign = sign
        raise RuntimeError("secret detail")

    daemon.device.sign = broken
    await stream.write(request(1))
    answer = await stream.read()
    assert (answer.id, read(answer.result.status).code) == (1, "INTERNAL")
    assert b"secret" not in answer.SerializeToString()
    await stream.write(request(2))
    assert (await stream.read()).result.signatures


async def test_no_more_than_the_window_is_read_before_answers_go_out(stream, daemon, limits) -> None:
    daemon.device.gate = asyncio.Event()
    for id in range(20):
        await stream.write(request(id))
    assert await quiet(lambda: daemon.device.flying) == limits.stream_window
    daemon.device.gate.set()
    assert sorted([(await stream.read()).id for _ in range(20)]) == list(range(20))


async def test_a_request_larger_than_the_window_waits_until_it_is_alone(stream, daemon, limits) -> None:
    daemon.device.gate = asyncio.Event()
    await stream.write(request(1))
    await stream.write(request(2, *[DIGEST] * (limits.stream_window * 3)))
    assert await quiet(lambda: daemon.device.flying) == 1
    daemon.device.gate.set()
    assert [(await stream.read()).id for _ in range(2)] == [1, 2]


async def test_a_caller_that_never_reads_is_read_no_further(stream, daemon) -> None:
    """Its answers (7 kB each) fill what the transport holds; from then on nothing more is taken."""
    taken = 0

    async def sign(order: SignOrder) -> SignOutcome:
        nonlocal taken
        taken += 1
        return SignOutcome([b"s" * 71] * len(order.inputs))

    daemon.device.sign = sign

    async def write_on() -> None:
        for id in range(100_000):
            await stream.write(request(id, *[DIGEST] * 100))

    writing = asyncio.create_task(write_on())
    stuck = await quiet(lambda: taken)
    assert not writing.done()
    assert 0 < stuck < 10_000
    for _ in range(stuck):
        await stream.read()
    assert await quiet(lambda: taken) > stuck
    writing.cancel()


async def test_a_caller_that_goes_away_takes_its_requests_out_of_the_queue(stream, daemon) -> None:
    daemon.device.gate = asyncio.Event()
    for id in range(3):
        await stream.write(request(id))
    assert await quiet(lambda: daemon.device.flying) == 3
    stream.cancel()
    assert await quiet(lambda: daemon.device.flying) == 0
    assert daemon.device.cancelled == 3


async def test_a_stopping_daemon_answers_what_it_has_read_and_then_ends_the_stream(stream, daemon) -> None:
    daemon.device.gate = asyncio.Event()
    await stream.write(request(1))
    assert await quiet(lambda: daemon.device.flying) == 1
    stopping = asyncio.create_task(daemon.app.stop(10))
    await asyncio.sleep(0.05)
    daemon.device.gate.set()
    assert (await stream.read()).id == 1
    said = await refusal(stream.read())
    assert said.code == "UNAVAILABLE"
    await stopping


async def test_bytes_that_are_no_request_end_the_stream_with_invalid_argument(daemon) -> None:
    call = daemon.channel.stream_stream("/hsmsign.v1.SigningService/SignStream")()
    await call.write(b"\xff\xff\xff")
    assert (await refusal(call.read())).code == "INVALID_ARGUMENT"

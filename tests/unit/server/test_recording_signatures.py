"""What stands in the audit log of signatures: also of what could not be read, was too much, or was nothing at all."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from hsmsign.v1 import keys_pb2, signing_pb2
from tests.support.statuses import read, refusal
from tests.unit.server.recorded import Kept, reached

DIGEST = hashlib.sha256(b"hello").digest()
UNKNOWN = 99
OVER = [DIGEST] * 101


@pytest.fixture
def audit() -> Kept:
    return Kept()


@pytest.fixture
async def web(daemon, audit: Kept):
    """A daemon with a key, and nothing recorded yet."""
    await daemon.keys.CreateKey(keys_pb2.CreateKeyRequest(key_id="web-1", algorithm=1))
    audit.calls.clear()
    return daemon


def group(*inputs: bytes, **more) -> signing_pb2.SignGroup:
    return signing_pb2.SignGroup(**{"name": "keys/web-1", "inputs": inputs or [DIGEST], **more})


async def test_groups_of_a_batch_that_cannot_be_read_are_recorded_once_each(web, audit: Kept) -> None:
    groups = [group(scheme=UNKNOWN), group(), group(format=UNKNOWN, name="keys/web-2"), group(kind=UNKNOWN)]
    answer = await web.signing.SignBatch(signing_pb2.SignBatchRequest(groups=groups))
    assert [read(one.status).reason if one.HasField("status") else "" for one in answer.groups] == [
        "INVALID_ARGUMENT",
        "",
        "INVALID_ARGUMENT",
        "INVALID_ARGUMENT",
    ]
    assert sorted(audit.said()) == [
        ("SignBatch", "keys/web-1", "INVALID_ARGUMENT"),
        ("SignBatch", "keys/web-1", "INVALID_ARGUMENT"),
        ("SignBatch", "keys/web-2", "INVALID_ARGUMENT"),
    ]
    assert [(one.name, one.outcome) for one in audit.groups] == [("keys/web-1/versions/1", "OK")]


@pytest.mark.parametrize(
    "groups",
    [
        pytest.param([], id="empty"),
        pytest.param([group(*OVER)], id="too many inputs"),
        pytest.param([group(scheme=UNKNOWN)] * 101, id="too many groups that cannot be read"),
        pytest.param([group(scheme=UNKNOWN), group(*OVER)], id="both"),
    ],
)
async def test_a_batch_that_is_refused_as_a_whole_is_one_record(web, audit: Kept, groups: list) -> None:
    assert (await refusal(web.signing.SignBatch(signing_pb2.SignBatchRequest(groups=groups)))).reason == "BATCH_SIZE"
    assert audit.said() == [("SignBatch", "", "BATCH_SIZE")]
    assert audit.groups == []


async def answers(daemon, *groups: signing_pb2.SignGroup) -> list[signing_pb2.SignStreamResponse]:
    call = daemon.signing.SignStream()
    for id, one in enumerate(groups):
        await call.write(signing_pb2.SignStreamRequest(id=id, group=one))
    await call.done_writing()
    return [answer async for answer in call]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        pytest.param(group(scheme=UNKNOWN), "INVALID_ARGUMENT", id="scheme"),
        pytest.param(group(format=UNKNOWN), "INVALID_ARGUMENT", id="format"),
        pytest.param(group(kind=UNKNOWN), "INVALID_ARGUMENT", id="kind"),
        pytest.param(group(*OVER), "BATCH_SIZE", id="too large"),
    ],
)
async def test_a_group_of_a_stream_that_is_not_even_tried_is_recorded_once(
    web, audit: Kept, bad: signing_pb2.SignGroup, reason: str
) -> None:
    got = {answer.id: answer.result for answer in await answers(web, bad, group())}
    assert read(got[0].status).reason == reason
    assert got[1].signatures
    assert audit.said() == [("SignStream", "keys/web-1", reason)]
    assert [one.outcome for one in audit.groups] == ["OK"]


async def test_a_stream_without_a_group_is_recorded(web, audit: Kept) -> None:
    assert await answers(web) == []
    await reached(lambda: audit.calls)
    assert audit.said() == [("SignStream", "", "OK")]


async def test_a_stream_without_a_group_that_is_cancelled_is_recorded(web, audit: Kept) -> None:
    for number in range(1, 101):
        call = web.signing.SignStream()
        await reached(lambda: web.app.active() == 1)
        call.cancel()
        await reached(lambda: len(audit.calls) == number)  # noqa: B023 - called here
    assert audit.said() == [("SignStream", "", "CANCELLED")] * 100
    assert web.app.active() == 0


async def test_a_stream_that_signs_is_recorded_by_its_groups_alone(web, audit: Kept) -> None:
    await answers(web, group(), group())
    assert [one.outcome for one in audit.groups] == ["OK", "OK"]
    await reached(lambda: web.app.active() == 0)
    assert audit.calls == []


async def test_a_cancelled_signature_is_one_record(web, audit: Kept) -> None:
    web.device.gate = asyncio.Event()
    call = web.signing.Sign(signing_pb2.SignRequest(name="keys/web-1", digest=DIGEST))
    await reached(lambda: web.device.flying == 1)
    call.cancel()
    await reached(lambda: audit.groups)
    await reached(lambda: web.app.active() == 0)
    assert [(one.name, one.outcome) for one in audit.groups] == [("keys/web-1", "CANCELLED")]
    assert audit.calls == []


@pytest.mark.parametrize("method", ["Sign", "SignBatch", "SignStream"])
async def test_a_fault_inside_is_recorded_once(web, audit: Kept, method: str) -> None:
    async def broken(order, **more):
        raise RuntimeError("secret detail")

    web.device.sign = broken
    if method == "Sign":
        await refusal(web.signing.Sign(signing_pb2.SignRequest(name="keys/web-1", digest=DIGEST)))
    elif method == "SignBatch":
        await refusal(web.signing.SignBatch(signing_pb2.SignBatchRequest(groups=[group()])))
    else:
        await answers(web, group())
    assert [(one.method, one.outcome) for one in audit.calls] == [(method, "INTERNAL")]
    assert audit.groups == []

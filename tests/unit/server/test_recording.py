"""What stands in the audit log of calls: also of those that nobody waited for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

import grpc
import pytest

from hsmsign.model.caller import Caller
from hsmsign.model.errors import DeviceUnavailableError, UnauthenticatedError
from hsmsign.server.tracing import Ended
from hsmsign.signing import Limits
from hsmsign.v1 import (
    approvals_pb2,
    audit_pb2,
    authorities_pb2,
    backends_pb2,
    keys_pb2,
    signing_pb2,
)
from tests.support.statuses import refusal
from tests.unit.server.recorded import Kept, reached

P256 = 1


@dataclass
class Spans:
    """Traces in memory: how each call ended, whenever that was said."""

    ends: list[Ended] = field(default_factory=list)
    open: int = 0

    @contextlib.contextmanager
    def call(self, service: str, method: str, metadata: object) -> Iterator[Spans]:
        self.open += 1
        yield self
        self.open -= 1

    def ended(self, how: Ended) -> None:
        self.ends.append(how)


@pytest.fixture
def audit() -> Kept:
    return Kept()


@pytest.fixture
def tracing() -> Spans:
    return Spans()


@pytest.fixture
def limits() -> Limits:
    return Limits(max_message_bytes=1000, max_batch_items=100, stream_window=8, max_calls_per_caller=3)


@pytest.fixture
def who() -> list[Caller]:
    """Who calls: the last of them; somebody who proves nothing, where there is none."""
    return [Caller("spiffe://corp/ann")]


@pytest.fixture
def identify(who: list[Caller]):
    def identify(context: object) -> Caller:
        if not who:
            raise UnauthenticatedError("the caller did not prove who it is", hint="come with a certificate")
        return who[-1]

    return identify


def create(daemon, id: str = "web-1", **more):
    request = keys_pb2.CreateKeyRequest(key_id=id, algorithm=P256)
    return daemon.keys.CreateKey(request, **more)


async def hang_up(daemon, call) -> None:
    """Cancel a call, and wait until its handler has heard of it."""
    call.cancel()
    with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
        await call
    # what is sent later on the same connection is heard later
    with contextlib.suppress(grpc.aio.AioRpcError):
        await daemon.channel.unary_unary("/nothing/Here")(b"")
    await asyncio.sleep(0.05)


Held = Callable[..., asyncio.Event]


@pytest.fixture
async def held(daemon) -> AsyncIterator[Held]:
    """Have the device do something only when it is told to go on: at the latest when the test is over."""
    gates = []

    def hold(what: str, then: Exception | None = None) -> asyncio.Event:
        gates.append(gate := asyncio.Event())
        does = getattr(daemon.device, what)

        async def wait(*args, **more):
            daemon.device.calls.append(f"held {what}")
            await gate.wait()
            if then is not None:
                raise then
            return await does(*args, **more)

        setattr(daemon.device, what, wait)
        return gate

    yield hold
    for gate in gates:
        gate.set()


# ---- calls that change something


@pytest.mark.parametrize("how", ["cancelled", "deadline"])
async def test_a_change_whose_caller_does_not_wait_is_made_and_recorded(
    daemon, held: Held, audit: Kept, how: str
) -> None:
    gate = held("generate")
    if how == "cancelled":
        call = create(daemon)
        await reached(lambda: "held generate" in daemon.device.calls)
        await hang_up(daemon, call)
    else:
        said = await refusal(create(daemon, timeout=0.2))
        assert said.code == "DEADLINE_EXCEEDED"
    assert (audit.said(), daemon.app.active()) == ([], 1)
    gate.set()
    await reached(lambda: daemon.app.active() == 0)
    assert audit.said() == [("CreateKey", "keys/web-1", "OK")]
    assert audit.calls[0].principal == "spiffe://corp/ann"
    assert (await daemon.keyring.get("keys/web-1")).row.id == "web-1"


async def test_an_approval_that_was_used_up_is_recorded_though_the_caller_has_gone(
    daemon, held: Held, audit: Kept, who
) -> None:
    request = keys_pb2.CreateKeyRequest(key_id="root", algorithm=P256)
    request.dual_control.approvals = 1
    await daemon.keys.CreateKey(request)
    destroy = keys_pb2.DestroyKeyRequest(name="keys/root")
    approval = (await refusal(daemon.keys.DestroyKey(destroy))).metadata["approval"]
    who.append(Caller("spiffe://corp/officer"))
    await daemon.approvals.GrantApproval(approvals_pb2.GrantApprovalRequest(name=approval))
    who.pop()
    gate = held("destroy")
    call = daemon.keys.DestroyKey(destroy)
    await reached(lambda: "held destroy" in daemon.device.calls)
    await hang_up(daemon, call)
    gate.set()
    await reached(lambda: daemon.app.active() == 0)
    assert [(one.method, one.outcome, one.approval) for one in audit.calls[1:]] == [
        ("DestroyKey", "APPROVAL_REQUIRED", approval),
        ("GrantApproval", "OK", ""),
        ("DestroyKey", "OK", approval),
    ]


async def test_a_decision_about_an_approval_is_recorded_though_the_caller_has_gone(
    daemon, audit: Kept, who, monkeypatch
) -> None:
    request = keys_pb2.CreateKeyRequest(key_id="root", algorithm=P256)
    request.dual_control.approvals = 1
    await daemon.keys.CreateKey(request)
    approval = (await refusal(daemon.keys.DestroyKey(keys_pb2.DestroyKeyRequest(name="keys/root")))).metadata[
        "approval"
    ]
    who.append(Caller("spiffe://corp/officer"))
    gate, begun, decide = asyncio.Event(), asyncio.Event(), daemon.asked.decide

    async def slow(*args, **more):
        begun.set()
        await gate.wait()
        return await decide(*args, **more)

    monkeypatch.setattr(daemon.asked, "decide", slow)
    call = daemon.approvals.GrantApproval(approvals_pb2.GrantApprovalRequest(name=approval))
    await reached(begun.is_set)
    await hang_up(daemon, call)
    gate.set()
    await reached(lambda: daemon.app.active() == 0)
    assert audit.said()[-1] == ("GrantApproval", approval, "OK")
    assert (await daemon.asked.get(approval)).state.value == "granted"


async def test_a_change_that_fails_is_recorded_with_its_reason_though_the_caller_has_gone(
    daemon, held: Held, audit: Kept
) -> None:
    gate = held("generate", DeviceUnavailableError("away", retry_after=1.0))
    call = create(daemon)
    await reached(lambda: "held generate" in daemon.device.calls)
    await hang_up(daemon, call)
    gate.set()
    await reached(lambda: audit.calls)
    assert audit.said() == [("CreateKey", "keys/web-1", "DEVICE_UNAVAILABLE")]
    assert daemon.app.active() == 0


async def test_a_stopping_daemon_waits_for_changes_whose_callers_have_gone(daemon, held: Held, audit: Kept) -> None:
    gate = held("generate")
    call = create(daemon)
    await reached(lambda: "held generate" in daemon.device.calls)
    await hang_up(daemon, call)
    stopping = asyncio.create_task(daemon.app.stop(30))
    await asyncio.sleep(0.05)
    assert not stopping.done()
    gate.set()
    await stopping
    assert audit.said() == [("CreateKey", "keys/web-1", "OK")]


async def test_a_stopping_daemon_waits_until_a_refused_change_is_recorded(daemon, audit: Kept) -> None:
    audit.gate = asyncio.Event()
    call = create(daemon, "NO")
    await reached(lambda: audit.calls)
    await hang_up(daemon, call)
    stopping = asyncio.create_task(daemon.app.stop(30))
    await asyncio.sleep(0.05)
    assert not stopping.done()
    audit.gate.set()
    await stopping


async def test_changes_that_nobody_waits_for_count_among_their_callers_calls(
    daemon, held: Held, audit: Kept, limits
) -> None:
    gate = held("generate")
    for number in range(limits.max_calls_per_caller):
        call = create(daemon, f"web-{number}")
        await reached(lambda number=number: daemon.device.calls.count("held generate") == number + 1)
        await hang_up(daemon, call)
    assert daemon.app.active() == 3
    assert (await refusal(create(daemon, "web-9"))).reason == "CALLER_LIMIT"
    gate.set()
    await reached(lambda: daemon.app.active() == 0)
    await create(daemon, "web-9")
    assert daemon.app.active() == 0
    assert [one.outcome for one in audit.calls] == ["CALLER_LIMIT", "OK", "OK", "OK", "OK"]


async def test_the_span_of_a_change_ends_once_with_what_came_of_it(daemon, held: Held, tracing: Spans) -> None:
    gate = held("generate")
    call = create(daemon)
    await reached(lambda: "held generate" in daemon.device.calls)
    await hang_up(daemon, call)
    assert (tracing.ends, tracing.open) == ([], 1)
    gate.set()
    await reached(lambda: tracing.open == 0)
    assert [(one.code, one.caller) for one in tracing.ends] == [("OK", "spiffe://corp/ann")]
    assert (await refusal(create(daemon))).reason == "KEY_EXISTS"
    assert [one.reason for one in tracing.ends] == ["", "KEY_EXISTS"]


async def test_whoever_proves_nothing_is_recorded_by_where_it_came_from(daemon, audit: Kept, who) -> None:
    who.clear()
    assert (await refusal(create(daemon))).code == "UNAUTHENTICATED"
    assert audit.said() == [("CreateKey", "", "UNAUTHENTICATED")]
    assert audit.calls[0].peer.startswith("ipv4:127.0.0.1:")
    assert daemon.app.active() == 0


def test_only_calls_that_change_nothing_may_be_cut_short() -> None:
    from hsmsign.server.guard import _is_kept

    files = (approvals_pb2, audit_pb2, authorities_pb2, backends_pb2, keys_pb2, signing_pb2)
    services = [service for file in files for service in file.DESCRIPTOR.services_by_name.values()]
    methods = [method for service in services for method in service.methods if not method.server_streaming]
    assert {method.name for method in methods if not _is_kept(method)} == {
        *("Sign", "SignBatch", "Verify"),
        *("GetKey", "ListKeys", "GetPublicKey", "GetApproval", "ListApprovals", "ListBackends"),
        *("GetCheckpoint", "ProveRecord"),
        *("GetAuthority", "ListAuthorities", "GetCertificate", "ListCertificates", "ListProfiles"),
        *("GetOcspResponse", "GetTrustBundle"),
    }


# ---- calls that change nothing


async def test_a_call_that_only_reads_ends_with_its_caller_and_is_recorded_as_cancelled(
    daemon, audit: Kept, tracing: Spans, monkeypatch
) -> None:
    begun = asyncio.Event()

    async def never(name: str):
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(daemon.keyring, "get", never)
    call = daemon.keys.GetKey(keys_pb2.GetKeyRequest(name="keys/web-1"))
    await reached(begun.is_set)
    call.cancel()
    await reached(lambda: daemon.app.active() == 0)
    await reached(lambda: audit.calls)
    assert audit.said() == [("GetKey", "keys/web-1", "CANCELLED")]
    assert [one.code for one in tracing.ends] == ["CANCELLED"]


async def test_a_call_that_is_cancelled_while_it_is_recorded_has_one_record(daemon, audit: Kept) -> None:
    await create(daemon)
    audit.gate = asyncio.Event()
    call = daemon.keys.GetKey(keys_pb2.GetKeyRequest(name="keys/web-1"))
    await reached(lambda: len(audit.calls) == 2)
    await hang_up(daemon, call)
    await reached(lambda: daemon.app.active() == 0)
    assert audit.said()[1:] == [("GetKey", "keys/web-1", "OK")]

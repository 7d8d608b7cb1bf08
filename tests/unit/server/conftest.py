from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
import pytest

from hsmsign.audit.auditing import Audit, NoAudit
from hsmsign.keyring import Keyring
from hsmsign.keyring.approvals import Approvals
from hsmsign.model.caller import Caller
from hsmsign.policy import Policy
from hsmsign.server.app import Application, build
from hsmsign.server.tracing import Tracing
from hsmsign.signing import Admission, Limits, SigningPipeline
from hsmsign.signing.places import Places
from hsmsign.store import Store
from hsmsign.v1 import approvals_pb2_grpc, backends_pb2_grpc, keys_pb2_grpc, signing_pb2_grpc
from tests.support import policies
from tests.support.fake_device import FakeDevice


@dataclass
class Daemon:
    """A server on a port of the loopback and on a Unix socket, and a channel to it."""

    app: Application
    keyring: Keyring
    device: FakeDevice
    target: str
    unix: str
    channel: grpc.aio.Channel
    asked: Approvals
    """What the approval service works with."""

    def __post_init__(self) -> None:
        self.approvals = approvals_pb2_grpc.ApprovalServiceStub(self.channel)
        self.keys = keys_pb2_grpc.KeyServiceStub(self.channel)
        self.signing = signing_pb2_grpc.SigningServiceStub(self.channel)
        self.backends = backends_pb2_grpc.BackendServiceStub(self.channel)


@pytest.fixture
def limits() -> Limits:
    return Limits(max_message_bytes=1000, max_batch_items=100, stream_window=8)


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice()


@pytest.fixture
def identify():
    return lambda context: Caller("test")


@pytest.fixture
def audit() -> Audit:
    return NoAudit()


@pytest.fixture
def tracing() -> Tracing | None:
    return None


@pytest.fixture
async def daemon(
    tmp_path, device: FakeDevice, limits: Limits, identify, audit: Audit, tracing: Tracing | None
) -> AsyncIterator[Daemon]:
    store = Store.open(f"sqlite:///{tmp_path}/store.db")
    devices = {"soft": device}
    keyring = Keyring(store, devices, "soft")
    policy = Policy(policies.EVERYTHING)
    app = build(
        keyring=keyring,
        pipeline=SigningPipeline(
            keyring,
            Places(devices, limits.max_in_flight),
            limits,
            policy,
            Admission((), limits.max_in_flight_per_caller),
            audit,
            Approvals(store),
        ),
        policy=policy,
        devices=devices,
        default_backend="soft",
        limits=limits,
        version="1.2.3",
        audit=audit,
        approvals=(approvals := Approvals(store)),
        audit_log=(None, "audit-log"),
        identify=identify,
        tracing=tracing,
    )
    port = app.server.add_insecure_port("127.0.0.1:0")
    unix = f"unix://{tmp_path}/d.sock"
    app.server.add_insecure_port(unix)
    await app.server.start()
    app.set_serving(True)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Daemon(app, keyring, device, f"127.0.0.1:{port}", unix, channel, approvals)
    await app.stop(0)
    await keyring.close()
    store.close()

"""Health, and how the daemon stops."""

from __future__ import annotations

import asyncio

from grpc_health.v1 import health_pb2, health_pb2_grpc

from hsmsign.model.device import DeviceState
from hsmsign.v1 import keys_pb2, signing_pb2
from tests.support.statuses import refusal

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
SIGN = signing_pb2.SignRequest(name="keys/web-1", digest=b"x" * 32)


async def status(daemon, service: str) -> int:
    stub = health_pb2_grpc.HealthStub(daemon.channel)
    return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status


async def test_health_follows_the_daemon_and_every_backend(daemon) -> None:
    services = ["", "hsmsign.v1.KeyService", "hsmsign.v1.SigningService", "hsmsign.v1.BackendService"]
    assert [await status(daemon, one) for one in [*services, "backends/soft"]] == [SERVING] * 5
    daemon.device.become(DeviceState.TOKEN_NOT_PRESENT)
    assert await status(daemon, "backends/soft") == NOT_SERVING
    assert await status(daemon, "") == SERVING
    daemon.device.become(DeviceState.READY)
    assert await status(daemon, "backends/soft") == SERVING
    daemon.app.set_serving(False)
    assert [await status(daemon, one) for one in services] == [NOT_SERVING] * 4
    stub = health_pb2_grpc.HealthStub(daemon.channel)
    assert (await refusal(stub.Check(health_pb2.HealthCheckRequest(service="backends/none")))).code == "NOT_FOUND"


async def test_who_watches_is_told_at_once(daemon) -> None:
    watching = health_pb2_grpc.HealthStub(daemon.channel).Watch(health_pb2.HealthCheckRequest(service="backends/soft"))
    assert (await watching.read()).status == SERVING
    daemon.device.become(DeviceState.HEALING)
    assert (await watching.read()).status == NOT_SERVING
    watching.cancel()


async def test_a_stopping_daemon_finishes_what_is_under_way_and_takes_nothing_new(daemon) -> None:
    await daemon.keys.CreateKey(keys_pb2.CreateKeyRequest(key_id="web-1", algorithm=1))
    watching = health_pb2_grpc.HealthStub(daemon.channel).Watch(health_pb2.HealthCheckRequest(service=""))
    assert (await watching.read()).status == SERVING
    daemon.device.gate = asyncio.Event()
    waiting = asyncio.ensure_future(daemon.signing.Sign(SIGN))
    while daemon.device.flying == 0:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    stopping = asyncio.create_task(daemon.app.stop(30))
    assert (await watching.read()).status == NOT_SERVING
    said = await refusal(daemon.signing.Sign(SIGN))
    assert (said.code, said.retry) == ("UNAVAILABLE", 1.0)
    assert not waiting.done()
    daemon.device.gate.set()
    assert (await waiting).signature
    await stopping


async def test_a_call_that_does_not_end_does_not_keep_the_daemon(daemon) -> None:
    await daemon.keys.CreateKey(keys_pb2.CreateKeyRequest(key_id="web-1", algorithm=1))
    daemon.device.gate = asyncio.Event()
    waiting = asyncio.ensure_future(daemon.signing.Sign(SIGN))
    while daemon.device.flying == 0:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    await daemon.app.stop(0.1)
    assert (await refusal(waiting)).code in ("UNAVAILABLE", "CANCELLED")
    assert daemon.device.cancelled == 1

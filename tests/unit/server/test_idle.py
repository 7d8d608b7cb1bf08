"""Connections on which nothing is under way: they end, and nobody who calls again notices."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import hsmsign
import hsmsign.aio
from hsmsign.server import app
from hsmsign.signing import Limits
from hsmsign.v1 import keys_pb2, signing_pb2

DIGEST = hashlib.sha256(b"hello").digest()
IDLE = 0.3
"""Seconds, instead of the minutes that a daemon gives."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
"""RFC 9113, section 3.4, with an empty SETTINGS frame: all that HTTP/2 wants before the first call."""


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Limits:
    options = app._options

    def hasty(limits: Limits) -> list[tuple[str, int]]:
        return [(name, int(IDLE * 1000) if "idle" in name else value) for name, value in options(limits)]

    monkeypatch.setattr(app, "_options", hasty)
    return Limits()


async def left(channel: grpc.aio.Channel) -> None:
    """Wait until a channel that was connected is not any more."""
    async with asyncio.timeout(30):
        while (state := channel.get_state()) is grpc.ChannelConnectivity.READY:
            await channel.wait_for_state_change(state)


async def test_a_connection_that_calls_nothing_ends(daemon) -> None:
    async with grpc.aio.insecure_channel(daemon.target) as channel:
        async with asyncio.timeout(30):
            channel.get_state(try_to_connect=True)
            await channel.channel_ready()
        await left(channel)


async def test_a_connection_that_only_greets_ends(daemon) -> None:
    host, port = daemon.target.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(PREFACE)
    async with asyncio.timeout(30):
        with contextlib.suppress(ConnectionError):
            while await reader.read(4096):
                pass
    writer.close()


async def test_who_calls_again_after_the_connection_ended_notices_nothing(daemon) -> None:
    await daemon.keys.CreateKey(keys_pb2.CreateKeyRequest(key_id="web", algorithm=1))

    never = threading.Event()

    def blocking() -> None:
        with hsmsign.connect(daemon.unix) as client:
            for pause in (IDLE * 2, IDLE, IDLE, 0):
                assert client.sign("web", digest=DIGEST).value
                never.wait(pause)

    thread = asyncio.create_task(asyncio.to_thread(blocking))
    async with hsmsign.aio.connect(daemon.unix) as client:
        for pause in (IDLE * 2, IDLE, IDLE, 0):
            assert (await client.sign("web", digest=DIGEST)).value
            await asyncio.sleep(pause)
    await thread


async def test_what_takes_longer_than_a_connection_may_be_idle_is_left_alone(daemon) -> None:
    await daemon.keys.CreateKey(keys_pb2.CreateKeyRequest(key_id="web", algorithm=1))
    async with grpc.aio.insecure_channel(daemon.target) as channel:
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=""))
        await watching.read()
        daemon.device.gate = asyncio.Event()
        signing = asyncio.ensure_future(daemon.signing.Sign(signing_pb2.SignRequest(name="keys/web", digest=DIGEST)))
        await asyncio.sleep(IDLE * 4)
        assert channel.get_state() is grpc.ChannelConnectivity.READY
        assert not watching.done()
        daemon.device.gate.set()
        assert (await signing).signature
        watching.cancel()

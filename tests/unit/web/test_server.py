"""An HTTP port among strangers who are slow, silent or many."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from hsmsign.model.tls import TlsPaths
from hsmsign.web.connection import _origin
from tests.support.authority import Authority
from tests.support.daemon import eventually
from tests.unit.web.conftest import Port, get, until, until_the_end

HASTY = 0.5
"""Seconds of patience, instead of twenty."""
LARGE = 32 << 20
"""More than a kernel takes of an answer that nobody reads."""
Open = Callable[..., Port]


async def short(_: Request) -> Response:
    return Response("good")


async def late(_: Request) -> Response:
    await asyncio.sleep(3 * HASTY)
    return Response("good")


async def whole(_: Request) -> Response:
    return Response(bytes(LARGE))


async def parts(_: Request) -> Response:
    async def made() -> AsyncIterator[bytes]:
        for _ in range(LARGE >> 16):
            yield bytes(1 << 16)

    return StreamingResponse(made(), headers={"content-length": str(LARGE)})


async def body(request: Request) -> Response:
    try:
        return Response(str(len(await request.body())))
    except ClientDisconnect:
        return Response(status_code=400)


async def deaf(_: Request) -> Response:
    return Response("no", 415)


APPLICATION = Starlette(
    routes=[
        Route("/", short),
        Route("/late", late),
        Route("/whole", whole),
        Route("/parts", parts),
        Route("/body", body, methods=["POST"]),
        Route("/deaf", deaf, methods=["POST"]),
        Route("/late-post", late, methods=["POST"]),
    ]
)


@pytest.fixture
def port() -> Iterator[Open]:
    with contextlib.ExitStack() as stack:

        def opened(connections: int = 64, patience: float = HASTY, tls: TlsPaths | None = None) -> Port:
            made = Port(APPLICATION, connections=connections, tls=tls, patience=patience)
            return stack.enter_context(made)

        yield opened


def test_who_connects_and_says_nothing_is_sent_away(port: Open) -> None:
    open = port(16)
    held = [open.call() for _ in range(3)]
    assert [until_the_end(one) for one in held] == [b"", b"", b""]
    assert b"good" in open.send(get())


@pytest.mark.parametrize(
    "start", [b"GET / HTTP/1.1\r\nX: ", b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n"]
)
def test_a_byte_now_and_then_is_no_request(port: Open, start: bytes) -> None:
    one = port().call()
    one.sendall(start)
    with contextlib.suppress(ConnectionError):
        for _ in range(300):
            one.sendall(b"x")
            time.sleep(0.1)
        pytest.fail("it goes on for ever")


@pytest.mark.usefixtures("quiet")
def test_a_body_that_does_not_come_ends_the_wait_for_it(port: Open) -> None:
    open = port()
    assert open.send(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab") == b""
    eventually(lambda: open.open == 0 and not open.server._server.server_state.tasks)


@pytest.mark.parametrize("path", ["/whole", "/parts"])
@pytest.mark.usefixtures("quiet")
def test_who_does_not_read_an_answer_is_sent_away(port: Open, path: str) -> None:
    open = port()
    one = open.call(buffer=4096)
    one.sendall(get(path))
    eventually(lambda: open.open == 1)
    eventually(lambda: open.open == 0, "it holds its place")
    assert len(until_the_end(one)) < LARGE


@pytest.mark.parametrize("path", ["/whole", "/parts"])
def test_who_reads_slowly_gets_all_of_it(port: Open, path: str) -> None:
    one = port(patience=2.0).call(buffer=4096)
    one.sendall(get(path))
    size = 0
    for turn in range(1 << 20):
        if turn < 40:
            time.sleep(0.1)
        data = one.recv(1 << 17, socket.MSG_WAITALL)
        size += len(data)
        if not data:
            break
    assert size > LARGE


def test_an_answer_may_take_us_longer_than_a_request_takes_them(port: Open) -> None:
    open = port()
    assert b"good" in open.send(get("/late"))
    assert b"good" in open.send(
        b"POST /late-post HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab"
    )
    assert open.send(get("/late", close=False) + get("/late")).count(b"good") == 2


def test_a_connection_on_which_requests_come_is_kept(port: Open) -> None:
    with port().call() as one:
        for _ in range(8):
            one.sendall(get(close=False))
            assert b"good" in until(one, b"good")
            time.sleep(HASTY / 4)


def test_one_address_has_a_quarter_of_the_connections(port: Open) -> None:
    open = port(16, 20.0)
    held = [open.call() for _ in range(4)]
    eventually(lambda: open.open == 4)
    assert open.send(get()) == b""
    assert b"good" in open.send(get(), source="127.0.0.2")
    held.pop().close()
    eventually(lambda: open.open == 3)
    assert b"good" in open.send(get())


def test_no_more_connections_are_held_than_there_may_be(port: Open) -> None:
    open = port(16, 20.0)
    held = [open.call(source=f"127.0.0.{turn % 5 + 2}") for turn in range(15)]
    eventually(lambda: open.open == 15)
    assert open.send(get()).startswith(b"HTTP/1.1 503")
    held.append(open.call())
    eventually(lambda: open.open == 16)
    assert open.send(get()) == b""
    assert open.open == 16
    for one in held:
        one.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"GET /late HTTP/1.1\r\nHost: x\r\n\r\nnonsense\r\n\r\n",
        b"POST /late-post HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n\r\n",
        b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\nnonsense\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://x:y/\x7f HTTP/1.0\r\n\r\n",
    ],
)
@pytest.mark.usefixtures("quiet")
def test_what_is_no_request_leaves_no_traceback(port: Open, sent: bytes) -> None:
    open = port()
    assert b" 500 " not in open.send(sent)
    with open.call() as one:
        one.sendall(sent)
    eventually(lambda: open.open == 0 and not open.server._server.server_state.tasks)
    assert open.faults == []
    assert b"good" in open.send(get())


@pytest.mark.usefixtures("quiet")
def test_nonsense_after_the_answer_leaves_no_traceback(port: Open) -> None:
    open = port()
    with open.call() as one:
        one.sendall(b"POST /deaf HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
        assert b" 415 " in until(one, b"no")
        one.sendall(b"nonsense\r\n")
        assert until_the_end(one) == b""
    eventually(lambda: open.open == 0)
    assert open.faults == []


@pytest.fixture
def tls(tmp_path: Path) -> TlsPaths:
    authority = Authority()
    key, certificate = authority.issue(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    for name, content in (("key", key), ("certificate", certificate), ("ca", authority.pem)):
        (tmp_path / name).write_bytes(content)
    return TlsPaths(tmp_path / "certificate", tmp_path / "key", tmp_path / "ca")


def test_a_handshake_that_is_not_finished_ends(port: Open, tls: TlsPaths) -> None:
    open = port(tls=tls)
    assert open.send() == b""
    context = ssl.create_default_context(cafile=tls.client_ca)
    with context.wrap_socket(open.call(), server_hostname="127.0.0.1") as one, contextlib.suppress(ssl.SSLEOFError):
        assert until_the_end(one) == b""
    with context.wrap_socket(open.call(), server_hostname="127.0.0.1") as one:
        one.sendall(get())
        assert b"good" in until_the_end(one)


def test_addresses_that_one_host_may_have_are_counted_together() -> None:
    assert _origin("2001:db8::1") == _origin("2001:db8::ffff:1") != _origin("2001:db8:0:1::1")
    assert _origin("::ffff:192.0.2.1") == _origin("192.0.2.1") != _origin("192.0.2.2")
    assert _origin("fe80::1%eth0") == _origin("fe80::1")
    assert _origin("somewhere") == "somewhere"

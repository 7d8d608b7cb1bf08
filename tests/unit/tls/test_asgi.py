"""Rights on a real uvicorn: who comes with which certificate, by HTTP and by WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import logging
import socket
import ssl
import time
from collections.abc import Iterator

import pytest
from cryptography import x509

from hsmsign.model.errors import ConfigurationError, UnauthenticatedError
from hsmsign.tls import uvicorn as ours
from hsmsign.tls.asgi import RightsMiddleware
from hsmsign.tls.rules import Rules
from tests.support.tls_site import GREEN, ORANGE, Site, running

uvicorn = pytest.importorskip("uvicorn")


class App:
    """Says who it is told that it serves."""

    def __init__(self) -> None:
        self.served = 0
        self.started = False

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            self.started = True
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.served += 1
        name, again = scope["hsmsign.peer"].name, scope["state"]["peer"].name
        body = f"{name} {again} {scope['extensions']['tls']['tls_version']:x}"
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": body})
            await send({"type": "websocket.close"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body.encode()})


class Running:
    def __init__(self, port: int, app: App) -> None:
        self.port = port
        self.app = app


@contextlib.contextmanager
def serve(site: Site, rules: Rules, context: ssl.SSLContext | None = None, **options: str) -> Iterator[Running]:
    app = App()
    config = ours.Config(
        RightsMiddleware(app, rules), tls=context or site.server(), log_config=None, lifespan="on", **options
    )
    server = uvicorn.Server(config)
    with socket.create_server(("localhost", 0)) as listening:
        loop = config.get_loop_factory()
        with running(
            lambda: asyncio.Runner(loop_factory=loop).run(server.serve([listening])),
            lambda: setattr(server, "should_exit", True),
        ):
            while not server.started:
                time.sleep(0.01)
            yield Running(listening.getsockname()[1], app)


KINDS = [("h11", "asyncio", "websockets"), ("httptools", "uvloop", "wsproto"), ("h11", "asyncio", "websockets-sansio")]


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def server(request: pytest.FixtureRequest, site: Site, rules: Rules) -> Iterator[Running]:
    http, loop, ws = request.param
    pytest.importorskip(http)
    pytest.importorskip(ws.partition("-")[0])
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    with serve(site, rules, http=http, loop=loop, ws=ws) as made:
        yield made


@pytest.fixture(scope="module")
def plain(site: Site, rules: Rules) -> Iterator[Running]:
    with serve(site, rules, http="h11", ws="none") as made:
        yield made


def test_green_writes_and_orange_reads(server: Running, site: Site) -> None:
    served = server.app.served
    assert site.ask(server.port, "green", "POST", "/articles/1")[::2] == (200, f"{GREEN} {GREEN} 304".encode())
    assert site.ask(server.port, "orange", "GET", "/articles/1?a=b")[::2] == (200, f"{ORANGE} {ORANGE} 304".encode())
    assert site.ask(server.port, "orange", "POST", "/articles/1")[0] == 403
    assert server.app.served == served + 2


def test_lifespan_passes(plain: Running) -> None:
    assert plain.app.started


def test_a_refusal_is_a_problem_in_json(plain: Running, site: Site) -> None:
    status, headers, body = site.ask(plain.port, "orange", "POST", "/articles/1?token=secret")
    assert (status, headers["content-type"]) == (403, "application/problem+json")
    said = json.loads(body)
    assert said == {
        "type": "about:blank",
        "title": "Forbidden",
        "status": 403,
        "detail": f"{ORANGE} may not POST /articles/1",
    }


def test_who_has_no_certificate_is_told_so(plain: Running, site: Site) -> None:
    status, headers, body = site.ask(plain.port, "", "GET", "/articles/1")
    assert (status, headers["www-authenticate"]) == (401, "ClientCertificate")
    assert json.loads(body)["detail"] == "the client did not prove who it is"


def test_headers_prove_nothing(plain: Running, site: Site) -> None:
    pem = site.pair("green")[1].decode().replace("\n", "%0A")
    forged = {
        "X-Forwarded-Client-Cert": f'Cert="{pem}";URI={GREEN}',
        "Client-Cert": ":MIIB:",
        "X-SSL-Client-Cert": pem,
        "SSL-Client-Cert": pem,
    }
    assert site.ask(plain.port, "", "GET", "/articles/1", forged)[0] == 401
    assert site.ask(plain.port, "orange", "POST", "/articles/1", forged)[0] == 403


@pytest.mark.parametrize(
    "target", ["/articles/../prices", "/articles/%2e%2e/prices", "/articles%2f1", "/articles//1", "/articles/%252e"]
)
def test_a_path_that_may_mean_several_things_is_refused(server: Running, site: Site, target: str) -> None:
    served = server.app.served
    assert site.ask(server.port, "green", "GET", target)[0] == 403
    assert server.app.served == served


def test_the_log_has_one_line_for_a_refusal_without_its_query(
    plain: Running, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hsmsign.tls.rights")
    site.ask(plain.port, "orange", "POST", "/articles/%0aforged?token=secret")
    site.ask(plain.port, "green", "GET", "/articles/1")
    said = [record.getMessage() for record in caplog.records if record.name == "hsmsign.tls.rights"]
    assert said == [
        f"refused: {ORANGE} may not POST /articles/\\nforged: a path with a backslash, or with bytes that are no text"
    ]


def test_two_spiffe_ids_are_nobody(plain: Running, site: Site) -> None:
    site.issue("both", x509.UniformResourceIdentifier(GREEN), x509.UniformResourceIdentifier(ORANGE))
    status, _, body = site.ask(plain.port, "both", "GET", "/articles/1")
    assert (status, json.loads(body)["detail"]) == (401, "the client certificate has 2 SPIFFE IDs")


def test_a_certificate_that_ends_while_its_connection_lasts_is_refused(rules: Rules, site: Site) -> None:
    pem = site.issue("short", x509.UniformResourceIdentifier(GREEN), lasts=dt.timedelta(minutes=-1))

    async def ask() -> list[dict]:
        sent = []
        scope = {"type": "http", "method": "GET", "path": "/articles/1"}
        scope["extensions"] = {"tls": {"client_cert_chain": [pem.decode()]}}

        async def send(message) -> None:
            sent.append(message)

        await RightsMiddleware(App(), rules)(scope, None, send)
        return sent

    answer = asyncio.run(ask())
    assert answer[0]["status"] == 401
    assert "has expired" in json.loads(answer[1]["body"])["detail"]


async def test_a_certificate_that_the_server_found_wrong_is_nobody(rules: Rules, site: Site) -> None:
    sent = []
    tls = {"client_cert_chain": [site.pair("green")[1].decode()], "client_cert_error": "self-signed"}

    async def send(message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/articles/1", "extensions": {"tls": tls}}
    await RightsMiddleware(App(), rules)(scope, None, send)
    assert sent[0]["status"] == 401


async def test_a_protocol_that_nobody_knows_is_refused(rules: Rules) -> None:
    with pytest.raises(UnauthenticatedError):
        await RightsMiddleware(App(), rules)({"type": "carrier.pigeon"}, None, None)


def test_a_context_that_verifies_no_client_lets_nobody_in(rules: Rules, site: Site) -> None:
    with serve(site, rules, site.server(ssl.CERT_NONE), ws="none") as made:
        assert site.ask(made.port, "green", "GET", "/articles/1")[0] == 401


def websocket(server: Running, site: Site, name: str) -> str:
    """What the other side says by WebSocket; its status where it refuses."""
    client = pytest.importorskip("websockets.sync.client")
    refused = pytest.importorskip("websockets.exceptions").InvalidStatus
    try:
        with client.connect(f"wss://localhost:{server.port}/articles/1", ssl=site.client(name), proxy=None) as opened:
            return str(opened.recv(20))
    except refused as error:
        return str(error.response.status_code)


def test_a_websocket_is_for_who_has_the_right_to_open_one(server: Running, site: Site) -> None:
    served = server.app.served
    assert websocket(server, site, "green") == f"{GREEN} {GREEN} 304"
    assert websocket(server, site, "orange") == "403"
    assert websocket(server, site, "") == "403"
    assert server.app.served == served + 1


async def test_a_websocket_is_closed_before_it_is_accepted_with_a_code_that_says_why(rules: Rules, site: Site) -> None:
    async def close(name: str) -> dict:
        sent = []

        async def send(message) -> None:
            sent.append(message)

        async def receive() -> dict:
            return {"type": "websocket.connect"}

        tls = {"client_cert_chain": [site.pair(name)[1].decode()] if name else []}
        scope = {"type": "websocket", "path": "/articles/1", "extensions": {"tls": tls}}
        await RightsMiddleware(App(), rules)(scope, receive, send)
        (message,) = sent
        return message

    assert await close("orange") == {"type": "websocket.close", "code": 4403, "reason": ""}
    assert (await close(""))["code"] == 4401


@pytest.mark.parametrize(
    "options",
    [{"ssl_certfile": "x"}, {"http": "zttp"}, {"http2": True}, {"workers": 2}],
    ids=lambda one: next(iter(one)),
)
def test_what_does_not_go_with_a_context_is_refused_at_once(site: Site, options: dict) -> None:
    with pytest.raises(ConfigurationError):
        ours.Config(App(), tls=site.server(), log_config=None, **options)

"""Rights on real gRPC servers, blocking and asyncio: all four kinds of call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_status import rpc_status

from hsmsign.model.errors import UnauthenticatedError
from hsmsign.tls.grpc_rights import AioRightsInterceptor, RightsInterceptor, peer
from hsmsign.tls.rules import Rules
from tests.support import statuses
from tests.support.tls_site import GREEN, ORANGE, Site

KINDS = ["unary_unary", "unary_stream", "stream_unary", "stream_stream"]


def handlers(verb: str, **behaviours) -> dict[str, grpc.RpcMethodHandler]:
    return {
        f"{verb}{kind}": getattr(grpc, f"{kind}_rpc_method_handler")(behaviour)
        for kind, behaviour in behaviours.items()
    }


def unary(request, context) -> bytes:
    data = request if isinstance(request, bytes) else b"".join(request)
    return peer(context).name.encode() + b" " + data


def stream(request, context) -> Iterator[bytes]:
    yield unary(request, context)


PLAIN = {"unary_unary": unary, "unary_stream": stream, "stream_unary": unary, "stream_stream": stream}


async def aio_unary(request, context) -> bytes:
    data = request if isinstance(request, bytes) else b"".join([one async for one in request])
    return peer(context).name.encode() + b" " + data


async def aio_stream(request, context) -> AsyncIterator[bytes]:
    yield await aio_unary(request, context)


async def aio_writing(request, context) -> None:
    await context.write(await aio_unary(request, context))


AIO = {"unary_unary": aio_unary, "unary_stream": aio_stream, "stream_unary": aio_unary, "stream_stream": aio_stream}
WRITING = {"unary_stream": aio_writing, "stream_stream": aio_writing}


def service() -> dict[str, grpc.RpcMethodHandler]:
    return {**handlers("Read_", **PLAIN), **handlers("Write_", **PLAIN)}


def credentials(site: Site) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials([site.pair("server")], site.authority.pem, require_client_auth=True)


@pytest.fixture(scope="module")
def port(site: Site, rules: Rules) -> Iterator[int]:
    server = grpc.server(ThreadPoolExecutor(4), interceptors=[RightsInterceptor(rules)])
    server.add_registered_method_handlers("shop.v1.Shop", service())
    made = server.add_secure_port("localhost:0", credentials(site))
    server.start()
    yield made
    server.stop(0).wait()


def call(site: Site, port: int, name: str, method: str) -> bytes:
    kind = method.partition("_")[2] if "_" in method else "unary_unary"
    key, certificate = site.pair(name)
    own = grpc.ssl_channel_credentials(site.authority.pem, key, certificate)
    with grpc.secure_channel(f"localhost:{port}", own) as channel:
        multi = getattr(channel, kind)(f"/shop.v1.Shop/{method}")
        answer = multi(iter([b"a", b"b"]) if kind.startswith("stream") else b"ab", timeout=20)
        return answer if isinstance(answer, bytes) else b"".join(answer)


def refusal(site: Site, port: int, name: str, method: str) -> statuses.Said:
    with pytest.raises(grpc.RpcError) as caught:
        call(site, port, name, method)
    status = rpc_status.from_call(caught.value)
    assert status is not None
    return statuses.read(status)


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_that_a_rule_allows_is_answered_and_its_handler_knows_who_calls(
    site: Site, port: int, kind: str
) -> None:
    assert call(site, port, "green", f"Read_{kind}") == f"{GREEN} ab".encode()
    assert call(site, port, "orange", f"Read_{kind}") == f"{ORANGE} ab".encode()


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_that_no_rule_allows_is_refused_with_its_reason(site: Site, port: int, kind: str) -> None:
    said = refusal(site, port, "orange", f"Write_{kind}")
    assert (said.code, said.reason, said.domain) == ("PERMISSION_DENIED", "PERMISSION_DENIED", "hsmsign")
    assert said.message == f"{ORANGE} may not call /shop.v1.Shop/Write_{kind}"
    assert said.metadata["principal"] == ORANGE


def test_the_log_has_one_line_for_a_refusal(site: Site, port: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hsmsign.tls.rights")
    refusal(site, port, "orange", "Write_unary_unary")
    call(site, port, "orange", "Read_unary_unary")
    assert caplog.messages == [f"refused: {ORANGE} may not call /shop.v1.Shop/Write_unary_unary: no rule allows it"]


def test_a_method_that_there_is_not_is_unimplemented(site: Site, port: int) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(site, port, "green", "ReadNothing")
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_who_proved_nothing_is_unauthenticated(rules: Rules) -> None:
    server = grpc.server(ThreadPoolExecutor(1), interceptors=[RightsInterceptor(rules)])
    server.add_registered_method_handlers("shop.v1.Shop", service())
    port = server.add_insecure_port("localhost:0")
    server.start()
    try:
        with grpc.insecure_channel(f"localhost:{port}") as channel, pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/shop.v1.Shop/Read_unary_unary")(b"", timeout=20)
    finally:
        server.stop(0).wait()
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


class Context:
    def __init__(self, **proven: list[bytes]) -> None:
        self.auth_context = lambda: proven


def test_a_certificate_counts_where_tls_has_verified_it(site: Site) -> None:
    pem = site.pair("green")[1]
    assert peer(Context(x509_pem_cert=[pem], transport_security_type=[b"ssl"])).name == GREEN
    for proven in ({"x509_pem_cert": [pem]}, {"transport_security_type": [b"ssl"]}, {}):
        with pytest.raises(UnauthenticatedError):
            peer(Context(**proven))
    with pytest.raises(UnauthenticatedError):
        peer(Context(x509_pem_cert=[pem], transport_security_type=[b"insecure"]))


@pytest.fixture(params=["coroutines", "writing", "plain"])
async def aio_port(request: pytest.FixtureRequest, site: Site, rules: Rules) -> AsyncIterator[int]:
    behaviours = {"coroutines": AIO, "writing": {**AIO, **WRITING}, "plain": PLAIN}[request.param]
    pool = ThreadPoolExecutor(4)
    server = grpc.aio.server(pool, interceptors=[AioRightsInterceptor(rules)])
    methods = {**handlers("Read_", **behaviours), **handlers("Write_", **behaviours)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("shop.v1.Shop", methods)])
    made = server.add_secure_port("localhost:0", credentials(site))
    await server.start()
    yield made
    await server.stop(0)
    await asyncio.to_thread(pool.shutdown)  # a thread of the pool may wait for the loop


@pytest.mark.parametrize("kind", KINDS)
async def test_asyncio_has_the_same_rights(site: Site, aio_port: int, kind: str) -> None:
    def ask() -> None:
        assert call(site, aio_port, "orange", f"Read_{kind}") == f"{ORANGE} ab".encode()
        said = refusal(site, aio_port, "orange", f"Write_{kind}")
        assert (said.code, said.reason) == ("PERMISSION_DENIED", "PERMISSION_DENIED")

    await asyncio.to_thread(ask)

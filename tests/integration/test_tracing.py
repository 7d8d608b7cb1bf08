"""Traces, received by a collector of the test's own over real gRPC."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import closing

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from hsmsign.model.errors import HsmsignError
from hsmsign.v1 import signing_pb2, signing_pb2_grpc
from tests.support.daemon import Daemon, eventually, hsmsign

DIGEST = hashlib.sha256(b"hello").digest()
TRACE = "0af7651916cd43dd8448eb211c80319c"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the spans that it is sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.slow = 0.0
        """Seconds until it has taken what it is sent."""
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def Export(self, request, context):
        time.sleep(self.slow)
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()

    def close(self) -> None:
        self._server.stop(0)

    def named(self, name: str) -> list[Span]:
        return [one for one in self.spans if one.name == name]


def said(span: Span) -> dict[str, str | int]:
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with closing(Collector()) as made:
        yield made


def tracing(daemon: Daemon, port: int, sample: float = 1.0) -> Daemon:
    daemon.configure(
        lambda text: text.replace(
            '[tracing]\nendpoint = ""', f'[tracing]\nsample = {sample}\nendpoint = "http://127.0.0.1:{port}"'
        )
    )
    daemon.environment["OTEL_BSP_SCHEDULE_DELAY"] = "100"
    return daemon.start()


def test_a_call_and_what_it_took_are_told_and_nothing_of_what_was_signed(
    new_daemon: Callable[..., Daemon], collector: Collector
) -> None:
    daemon = tracing(new_daemon(), collector.port)
    with daemon.client() as client:
        client.create_key("web", "ecdsa-p256")
        client.sign_batch("web", [DIGEST, b"short", DIGEST])
        with pytest.raises(HsmsignError):
            client.sign("none", digest=DIGEST)
    (created,) = eventually(lambda: collector.named("hsmsign.v1.KeyService/CreateKey"))
    assert created.kind == Span.SPAN_KIND_SERVER
    assert said(created)["rpc.grpc.status_code"] == 0
    assert said(created)["enduser.id"]
    (batch,) = eventually(lambda: collector.named("hsmsign.v1.SigningService/SignBatch"))
    of_batch = [one for one in collector.spans if one.parent_span_id == batch.span_id]
    assert sorted(one.name for one in of_batch) == ["audit", "sign"]
    sign = next(one for one in of_batch if one.name == "sign")
    assert said(sign) == {
        "hsmsign.key": "keys/web/versions/1",
        "hsmsign.scheme": "ECDSA_P256_SHA256",
        "hsmsign.inputs": 3,
        "hsmsign.failures": 1,
    }
    assert batch.start_time_unix_nano <= sign.start_time_unix_nano <= sign.end_time_unix_nano
    assert sign.end_time_unix_nano <= batch.end_time_unix_nano
    (refused,) = eventually(lambda: collector.named("hsmsign.v1.SigningService/Sign"))
    assert (said(refused)["rpc.grpc.status_code"], said(refused)["error.type"]) == (5, "KEY_NOT_FOUND")
    assert DIGEST not in b"".join(one.SerializeToString() for one in collector.spans)
    assert daemon.stop() == 0


def test_a_call_belongs_to_the_trace_of_its_caller(new_daemon: Callable[..., Daemon], collector: Collector) -> None:
    daemon = tracing(new_daemon(), collector.port, sample=0.0)
    with daemon.client() as client:
        client.create_key("web", "ecdsa-p256")
    parent = f"00-{TRACE}-b7ad6b7169203331-01"
    with grpc.insecure_channel(f"unix://{daemon.endpoints['unix']}") as channel:
        stub = signing_pb2_grpc.SigningServiceStub(channel)
        request = signing_pb2.SignRequest(name="keys/web", digest=DIGEST)
        stub.Sign(request, metadata=[("traceparent", parent)])
        stub.Sign(request, metadata=[("traceparent", f"00-{TRACE}-b7ad6b7169203331-00")])
        stub.Sign(request, metadata=[("traceparent", "garbage")])
    (one,) = eventually(lambda: collector.named("hsmsign.v1.SigningService/Sign"))
    assert daemon.stop() == 0
    assert (one.trace_id.hex(), one.parent_span_id.hex()) == (TRACE, "b7ad6b7169203331")
    # neither what the caller did not trace, nor what belongs to no trace and was not chosen
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    assert len(collector.named("hsmsign.v1.SigningService/Sign")) == 1


def test_the_last_spans_are_sent_before_the_daemon_ends(
    new_daemon: Callable[..., Daemon], collector: Collector
) -> None:
    daemon = new_daemon()
    tracing(daemon, collector.port)
    daemon.stop()
    daemon.environment["OTEL_BSP_SCHEDULE_DELAY"] = "600000"
    daemon.start()
    with daemon.client() as client:
        client.create_key("web", "ecdsa-p256")
        assert not collector.named("hsmsign.v1.KeyService/CreateKey")
    collector.slow = 1.0
    assert daemon.stop() == 0
    assert len(collector.named("hsmsign.v1.KeyService/CreateKey")) == 1


def test_calls_do_not_care_for_a_collector_that_is_away(new_daemon: Callable[..., Daemon]) -> None:
    collector = Collector()
    collector.close()
    daemon = tracing(new_daemon(), collector.port)
    with daemon.client() as client:
        client.create_key("web", "ecdsa-p256")
        for _ in range(50):
            assert client.sign("web", digest=DIGEST).value
    daemon.logged(f"127.0.0.1:{collector.port}")
    assert daemon.stop() == 0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('endpoint = "127.0.0.1:4317"', "tracing.endpoint"),
        ('endpoint = "http://127.0.0.1:4317/path"', "tracing.endpoint"),
        ('endpoint = "http://x:1"\nsample = 2', "tracing.sample"),
        ('endpoint = "http://x:1"\nca = "ca.pem"', "ca is for an endpoint that begins with https:"),
    ],
)
def test_a_mistake_in_the_configuration_is_said(new_daemon: Callable[..., Daemon], line: str, words: str) -> None:
    daemon = new_daemon()
    daemon.configure(lambda text: text.replace('[tracing]\nendpoint = ""', f"[tracing]\n{line}"))
    done = hsmsign("serve", "--config", str(daemon.config))
    assert done.returncode == 78
    assert words in done.stderr

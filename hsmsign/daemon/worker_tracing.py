"""OpenTelemetry traces of a worker's calls, where they are configured."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import grpc
import structlog
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from hsmsign.audit.auditing import Audit
from hsmsign.audit.records import OK, CallMade, SignaturesMade
from hsmsign.daemon.worker_config import TracingConfig
from hsmsign.model.errors import ConfigurationError
from hsmsign.server.tracing import CallSpan, Ended, Metadata

_LAST_SPANS = 2.0
"""Seconds for spans that are on their way out when the worker stops."""
_W3C = frozenset({"traceparent", "tracestate"})


class OpenTelemetry:
    """Spans for a collector (hsmsign.server.tracing.Tracing). They are sent by a thread; where the collector is away
    they are lost, and no call waits for it."""

    def __init__(self, config: TracingConfig) -> None:
        _speak_through_our_log()
        resource = Resource.create({"service.name": "hsmsign", "service.version": version("hsmsign")})
        sampler = ParentBased(TraceIdRatioBased(config.sample))
        self._provider = TracerProvider(resource=resource, sampler=sampler, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_exporter(config)))
        self._tracer = self._provider.get_tracer("hsmsign", version("hsmsign"))
        self._propagator = TraceContextTextMapPropagator()

    @contextlib.contextmanager
    def call(self, service: str, method: str, metadata: Metadata) -> Iterator[CallSpan]:
        """A span around a call."""
        carrier = {key: value for key, value in metadata if key in _W3C and isinstance(value, str)}
        with self._tracer.start_as_current_span(
            f"{service}/{method}",
            self._propagator.extract(carrier),
            trace.SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": method},
            record_exception=False,  # our own errors are told by their reasons, never by their words
            set_status_on_exception=False,
        ) as span:
            yield _Span(span)

    def audited(self, audit: Audit) -> Audit:
        """The same audit log, with a span for each group of signatures, and one for its recording."""
        return _Traced(audit, self._tracer)

    def close(self) -> None:
        """Send what is left, for a moment. Blocks so long."""
        # a thread that nobody waits for: a collector that does not answer must not keep a worker from ending
        thread = threading.Thread(target=self._provider.shutdown, daemon=True)
        thread.start()
        thread.join(_LAST_SPANS)


class _Span:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def ended(self, how: Ended) -> None:
        if not self._span.is_recording():
            return
        code = grpc.StatusCode[how.code] if how.code in grpc.StatusCode.__members__ else grpc.StatusCode.UNKNOWN
        self._span.set_attributes(
            {
                "rpc.grpc.status_code": code.value[0],
                "hsmsign.request_id": how.request_id,
                **({"enduser.id": how.caller} if how.caller else {}),
                **({"error.type": how.reason} if how.reason else {}),
            }
        )
        if code is not grpc.StatusCode.OK:
            self._span.set_status(trace.StatusCode.ERROR, how.reason)


class _Traced:
    """Knows how long signatures took, for it is told when they are recorded."""

    def __init__(self, audit: Audit, tracer: trace.Tracer) -> None:
        self._audit = audit
        self._tracer = tracer

    def ready(self) -> None:
        self._audit.ready()

    async def call(self, made: CallMade) -> None:
        if not trace.get_current_span().is_recording():
            await self._audit.call(made)
            return
        with self._tracer.start_as_current_span("audit"):
            await self._audit.call(made)

    async def signatures(self, made: SignaturesMade) -> None:
        if not trace.get_current_span().is_recording():
            await self._audit.signatures(made)
            return
        self._signed(made)
        with self._tracer.start_as_current_span("audit"):
            await self._audit.signatures(made)

    def _signed(self, made: SignaturesMade) -> None:
        end = time.time_ns()
        attributes: dict[str, str | int] = {
            # of a group that was refused the name is any caller's text
            "hsmsign.key": made.name if made.outcome == OK else "",
            "hsmsign.scheme": made.scheme.name if made.scheme is not None else "",
            "hsmsign.inputs": len(made.inputs),
            "hsmsign.failures": len(made.failures),
        }
        span = self._tracer.start_span("sign", attributes=attributes, start_time=end - int(made.seconds * 1e9))
        if made.outcome != OK:
            span.set_attribute("error.type", made.outcome)
            span.set_status(trace.StatusCode.ERROR, made.outcome)
        span.end(end)


def _exporter(config: TracingConfig) -> OTLPSpanExporter:
    secure = config.endpoint.startswith("https:")
    credentials = grpc.ssl_channel_credentials(_read(config.ca)) if secure else None
    return OTLPSpanExporter(endpoint=config.endpoint, insecure=not secure, credentials=credentials)


def _read(ca: Path | None) -> bytes | None:
    if ca is None:
        return None
    try:
        return ca.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read tracing.ca {ca}: {error.strerror}") from error


class _ToOurLog(logging.Handler):
    """The exporter's complaints."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger("hsmsign.tracing").warning("traces", said=record.getMessage())


def _speak_through_our_log() -> None:
    theirs = logging.getLogger("opentelemetry")
    theirs.propagate = False
    theirs.handlers = [_ToOurLog()]

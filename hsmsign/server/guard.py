"""What happens around every call: who calls, until when, and what is said about it afterwards.

The handlers are made here, around the servicers' methods, instead of by gRPC's generated code and an
interceptor: a call then costs no second coroutine, and bytes that are no request get a proper answer.

A call that may change something is a task of its own, which is done and recorded to its end: who asked for it may
hang up, or let a deadline pass, but only the wait for the answer ends then.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import structlog
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from hsmsign.audit.auditing import Audit
from hsmsign.audit.records import OK, CallMade
from hsmsign.ledger import Claim, Claims, Ledger
from hsmsign.model.caller import Caller
from hsmsign.model.errors import (
    AuditUnavailableError,
    CallerLimitError,
    HsmsignError,
    InvalidArgumentError,
    UnavailableError,
)
from hsmsign.model.limits import Limits
from hsmsign.server.connections import Connections
from hsmsign.server.errors import abort
from hsmsign.server.tracing import Ended, Tracing

Context = grpc.aio.ServicerContext[bytes, bytes]
Identify = Callable[[Any], Caller]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,64}")
_OFTEN = frozenset({"Sign", "SignBatch", "Verify"})
"""Calls that are worth a line each only where somebody looks closely."""
_SIGNING = frozenset({"Sign", "SignBatch", "SignStream"})
"""Calls that may be cut short: what is not signed yet is not signed then, and the pipeline records that."""
_READING = ("Get", "List", "Prove", "Verify")
"""How the names of calls begin that change nothing: they may be cut short. So may those that answer with a stream."""
_CANCELLED = "CANCELLED"
_REMEMBERED = 4096


class Refused(Protocol):
    """Records that a part of the call was refused, where that is not recorded otherwise."""

    async def __call__(self, error: HsmsignError, name: str = "", /) -> None:
        """`name` is the key that the part is about; that of the request, unless said."""
        ...


@dataclass(slots=True)
class Call:
    """One call, for the method that answers it."""

    caller: Caller
    deadline: float
    """In seconds of `time.monotonic()`; 0 for none."""
    context: Context
    identify: Callable[[], Caller]
    """Who calls, asked anew. Raises UnauthenticatedError for one that may not call any more."""
    drained: asyncio.Event
    """Set when the daemon wants to stop: long calls end soon."""
    request_id: str
    refused: Refused
    request: Any = None
    """The message, where there is one only."""
    approval: str = ""
    """approvals/ID, where others had to approve it."""
    apart: bool = False
    """Whether what was done in it is recorded part by part, as signatures are: that it went well, or was cancelled, is
    no record of its own then."""
    recorded: bool = False
    """Whether what comes of it stands in the audit log already, also where it fails."""


class Guard:
    """Stands around every method of the servicers that are given to `handlers`."""

    def __init__(
        self,
        identify: Identify,
        limits: Limits,
        audit: Audit,
        tracing: Tracing | None = None,
        ledger: Ledger | None = None,
        generation: int = 0,
    ) -> None:
        """Calls and connections are counted in the ledger, with those of other workers; the connections with those of
        this generation, since all others are closing."""
        self._tracing = tracing
        self._ledger = ledger or Ledger.alone()
        self._identify = identify
        self._audit = audit
        self._max_calls = limits.max_calls_per_caller
        self._connections = Connections(limits.max_connections_per_caller, ledger=self._ledger, generation=generation)
        self._claims = functools.lru_cache(_REMEMBERED)(self._claims_of)
        self._log = structlog.get_logger("hsmsign.server").bind()
        self._prefix = os.urandom(4).hex()
        self._numbers = itertools.count(1)
        self._active = 0
        self._kept: set[asyncio.Task[Any]] = set()
        self._idle = asyncio.Event()
        self.drained = asyncio.Event()

    def handlers(self, service: ServiceDescriptor, servicer: object) -> grpc.GenericRpcHandler:
        """The gRPC handlers of a service whose methods are those of `servicer`."""
        made = {method.name: self._handler(method, getattr(servicer, method.name)) for method in service.methods}
        return grpc.method_handlers_generic_handler(service.full_name, made)

    def active(self) -> int:
        """Calls that are under way."""
        return self._active

    def look(self) -> None:
        """To be called about once a second: connections that are gone make room, where somebody asks for it."""
        self._connections.look()

    async def drain(self, seconds: float) -> None:
        """Take no new calls, and wait at most so long for those that are under way, also where nobody waits for their
        answers any more."""
        end = time.monotonic() + seconds
        self.drained.set()
        if self._active:
            self._idle.clear()
            try:
                await asyncio.wait_for(self._idle.wait(), seconds)
            except TimeoutError:
                self._log.warning("stopping with calls under way", calls=self._active)
        if self._kept:
            await asyncio.wait(self._kept, timeout=max(0.0, end - time.monotonic()))

    def _handler(
        self, method: MethodDescriptor, behaviour: Callable[..., Awaitable[Any]]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        parse = _parser(method)
        if method.client_streaming and method.server_streaming:

            async def stream(requests: AsyncIterator[bytes], context: Context) -> None:
                await self._run(method, context, lambda call: behaviour(_parsed(parse, requests), call))

            return grpc.stream_stream_rpc_method_handler(stream)

        if method.server_streaming:

            async def answers(data: bytes, context: Context) -> None:
                await self._run(method, context, lambda call: _begin(behaviour, parse(data), call))

            return grpc.unary_stream_rpc_method_handler(answers)

        kept = _is_kept(method)

        async def unary(data: bytes, context: Context) -> Any:
            return await self._run(method, context, lambda call: _answer(behaviour, parse(data), call), kept=kept)

        return grpc.unary_unary_rpc_method_handler(unary)

    async def _run(
        self, method: MethodDescriptor, context: Context, work: Callable[[Call], Awaitable[Any]], *, kept: bool = False
    ) -> Any:
        said = _Said(method.name, context, self._request_id(context), time.perf_counter())
        serving = self._serve(said, work) if self._tracing is None else self._traced(self._tracing, method, said, work)
        if kept:
            try:
                answer = await asyncio.shield(self._keep(serving))
            except asyncio.CancelledError:
                said.gone = True
                raise
        else:
            answer = await serving
        if isinstance(answer, HsmsignError):
            await abort(context, answer, said.request_id)
        return answer

    async def _traced(
        self, tracing: Tracing, method: MethodDescriptor, said: _Said, work: Callable[[Call], Awaitable[Any]]
    ) -> Any:
        """As `_serve`, in a span: which lasts until the answer is there, or refused, whoever still waits for it."""
        metadata = said.context.invocation_metadata() or ()
        with tracing.call(method.containing_service.full_name, method.name, metadata) as span:
            try:
                return await self._serve(said, work)
            finally:
                caller = said.caller.name if said.caller is not None else ""
                span.ended(Ended(said.request_id, caller, said.code, said.reason))

    async def _serve(self, said: _Said, work: Callable[[Call], Awaitable[Any]]) -> Any:
        """The answer, or the error that is the answer: recorded."""
        self._active += 1
        sent = False
        try:
            said.call = call = self._begin(said)
            answer = await work(call)
            if not call.apart:
                sent = True  # at once: who is cancelled while it is written has a record
                await self._audit.call(said.record(OK))
        except HsmsignError as error:
            failure = error
        except asyncio.CancelledError:
            self._note(said, _CANCELLED)
            if not sent and said.call is not None and not said.call.apart:
                self._keep(self._refused(said, _CANCELLED))
            raise
        except Exception:  # noqa: BLE001 - the last resort: it is logged, and the caller learns nothing of it
            failure = HsmsignError(
                "something went wrong inside the daemon", hint="its log says what, by the request id"
            )
            self._log.exception("a call failed inside", method=said.method, request_id=said.request_id)
            if said.call is not None:
                said.call.recorded = False  # nobody was ready for it
        else:
            self._note(said, "OK")
            return answer
        finally:
            if said.caller is not None:
                self._leave(said.caller)
            self._active -= 1
            if not self._active:
                self._idle.set()
        self._note(said, failure.code, failure)
        if said.call is None or not said.call.recorded:
            await self._refused(said, failure.reason, approval=failure.metadata.get("approval", ""))
        return failure

    def _begin(self, said: _Said) -> Call:
        """Who calls, and whether the daemon takes the call. Nothing is awaited here: whoever is cut off before it is
        known was not counted."""
        context = said.context
        said.caller = self._enter(self._identify(context))
        self._connections.met(said.caller.name, context.peer())
        if self.drained.is_set():
            raise UnavailableError("the daemon is stopping", hint="connect again", retry_after=1.0)
        self._audit.ready()
        left = context.time_remaining()
        deadline = 0.0 if left is None else time.monotonic() + left
        identify = functools.partial(self._identify, context)

        async def refused(error: HsmsignError, name: str = "", /) -> None:
            await self._refused(said, error.reason, name, error.metadata.get("approval", ""))

        return Call(said.caller, deadline, context, identify, self.drained, said.request_id, refused)

    def _keep(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task that goes on whoever waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)
        return task

    def _enter(self, caller: Caller) -> Caller:
        """Count a call. Raises CallerLimitError, and then nothing is counted."""
        refused = self._ledger.enter(self._claims(caller.name), 1)
        if refused is not None:
            raise CallerLimitError(
                f"{caller.name} has {refused.under_way} calls under way, and may have no more",
                hint="wait for some of them; see server.limits.max_calls_per_caller",
                metadata={"principal": caller.name},
                retry_after=0.1,
            )
        return caller

    def _leave(self, caller: Caller) -> None:
        self._ledger.leave(self._claims(caller.name), 1)

    def _claims_of(self, name: str) -> Claims:
        return Claims([Claim(("calls", name), most=self._max_calls)])

    async def _refused(self, said: _Said, reason: str, name: str = "", approval: str = "") -> None:
        with contextlib.suppress(AuditUnavailableError):  # the caller hears no, and why, in any case
            await self._audit.call(said.record(reason, approval, name))

    def _note(self, said: _Said, code: str, error: HsmsignError | None = None) -> None:
        """Log the call, where such calls are logged."""
        said.code, said.reason = code, error.reason if error is not None else ""
        often = error is None and said.method in _OFTEN
        if often and not self._log.is_enabled_for(logging.DEBUG):
            return
        why = {} if error is None else {"reason": error.reason, "error": error.message}
        why |= {"gone": "the caller did not wait for it"} if said.gone else {}
        who = {"caller": said.caller.name} if said.caller is not None else {"peer": said.context.peer()}
        level = logging.DEBUG if often else logging.ERROR if code == "INTERNAL" else logging.INFO
        ms = round((time.perf_counter() - said.started) * 1000, 3)
        self._log.log(level, "call", method=said.method, code=code, ms=ms, request_id=said.request_id, **who, **why)

    def _request_id(self, context: Context) -> str:
        """The caller's `x-request-id` where it is a decent one, else one of our own."""
        for key, value in context.invocation_metadata() or ():
            if key == "x-request-id" and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
                return value
        return f"{self._prefix}-{next(self._numbers):x}"


@dataclass(slots=True)
class _Said:
    """What is known of a call that is under way."""

    method: str
    context: Context
    request_id: str
    started: float
    caller: Caller | None = None
    call: Call | None = None
    code: str = ""
    """How it ended: OK, or the status of the error, and its reason."""
    reason: str = ""
    gone: bool = False
    """Whether the caller did not wait for its answer."""

    def record(self, outcome: str, approval: str = "", name: str = "") -> CallMade:
        """What the audit log gets to know of it."""
        return CallMade(
            self.method,
            self.caller.name if self.caller is not None else "",
            self.request_id,
            name or (_about(self.call.request) if self.call is not None and self.call.request is not None else ""),
            outcome,
            time.perf_counter() - self.started,
            self.context.peer() if self.caller is None else "",
            self.call.approval if self.call is not None and self.call.approval else approval,
        )


def _is_kept(method: MethodDescriptor) -> bool:
    """Whether it may change something, so that it is done and recorded to its end."""
    return method.name not in _SIGNING and not method.name.startswith(_READING)


async def _answer(behaviour: Callable[..., Awaitable[Message]], request: Message, call: Call) -> bytes:
    call.request = request
    return (await behaviour(request, call)).SerializeToString()


async def _begin(behaviour: Callable[..., Awaitable[None]], request: Message, call: Call) -> None:
    call.request = request
    await behaviour(request, call)


def _about(request: Any) -> str:
    """The name of the key, the authority or the certificate that a request is about."""
    fields = request.DESCRIPTOR.fields_by_name
    if "key_id" in fields:
        return f"keys/{request.key_id}"
    if "authority_id" in fields:
        return f"cas/{request.authority_id}"
    if "authority" in fields:
        return str(request.authority)
    for field in ("key", "key_version"):
        if field in fields:
            said = getattr(request, field)
            return said if isinstance(said, str) else str(said.name)
    return str(request.name) if "name" in fields else ""


async def _parsed(parse: Callable[[bytes], Message], requests: AsyncIterator[bytes]) -> AsyncIterator[Message]:
    async for data in requests:
        yield parse(data)


def _parser(method: MethodDescriptor) -> Callable[[bytes], Message]:
    read = GetMessageClass(method.input_type).FromString

    def parse(data: bytes) -> Message:
        try:
            return read(data)
        except DecodeError:
            raise InvalidArgumentError(
                f"the request is no {method.input_type.full_name}",
                hint="is the caller made from the same .proto files?",
            ) from None

    return parse

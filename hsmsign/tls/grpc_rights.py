"""Rights by client certificate for gRPC services: interceptors for servers that want client certificates.

    grpc.server(pool, interceptors=[RightsInterceptor(rules)])
    grpc.aio.server(interceptors=[AioRightsInterceptor(rules)])

A handler knows who calls by `peer(context)`. A refused call ends with UNAUTHENTICATED or PERMISSION_DENIED, and
`google.rpc.ErrorInfo`.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeAlias

import grpc

from hsmsign.model.errors import HsmsignError, UnauthenticatedError
from hsmsign.model.status import DETAILS, to_status
from hsmsign.tls.gate import Gate
from hsmsign.tls.peer import GrpcContext, Peer
from hsmsign.tls.rules import Call, Decider

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
_Refusal: TypeAlias = Callable[[Any], HsmsignError | None]
_MAKERS: dict[tuple[bool, bool], tuple[str, Callable[..., Any]]] = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}


def peer(context: GrpcContext) -> Peer:
    """Who calls, for a handler behind an interceptor. Raises UnauthenticatedError where nobody proved who it is."""
    found = Peer.of_grpc(context)
    if found is None:
        raise UnauthenticatedError("the caller did not prove who it is", hint="come with a client certificate")
    return found


class RightsInterceptor(grpc.ServerInterceptor):
    """For `grpc.server`: lets through what the rules allow."""

    def __init__(self, rules: Decider) -> None:
        """`rules` are `Rules`, or a `RuleFile`."""
        self._gate = Gate(rules)

    def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], _Handler], handler_call_details: grpc.HandlerCallDetails
    ) -> _Handler:
        """The method, behind the gate."""
        return _guarded(self._gate, continuation(handler_call_details), handler_call_details)


class AioRightsInterceptor(grpc.aio.ServerInterceptor):
    """For `grpc.aio.server`: lets through what the rules allow. Methods may be coroutines, generators or plain."""

    def __init__(self, rules: Decider) -> None:
        """`rules` are `Rules`, or a `RuleFile`."""
        self._gate = Gate(rules)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        """The method, behind the gate."""
        return _guarded(self._gate, await continuation(handler_call_details), handler_call_details)


def _guarded(gate: Gate, handler: _Handler, details: grpc.HandlerCallDetails) -> _Handler:
    if handler is None:  # there is no such method: gRPC says so
        return None
    kind, make = _MAKERS[bool(handler.request_streaming), bool(handler.response_streaming)]
    streams = bool(handler.response_streaming)
    behaviour = _behind(gate, Call(details.method), getattr(handler, kind), streams=streams)
    made: grpc.RpcMethodHandler[Any, Any] = make(behaviour, handler.request_deserializer, handler.response_serializer)
    return made


def _behind(gate: Gate, call: Call, behaviour: Callable[..., Any], *, streams: bool) -> Callable[..., Any]:
    """The same behaviour, of the same kind: gRPC goes by what a function is. `streams`: it answers with several."""

    def refusal(context: Any) -> HsmsignError | None:
        try:
            gate.check(functools.partial(Peer.of_grpc, context), call)
        except HsmsignError as error:
            return error
        return None

    if _is(inspect.isasyncgenfunction, behaviour):
        return _generator(refusal, behaviour)
    if _is(inspect.iscoroutinefunction, behaviour):
        return _coroutine(refusal, behaviour)

    def plain(request: Any, context: Any) -> Any:
        if error := refusal(context):
            code, words, trailing = _status(error)
            context.set_trailing_metadata(trailing)
            context.abort(code, words)
        return behaviour(request, context)

    def plain_stream(request: Any, context: Any) -> Iterator[Any]:
        yield from plain(request, context)  # asyncio's servers may only wait for an abort where they iterate

    return plain_stream if streams else plain


def _generator(refusal: _Refusal, behaviour: Callable[..., Any]) -> Callable[..., Any]:
    async def answers(request: Any, context: Any) -> AsyncIterator[Any]:
        if error := refusal(context):
            await context.abort(*_status(error))
        async with contextlib.aclosing(behaviour(request, context)) as stream:
            async for answer in stream:
                yield answer

    return answers


def _coroutine(refusal: _Refusal, behaviour: Callable[..., Any]) -> Callable[..., Any]:
    async def answer(request: Any, context: Any) -> Any:
        if error := refusal(context):
            await context.abort(*_status(error))
        return await behaviour(request, context)

    return answer


def _is(kind: Callable[[Any], bool], behaviour: Any) -> bool:
    return kind(behaviour) or kind(getattr(behaviour, "__call__", None))  # noqa: B004 - objects may be called too


def _status(error: HsmsignError) -> tuple[grpc.StatusCode, str, tuple[tuple[str, bytes]]]:
    return grpc.StatusCode[error.code], error.message, ((DETAILS, to_status(error).SerializeToString()),)

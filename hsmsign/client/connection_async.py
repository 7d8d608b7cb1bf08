"""The asyncio client's connection: a channel, and how calls are made over it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from google.protobuf.message import Message

from hsmsign.client import own_key
from hsmsign.client.channel import open_aio_channel
from hsmsign.client.configuration import Endpoint
from hsmsign.client.failures import from_call
from hsmsign.client.messages import Call
from hsmsign.model.errors import HsmsignError

T = TypeVar("T")


class AsyncConnection:
    """What `AsyncClient` is made of that concerns no call in particular."""

    def __init__(self, endpoint: Endpoint, *, deadline: float = 30.0) -> None:
        self.endpoint = endpoint
        self.deadline = deadline
        self._own_key = own_key.find(endpoint.tls.key if endpoint.tls else None)
        try:
            self._channel = open_aio_channel(endpoint, self._own_key)
        except BaseException:
            self._let_go()
            raise
        self._methods: dict[str, Any] = {}

    async def close(self) -> None:
        """Let go of the connection; calls under way end with an error."""
        await self._channel.close()
        self._let_go()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _receive(
        self, path: str, request: Message, response: type[Message], deadline: float | None
    ) -> AsyncIterator[Any]:
        """What a call with many answers gives. No deadline by default."""
        method: Any = self._channel.unary_stream(path, request.__class__.SerializeToString, response.FromString)
        call = method(request, timeout=deadline)
        try:
            async for answer in call:
                yield answer
        except grpc.aio.AioRpcError as error:
            raise self._failed(error) from None
        finally:
            call.cancel()

    def _failed(self, error: Any) -> HsmsignError:
        found = from_call(error, self.endpoint)
        return self._own_key.explain(found) if self._own_key else found

    def _let_go(self) -> None:
        if self._own_key is not None:
            self._own_key.close()

    def _timeout(self, deadline: float | None) -> float:
        return self.deadline if deadline is None else deadline

    async def _call(self, call: Call[T], deadline: float | None) -> T:
        method = self._methods.get(call.path)
        if method is None:
            method = self._methods[call.path] = self._channel.unary_unary(
                call.path, call.request.__class__.SerializeToString, call.response.FromString
            )
        try:
            answer = await method(call.request, timeout=self._timeout(deadline))
        except grpc.aio.AioRpcError as error:
            raise self._failed(error) from None
        return call.read(answer)

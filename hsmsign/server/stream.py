"""SignStream: requests are read as long as there is room, answers are written as they come.

An answer holds its room until it is written. A caller that sends without reading therefore fills the
window, is read no further, and costs no more memory than that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import structlog

from hsmsign.model.errors import HsmsignError, UnavailableError
from hsmsign.server import wire_signing as wire
from hsmsign.server.guard import Call
from hsmsign.signing import GroupResult, Limits, SignGroup, SigningPipeline
from hsmsign.v1 import signing_pb2

_log = structlog.get_logger(__name__)


class Window:
    """Room for so many inputs with so many bytes. What is larger than all of it gets in alone."""

    def __init__(self, items: int, size: int) -> None:
        self._limits = (items, size)
        self._items = 0
        self._size = 0
        self._left = asyncio.Event()

    async def enter(self, items: int, size: int) -> None:
        """Wait for room. One task at a time may wait."""
        while self._items and (self._items + items > self._limits[0] or self._size + size > self._limits[1]):
            self._left.clear()
            await self._left.wait()
        self._items += items
        self._size += size

    def leave(self, items: int, size: int) -> None:
        """Give room back."""
        self._items -= items
        self._size -= size
        self._left.set()


class _Stream:
    def __init__(self, pipeline: SigningPipeline, limits: Limits, call: Call) -> None:
        self._pipeline = pipeline
        self._call = call
        self._window = Window(limits.stream_window, limits.max_batch_bytes)
        self._writing = asyncio.Lock()
        self.answers: set[asyncio.Task[None]] = set()

    async def read(self, requests: AsyncIterator[signing_pb2.SignStreamRequest]) -> None:
        """Take requests until the caller closes its side."""
        async for request in requests:
            group = wire.sign_group(request.group)
            inputs = group.inputs if isinstance(group, SignGroup) else []
            items, size = max(1, len(inputs)), sum(map(len, inputs))
            await self._window.enter(items, size)
            self._call.apart = True
            answer = self._answer(request.id, request.group.name, group, items, size)
            task = asyncio.get_running_loop().create_task(answer)
            self.answers.add(task)
            task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self.answers.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.debug("an answer could not be written: the caller has gone", error=str(task.exception()))

    async def _answer(self, id: int, name: str, group: SignGroup | HsmsignError, items: int, size: int) -> None:
        try:
            result = await self._sign(name, group)
            answer = signing_pb2.SignStreamResponse(id=id, result=wire.group_result(result)).SerializeToString()
            async with self._writing:
                await self._call.context.write(answer)
        finally:
            self._window.leave(items, size)

    async def _sign(self, name: str, group: SignGroup | HsmsignError) -> GroupResult | HsmsignError:
        try:
            if isinstance(group, HsmsignError):
                raise group
            caller = self._call.identify()  # a stream may outlive the caller's certificate
            return await self._pipeline.sign_message(caller, group, self._call.deadline, self._call.request_id)
        except HsmsignError as error:
            failure = error
        except Exception:  # noqa: BLE001 - the last resort: it is logged, and the caller learns nothing of it
            _log.exception("a request of a stream failed inside")
            failure = HsmsignError("something went wrong inside the daemon", hint="its log says what")
        await self._call.refused(failure, name)  # none of these came to where it would have been recorded
        return failure


async def _still_there(call: Call) -> None:
    """Raises CancelledError where the caller of a stream without an answer has hung up. For a moment that looks as if
    it had closed its side; who sends something into the call is told which of the two it was."""
    try:
        await call.context.send_initial_metadata(())
    except grpc.aio.InternalError as error:  # it failed, and the word of the cancellation is still on its way
        raise asyncio.CancelledError from error


async def answer_stream(
    pipeline: SigningPipeline, limits: Limits, requests: AsyncIterator[signing_pb2.SignStreamRequest], call: Call
) -> None:
    """Answer until the caller closes its side and has every answer. Raises UnavailableError when the daemon
    stops: what was read by then is answered first."""
    stream = _Stream(pipeline, limits, call)
    reading = asyncio.ensure_future(stream.read(requests))
    stopping = asyncio.ensure_future(call.drained.wait())
    try:
        await asyncio.wait((reading, stopping), return_when=asyncio.FIRST_COMPLETED)
        ended = reading.done()
        reading.cancel()
        while stream.answers:
            await asyncio.wait(stream.answers)
        if not ended:
            raise UnavailableError("the daemon is stopping; what has no answer was not signed", retry_after=1.0)
        reading.result()
        if not call.apart:
            await _still_there(call)
    finally:
        for task in (reading, stopping, *stream.answers):
            task.cancel()

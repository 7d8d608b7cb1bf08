"""Signatures of the asyncio client: one, many, a stream of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from typing import Any

import grpc

from hsmsign.client import failures, messages, signatures, stream
from hsmsign.client.coalescing import Coalescer, Kind
from hsmsign.client.coalescing_tasks import Tasks
from hsmsign.client.configuration import Endpoint
from hsmsign.client.connection_async import AsyncConnection
from hsmsign.client.signing import Progress
from hsmsign.client.values import Signature, SignedBatch, Verdict
from hsmsign.model.algorithms import InputKind, Scheme, SignatureFormat
from hsmsign.model.errors import DeadlineError, HsmsignError
from hsmsign.v1 import signing_pb2


class AsyncSigning(AsyncConnection):
    """The part of `AsyncClient` that signs."""

    def __init__(self, endpoint: Endpoint, *, deadline: float = 30.0) -> None:
        super().__init__(endpoint, deadline=deadline)
        self._tasks = Tasks(_Wire(self), Coalescer())

    async def close(self) -> None:
        """Let go of the connection; calls under way end with an error."""
        self._tasks.close()
        await super().close()

    async def sign(
        self,
        name: str,
        *,
        message: bytes | None = None,
        digest: bytes | None = None,
        scheme: Scheme | None = None,
        format: SignatureFormat = SignatureFormat.DER,
        deadline: float | None = None,
    ) -> Signature:
        """Sign a message, or a digest of it. What several tasks sign at the same time travels together: see
        `Client.sign`."""
        kind, data = signatures.what(message, digest)
        return await self._tasks.sign(name, scheme, kind, format, data, self._timeout(deadline))

    async def verify(
        self,
        name: str,
        signature: bytes,
        *,
        message: bytes | None = None,
        digest: bytes | None = None,
        scheme: Scheme | None = None,
        format: SignatureFormat = SignatureFormat.DER,
        deadline: float | None = None,
    ) -> Verdict:
        """Let the daemon check a signature; the answer is true where it is valid."""
        return await self._call(signatures.verify(name, signature, message, digest, scheme, format), deadline)

    async def sign_batch(
        self,
        name: str,
        inputs: Sequence[bytes],
        *,
        kind: InputKind = InputKind.DIGEST,
        scheme: Scheme | None = None,
        format: SignatureFormat = SignatureFormat.DER,
        on_progress: Progress | None = None,
        deadline: float | None = None,
    ) -> SignedBatch:
        """Sign many inputs with one key; see `Client.sign_batch`."""
        full, pieces = messages.key_name(name), signatures.split(inputs)
        done = SignedBatch((), full, scheme)
        ahead = asyncio.Semaphore(signatures.CALLS_AHEAD)
        count = 0

        async def one(key: str, piece: Sequence[bytes], with_scheme: Scheme | None) -> SignedBatch:
            nonlocal count
            async with ahead:
                group = signatures.group(key, piece, kind, with_scheme, format)
                answer = await self._call(signatures.sign_batch(group), deadline)
            count += len(answer)
            if on_progress:
                on_progress(count)
            return answer

        for piece in pieces:  # the first by itself: it says which version signs the rest
            done = await one(full, piece, scheme)
            break
        tasks: list[asyncio.Task[SignedBatch]] = []
        try:
            tasks.extend(asyncio.ensure_future(one(done.key_version, piece, done.scheme)) for piece in pieces)
            for task in tasks:
                done.extend(await task)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return done

    async def sign_stream(
        self,
        name: str,
        inputs: AsyncIterable[bytes] | Iterable[bytes],
        *,
        kind: InputKind = InputKind.DIGEST,
        scheme: Scheme | None = None,
        format: SignatureFormat = SignatureFormat.DER,
        group_size: int = 64,
        deadline: float | None = None,
    ) -> AsyncIterator[bytes | HsmsignError]:
        """Sign what an iterator gives, over one stream; see `Client.sign_stream`."""
        book, room = stream.StreamBook(name, kind, scheme, format), asyncio.Semaphore(stream.GROUPS_AHEAD)
        failure = list[Exception]()

        async def requests() -> AsyncIterator[signing_pb2.SignStreamRequest]:
            try:
                async for piece in _grouped(inputs, group_size):
                    await room.acquire()
                    yield book.request(piece)
            except Exception as error:  # noqa: BLE001 - the caller's iterator may raise anything; it is raised again there
                failure.append(error)

        method: Any = self._channel.stream_stream(
            stream.PATH, signing_pb2.SignStreamRequest.SerializeToString, signing_pb2.SignStreamResponse.FromString
        )
        call = method(requests(), timeout=deadline)
        try:
            async for answer in call:
                room.release()
                for batch in book.answered(answer):
                    for entry in batch:
                        yield entry
        except grpc.aio.AioRpcError as error:
            raise self._failed(error) from None
        finally:
            call.cancel()
        book.ended(failure)


class _Wire:
    """Coalesced signatures as calls."""

    def __init__(self, client: AsyncSigning) -> None:
        self._client = client

    def full(self, name: str) -> str:
        return messages.key_name(name)

    async def one(self, kind: Kind, data: bytes, timeout: float) -> Signature:  # noqa: ASYNC109 - it goes to gRPC
        return await self._client._call(signatures.sign_one(*kind, data), timeout)

    async def many(self, kind: Kind, inputs: list[bytes], timeout: float) -> SignedBatch:  # noqa: ASYNC109 - as above
        if len(inputs) == 1:
            answer = await self.one(kind, inputs[0], timeout)
            return SignedBatch([answer.value], answer.key_version, answer.scheme)
        group = signatures.group(kind.name, inputs, kind.input, kind.scheme, kind.format)
        return await self._client._call(signatures.sign_batch(group), timeout)

    def late(self) -> DeadlineError:
        return failures.late(self._client.endpoint)


async def _grouped(inputs: AsyncIterable[bytes] | Iterable[bytes], size: int) -> AsyncIterator[list[bytes]]:
    if not isinstance(inputs, AsyncIterable):
        take = stream.groups(inputs, size)
        while piece := take():
            yield piece
        return
    gathered: list[bytes] = []
    async for one in inputs:
        gathered.append(one)
        if len(gathered) == size:
            yield gathered
            gathered = []
    if gathered:
        yield gathered

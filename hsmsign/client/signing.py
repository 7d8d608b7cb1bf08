"""Signatures of the blocking client: one, many, a stream of them."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import grpc

from hsmsign.client import failures, messages, signatures, stream
from hsmsign.client.coalescing import Coalescer, Kind, closed, failed
from hsmsign.client.coalescing_threads import Answer, Threads
from hsmsign.client.configuration import Endpoint
from hsmsign.client.connection import Connection
from hsmsign.client.messages import Call
from hsmsign.client.values import Signature, SignedBatch, Verdict
from hsmsign.model.algorithms import InputKind, Scheme, SignatureFormat
from hsmsign.model.errors import DeadlineError, HsmsignError
from hsmsign.v1 import signing_pb2

Progress = Callable[[int], object]


class Signing(Connection):
    """The part of `Client` that signs."""

    def __init__(self, endpoint: Endpoint, *, deadline: float = 30.0) -> None:
        super().__init__(endpoint, deadline=deadline)
        self._coalesced = self._coalesce()

    def close(self) -> None:
        """Let go of the connection; calls under way end with an error."""
        self._coalesced[1].close()
        super().close()

    def sign(
        self,
        name: str,
        *,
        message: bytes | None = None,
        digest: bytes | None = None,
        scheme: Scheme | None = None,
        format: SignatureFormat = SignatureFormat.DER,
        deadline: float | None = None,
    ) -> Signature:
        """Sign a message, or a digest of it. `scheme` is wanted for RSA keys, which have several.

        What several threads sign at the same time with one key travels together, as a batch. Each has its own deadline
        and its own error all the same.
        """
        kind, data = signatures.what(message, digest)
        return self._threads().sign(name, scheme, kind, format, data, self._timeout(deadline))

    def verify(
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
        return self._call(signatures.verify(name, signature, message, digest, scheme, format), deadline)

    def sign_batch(
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
        """Sign many inputs with one key: a list with, for each, the signature or that item's HsmsignError.

        An error of the whole call is raised. Any number of inputs will do: they go out in calls that the
        daemon takes, a few at a time, `deadline` for each. All are signed by one version, also when the
        key is rotated meanwhile. `on_progress` is called with the number of inputs that are done.
        """
        full, pieces = messages.key_name(name), signatures.split(inputs)
        done = SignedBatch((), full, scheme)
        for piece in pieces:  # the first by itself: it says which version signs the rest
            done = self._call(signatures.sign_batch(signatures.group(full, piece, kind, scheme, format)), deadline)
            if on_progress:
                on_progress(len(done))
            break
        ahead: deque[tuple[Any, Call[SignedBatch]]] = deque()
        try:
            for piece in pieces:
                group = signatures.group(done.key_version, piece, kind, done.scheme, format)
                ahead.append(self._begin(signatures.sign_batch(group), deadline))
                if len(ahead) >= signatures.CALLS_AHEAD:
                    batch = self._finish(*ahead.popleft())
                    done.extend(batch)
                    if on_progress:
                        on_progress(len(done))
            while ahead:
                batch = self._finish(*ahead.popleft())
                done.extend(batch)
                if on_progress:
                    on_progress(len(done))
        finally:
            for future, _ in ahead:
                future.cancel()
        return done

    def sign_stream(
        self,
        name: str,
        inputs: Iterable[bytes],
        *,
        kind: InputKind = InputKind.DIGEST,
        scheme: Scheme | None = None,
        format: SignatureFormat = SignatureFormat.DER,
        group_size: int = 64,
        deadline: float | None = None,
    ) -> Iterator[bytes | HsmsignError]:
        """Sign what an iterator gives, over one stream: for each, in order, the signature or its error.

        `group_size` inputs are gathered before they are sent; 1 sends each at once. `inputs` is read from
        another thread. There is no deadline unless you give one: it is that of the whole stream. Each
        group is signed by the version that is primary then, unless you name one.
        """
        book = stream.StreamBook(name, kind, scheme, format)
        room, over, failure = threading.Semaphore(stream.GROUPS_AHEAD), threading.Event(), list[Exception]()
        take = stream.groups(inputs, group_size)

        def requests() -> Iterator[signing_pb2.SignStreamRequest]:
            try:
                while room.acquire() and not over.is_set() and (piece := take()):
                    yield book.request(piece)
            except Exception as error:  # noqa: BLE001 - the caller's iterator may raise anything; it is raised again there
                failure.append(error)

        call = self._stream()(requests(), timeout=deadline)
        try:
            for answer in call:
                room.release()
                for batch in book.answered(answer):
                    yield from batch
        except grpc.RpcError as error:
            raise self._failed(error) from None
        finally:
            over.set()
            room.release()
            call.cancel()
        book.ended(failure)

    def _stream(self) -> Any:
        return self._channel.stream_stream(
            stream.PATH,
            signing_pb2.SignStreamRequest.SerializeToString,
            signing_pb2.SignStreamResponse.FromString,
        )

    def _coalesce(self) -> tuple[int, Threads]:
        return os.getpid(), Threads(_Wire(self), Coalescer())

    def _threads(self) -> Threads:
        """What makes batches. A child has its own: the flights that its parent waits for land there only."""
        if self._coalesced[0] != os.getpid():
            self._coalesced = self._coalesce()
        return self._coalesced[1]


class _Wire:
    """Coalesced signatures as calls."""

    def __init__(self, client: Signing) -> None:
        self._client = client

    def full(self, name: str) -> str:
        return messages.key_name(name)

    def one(self, kind: Kind, data: bytes, timeout: float) -> Signature:
        call = signatures.sign_one(*kind, data)
        try:
            return self._client._call(call, timeout)
        except ValueError as error:  # what gRPC says of a channel that is closed
            raise closed() from error

    def many(self, kind: Kind, inputs: list[bytes], timeout: float, done: Callable[[Answer], None]) -> None:
        if len(inputs) == 1:
            call: Call[Any] = signatures.sign_one(*kind, inputs[0])
        else:
            call = signatures.sign_batch(signatures.group(kind.name, inputs, kind.input, kind.scheme, kind.format))
        try:
            future, call = self._client._begin(call, timeout)
        except ValueError as error:  # as above
            raise closed() from error
        future.add_done_callback(lambda _: done(self._read(future, call)))

    def late(self) -> DeadlineError:
        return failures.late(self._client.endpoint)

    def _read(self, future: Any, call: Call[Any]) -> Answer:
        try:
            answer = self._client._finish(future, call)
        except HsmsignError as error:
            return error
        except grpc.FutureCancelledError:
            return closed()
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
            return failed(error)
        if isinstance(answer, Signature):
            return SignedBatch([answer.value], answer.key_version, answer.scheme)
        batch: SignedBatch = answer
        return batch

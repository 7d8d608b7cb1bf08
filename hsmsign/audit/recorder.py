"""A worker's way to the audit log. Belongs to one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from hsmsign.audit.wire import COUNT, SIZE, Ask, Frames, Say, frame
from hsmsign.model.errors import AuditUnavailableError

_PATIENCE = 5.0
"""Seconds without the auditor after which callers are told."""
_AGAIN = 0.05
_REFUSING = 1.0
"""Seconds after a refusal in which nothing is tried: the disk is full for longer than a moment."""


class Recorder:
    """Sends records to the auditor, and says when they are in the log.

    The auditor may go away and come back: what has no answer yet is sent again, so that a record can be there twice,
    with the same id.
    """

    def __init__(self, path: Path, *, relaxed: bool = False) -> None:
        self._path = path
        self._kind = Ask.RELAXED if relaxed else Ask.RECORDS
        self._records: deque[tuple[bytes, asyncio.Future[None]]] = deque()
        self._questions: deque[asyncio.Future[bytes]] = deque()
        self._out: list[bytes] = []
        self._wire: _Wire | None = None
        self._lost_at = time.monotonic()
        self._refused: tuple[float, str] = (0.0, "")
        self._disconnected = asyncio.Event()
        self._disconnected.set()
        self._task = asyncio.get_running_loop().create_task(self._keep_connected())

    def ready(self) -> None:
        """Raise AuditUnavailableError where it is known that nothing can be recorded now."""
        if self._refused[0] and time.monotonic() < self._refused[0]:
            raise _unavailable(self._refused[1])
        if self._wire is None and time.monotonic() > self._lost_at + _PATIENCE:
            raise _unavailable("the auditor is not there")

    def write(self, lines: Iterable[bytes]) -> asyncio.Future[None]:
        """Record. What it answers is done when the records are in the log, or raises AuditUnavailableError."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        done.add_done_callback(_seen)
        data = frame(self._kind, b"\n".join(lines))
        self._records.append((data, done))
        if self._wire is not None:
            self._send(data)
        return done

    async def head(self) -> tuple[int, bytes]:
        """Size and root of the log. Raises AuditUnavailableError."""
        answer = await self._ask(frame(Ask.HEAD))
        return SIZE.unpack_from(answer)[0], answer[SIZE.size :]

    async def keep(self, note: bytes) -> str:
        """Have a signed checkpoint kept; why not, where it is not. Raises AuditUnavailableError."""
        return (await self._ask(frame(Ask.KEEP, note))).decode()

    def waiting(self) -> int:
        """Calls whose records are not in the log yet."""
        return len(self._records)

    async def close(self) -> None:
        """Wait for what is on its way, a moment, and let go."""
        with contextlib.suppress(TimeoutError, AuditUnavailableError):
            async with asyncio.timeout(_PATIENCE):
                while self._records:
                    await asyncio.wait([self._records[-1][1]])
        self._task.cancel()
        if self._wire is not None:
            self._wire.transport.close()
        self._fail("the daemon is stopping")

    # ---- what the connection says ----

    def heard(self, kind: int, body: bytes) -> None:
        """An answer came."""
        if kind in (Say.DONE, Say.REFUSED):
            (count,) = COUNT.unpack_from(body)
            words = body[COUNT.size :].decode(errors="replace")
            if kind == Say.REFUSED:
                self._refused = (time.monotonic() + _REFUSING, words)
            for _ in range(count):
                _, done = self._records.popleft()
                if not done.done():
                    if kind == Say.DONE:
                        done.set_result(None)
                    else:
                        done.set_exception(_unavailable(words))
        else:
            question = self._questions.popleft()
            if not question.done():
                question.set_result(body)

    def lost(self) -> None:
        """The connection is gone."""
        self._wire = None
        self._disconnected.set()
        self._lost_at = time.monotonic()
        while self._questions:
            question = self._questions.popleft()
            if not question.done():
                question.set_exception(_unavailable("the auditor went away"))

    # ----

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._disconnected.wait()
            try:
                _, wire = await loop.create_unix_connection(lambda: _Wire(self), str(self._path))
            except OSError:
                if time.monotonic() > self._lost_at + _PATIENCE:
                    self._fail("the auditor is not there")
                await asyncio.sleep(_AGAIN)
                continue
            self._disconnected.clear()
            self._wire = wire
            self._out = [data for data, _ in self._records]
            self._flush()

    async def _ask(self, question: bytes) -> bytes:
        if self._wire is None:
            raise _unavailable("the auditor is not there")
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._questions.append(answer)
        self._send(question)
        return await answer

    def _send(self, data: bytes) -> None:
        """What is sent in one round of the loop goes out together."""
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._wire is not None and out:
            self._wire.transport.write(b"".join(out))

    def _fail(self, words: str) -> None:
        while self._records:
            _, done = self._records.popleft()
            if not done.done():
                done.set_exception(_unavailable(words))


class _Wire(asyncio.Protocol):
    def __init__(self, owner: Recorder) -> None:
        self._owner = owner
        self._frames = Frames()
        self.transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.WriteTransport", transport)  # uvloop's are, and are not of that class

    def data_received(self, data: bytes) -> None:
        for kind, body in self._frames.feed(data):
            self._owner.heard(kind, body)

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.lost()


def _seen(done: asyncio.Future[None]) -> None:
    """Not everybody waits for it."""
    if not done.cancelled():
        done.exception()


def _unavailable(words: str) -> AuditUnavailableError:
    return AuditUnavailableError(
        f"the audit log cannot take what is done here: {words}",
        hint="nothing is given out that is not recorded; is its disk full? the daemon's log says more",
        retry_after=1.0,
    )

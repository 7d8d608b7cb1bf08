"""A worker's way to the audit log. Belongs to one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from hsmsign.audit.records import Records
from hsmsign.audit.wire import SIZE, Ask, Frames, Say, frame
from hsmsign.model.errors import AuditUnavailableError

_PATIENCE = 5.0
"""Seconds without the auditor after which callers are told."""
_AGAIN = 0.05
_SIBLINGS = 8
_GATHERING = 0.004
"""Seconds that a group waits where so many calls are under way that more will come: each asks the disk once."""
_PROBE = 1.0
"""Seconds between two looks whether a log that was refused can be written again."""


@dataclass(slots=True)
class _Group:
    """Records that go out together, and who waits for them."""

    lines: list[bytes] = field(default_factory=list)
    waiting: list[asyncio.Future[None]] = field(default_factory=list)

    def end(self, error: AuditUnavailableError | None = None) -> None:
        """Tell everybody."""
        for done in self.waiting:
            if not done.done():
                if error is None:
                    done.set_result(None)
                else:
                    done.set_exception(error)


class Recorder:
    """Sends records to the auditor, and says when they are in the log.

    One group is on its way at a time: what comes meanwhile is the next one, so that the disk is asked once for many.
    The auditor may go away and come back: what has no answer yet is sent again, so that a record can be there twice,
    with the same id.
    """

    def __init__(self, path: Path, *, relaxed: bool = False, busy: Callable[[], int] = lambda: 0) -> None:
        """`busy` tells how many calls are under way."""
        self._path = path
        self._busy = busy
        self._gathering = False
        self._kind = Ask.RELAXED if relaxed else Ask.RECORDS
        self._next = _Group()
        self._under_way: _Group | None = None
        self._questions: deque[asyncio.Future[bytes]] = deque()
        self._wire: _Wire | None = None
        self._lost_at = time.monotonic()
        self._refused = ""
        self._disconnected = asyncio.Event()
        self._disconnected.set()
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._keep_connected())

    def ready(self) -> None:
        """Raise AuditUnavailableError where it is known that nothing can be recorded now."""
        if self._refused:
            raise _unavailable(self._refused)
        if self._wire is None and time.monotonic() > self._lost_at + _PATIENCE:
            raise _unavailable("the auditor is not there")

    def write(self, lines: Iterable[bytes]) -> asyncio.Future[None]:
        """Record. What it answers is done when the records are in the log, or raises AuditUnavailableError."""
        done: asyncio.Future[None] = self._loop.create_future()
        done.add_done_callback(_seen)
        self._next.lines += lines
        self._next.waiting.append(done)
        self._gather()
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
        return len(self._next.waiting) + (len(self._under_way.waiting) if self._under_way is not None else 0)

    async def close(self) -> None:
        """Wait for what is on its way, a moment, and let go."""
        with contextlib.suppress(TimeoutError, AuditUnavailableError):
            async with asyncio.timeout(_PATIENCE):
                await self.write([])
        self._task.cancel()
        if self._wire is not None:
            self._wire.transport.close()
        self._fail("the daemon is stopping")

    # ---- what the connection says ----

    def heard(self, kind: int, body: bytes) -> None:
        """An answer came."""
        if kind in (Say.DONE, Say.REFUSED):
            group, self._under_way = self._under_way, None
            error = None
            self._refused = body.decode(errors="replace") if kind == Say.REFUSED else ""
            if kind == Say.REFUSED:
                error = _unavailable(self._refused)
                self._loop.call_later(_PROBE, self._probe)
            if group is not None:
                group.end(error)
            self._gather()
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
        while True:
            await self._disconnected.wait()
            try:
                _, wire = await self._loop.create_unix_connection(lambda: _Wire(self), str(self._path))
            except OSError:
                if time.monotonic() > self._lost_at + _PATIENCE:
                    self._fail("the auditor is not there")
                await asyncio.sleep(_AGAIN)
                continue
            self._disconnected.clear()
            self._wire = wire
            if self._under_way is not None:
                self._send(self._under_way)
            else:
                self._send_next()

    async def _ask(self, question: bytes) -> bytes:
        if self._wire is None:
            raise _unavailable("the auditor is not there")
        answer: asyncio.Future[bytes] = self._loop.create_future()
        self._questions.append(answer)
        self._wire.transport.write(question)
        return await answer

    def _gather(self) -> None:
        """Send what waits, with what else comes soon."""
        if self._gathering or not self._next.waiting or self._under_way is not None:
            return
        self._gathering = True
        if self._busy() - len(self._next.waiting) >= _SIBLINGS:
            self._loop.call_later(_GATHERING, self._send_next)
        else:
            self._loop.call_soon(self._send_next)

    def _probe(self) -> None:
        """Nobody else tries while it is known that it cannot be written."""
        if self._refused and not self._next.waiting:
            self.write([Records().event("resumed")])

    def _send_next(self) -> None:
        self._gathering = False
        if self._next.waiting and self._under_way is None and self._wire is not None:
            self._under_way, self._next = self._next, _Group()
            self._send(self._under_way)

    def _send(self, group: _Group) -> None:
        if self._wire is not None:
            self._wire.transport.write(frame(self._kind, b"\n".join(group.lines)))

    def _fail(self, words: str) -> None:
        groups = [self._under_way, self._next]
        self._under_way, self._next = None, _Group()
        for group in groups:
            if group is not None:
                group.end(_unavailable(words))


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

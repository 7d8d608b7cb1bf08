"""The loads: each makes signatures until its tally is over, and counts them there.

Before its time runs, each makes a call that is not counted: it connects, and fills what is kept for the next one.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from hsmsign.client import Client
from hsmsign.client.asynchronous import AsyncClient
from hsmsign.measuring.plan import BATCHES_AT_ONCE, Load, LoadKind, Subject
from hsmsign.measuring.tally import Tally
from hsmsign.model.algorithms import InputKind
from hsmsign.model.errors import HsmsignError

_LOOK = 0.2
"""Seconds after which a thread that waits for others looks whether a person wants it to end."""


def run(client: Client, subject: Subject, load: Load, tally: Tally) -> None:
    """Run one load to its end. Raises HsmsignError, the first that a caller met; KeyboardInterrupt, when all its
    callers have ended."""
    _RUN[load.kind](client, subject, load.count, tally)
    if tally.failure is not None:
        raise tally.failure


def _batch(client: Client, subject: Subject, count: int, tally: Tally) -> None:
    inputs = subject.inputs(count)

    def call() -> None:
        client.sign_batch(subject.key_version, inputs, kind=subject.kind, scheme=subject.scheme).signatures()

    call()
    _threads(call, tally, BATCHES_AT_ONCE)


def _alone(client: Client, subject: Subject, _: int, tally: Tally) -> None:
    (data,) = subject.inputs(1)
    message, digest = (None, data) if subject.kind is InputKind.DIGEST else (data, None)

    def call() -> None:
        client.sign(subject.key_version, message=message, digest=digest, scheme=subject.scheme)

    call()
    _threads(call, tally, 1)


def _threads(call: Callable[[], None], tally: Tally, count: int) -> None:
    """The same call from so many threads. They are not this one, so that a person can interrupt it at any time."""

    def work() -> None:
        try:
            while not tally.over:
                began = time.perf_counter()
                call()
                tally.add(began)
        except HsmsignError as error:
            tally.fail(error)

    workers = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    tally.begin()
    for worker in workers:
        worker.start()
    try:
        _join(workers)
    except KeyboardInterrupt:
        tally.stop()
        _join(workers)
        raise


def _join(workers: list[threading.Thread]) -> None:
    for worker in workers:
        while worker.is_alive():
            worker.join(_LOOK)


def _callers(client: Client, subject: Subject, count: int, tally: Tally) -> None:
    (data,) = subject.inputs(1)
    message, digest = (None, data) if subject.kind is InputKind.DIGEST else (data, None)

    async def everybody() -> None:
        async with AsyncClient(client.endpoint, deadline=client.deadline) as shared:

            async def sign() -> None:
                await shared.sign(subject.key_version, message=message, digest=digest, scheme=subject.scheme)

            async def caller() -> None:
                try:
                    while not tally.over:
                        began = time.perf_counter()
                        await sign()
                        tally.add(began)
                except HsmsignError as error:
                    tally.fail(error)

            await sign()
            tally.begin()
            await asyncio.gather(*(caller() for _ in range(count)))

    asyncio.run(everybody())


def _stream(client: Client, subject: Subject, _: int, tally: Tally) -> None:
    (data,) = subject.inputs(1)
    sent: deque[float] = deque()

    def inputs() -> Iterator[bytes]:
        while not tally.over:
            sent.append(time.perf_counter())
            yield data

    def stream(what: Iterable[bytes]) -> Iterator[bytes]:
        deadline = tally.seconds + client.deadline
        name, kind, scheme = subject.key_version, subject.kind, subject.scheme
        for answer in client.sign_stream(name, what, kind=kind, scheme=scheme, deadline=deadline):
            if isinstance(answer, HsmsignError):
                raise answer
            yield answer

    for _signature in stream([data]):
        pass
    tally.begin()
    for _signature in stream(inputs()):
        tally.add(sent.popleft())


_RUN: dict[LoadKind, Callable[[Client, Subject, int, Tally], None]] = {
    LoadKind.BATCH: _batch,
    LoadKind.CALLERS: _callers,
    LoadKind.ALONE: _alone,
    LoadKind.STREAM: _stream,
}

"""Coalesced signatures for callers that are tasks of one event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from functools import partial
from typing import Any, Protocol

from hsmsign.client.coalescing import Again, Coalescer, Flight, Item, Kind, closed, failed, outcomes
from hsmsign.client.values import Signature, SignedBatch
from hsmsign.model.algorithms import InputKind, Scheme, SignatureFormat
from hsmsign.model.errors import DeadlineError, HsmsignError

Future = asyncio.Future[None]


class Transport(Protocol):
    """What carries signatures to a daemon. Times are in seconds."""

    def full(self, name: str) -> str:
        """A key's whole name. Raises ResourceNameError."""
        ...

    async def one(self, kind: Kind, data: bytes, timeout: float) -> Signature:  # noqa: ASYNC109 - it goes to gRPC
        """Sign one input. Raises HsmsignError."""
        ...

    def many(self, kind: Kind, inputs: list[bytes], timeout: float) -> Coroutine[Any, Any, SignedBatch]:
        """Sign several. Raises HsmsignError."""
        ...

    def late(self) -> DeadlineError:
        """For a caller whose deadline has passed."""
        ...


class Tasks:
    """Signs for many tasks at once."""

    def __init__(self, transport: Transport, coalescer: Coalescer[Future]) -> None:
        self._transport = transport
        self._coalescer = coalescer
        self._outstanding: set[Item[Future]] = set()
        self._flying: dict[Flight[Future], asyncio.Task[SignedBatch]] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = float("inf")

    async def sign(
        self,
        name: str,
        scheme: Scheme | None,
        kind: InputKind,
        form: SignatureFormat,
        data: bytes,
        timeout: float,  # noqa: ASYNC109 - it goes to gRPC
    ) -> Signature:
        """Sign one input, alone or with others. Raises HsmsignError, DeadlineError among them."""
        item = Item(data, time.monotonic() + timeout, asyncio.get_running_loop().create_future())
        lane = self._coalescer.lane(name, scheme, kind, form, self._transport.full)
        flight = self._coalescer.arrive(lane, item)
        if flight is not None:
            if flight.count == 1 and flight.items[0] is item:
                return await self._alone(flight, data, timeout)
            self._launch(flight)
        self._outstanding.add(item)
        if item.deadline < self._alarm_at:
            self._set_alarm(item.deadline)
        try:
            await item.waiter
        finally:
            self._outstanding.discard(item)
            if item.outcome is None:
                self._left(item)
        outcome = item.outcome
        if isinstance(outcome, Signature):
            return outcome
        if outcome is None:
            raise self._transport.late()
        if isinstance(outcome, Again):
            return await self._transport.one(lane.kind, data, item.deadline - time.monotonic())
        raise outcome

    def close(self) -> None:
        """Whoever waits for a flight gets an error now; what is in the air ends by itself."""
        for item in self._coalescer.close():
            item.outcome = closed()
            _wake(item)
        if self._alarm is not None:
            self._alarm.cancel()

    async def _alone(self, flight: Flight[Future], data: bytes, timeout: float) -> Signature:  # noqa: ASYNC109
        """What a call of one's own costs: no other task."""
        try:
            return await self._transport.one(flight.kind, data, timeout)
        finally:
            self._land(flight)

    def _left(self, item: Item[Future]) -> None:
        """Who waited for it has gone; so goes a flight that nobody waits for."""
        if self._coalescer.left(item) and item.flight in self._flying:
            self._flying[item.flight].cancel()

    def _set_alarm(self, deadline: float) -> None:
        """Look at deadlines then. One timer for all: most callers give the same time, and few ever need it."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = deadline
        self._alarm = asyncio.get_running_loop().call_later(max(0.0, deadline - time.monotonic()), self._expire)

    def _expire(self) -> None:
        self._alarm, self._alarm_at = None, float("inf")
        now = time.monotonic()
        later = []
        for item in self._outstanding:
            if item.deadline > now:
                later.append(item.deadline)
            else:
                _wake(item)
        if later:
            self._set_alarm(min(later))

    def _launch(self, flight: Flight[Future]) -> None:
        timeout = flight.deadline - time.monotonic()
        work = self._transport.many(flight.kind, flight.inputs, timeout)
        task = asyncio.get_running_loop().create_task(work, context=flight.items[0].context)
        self._flying[flight] = task
        task.add_done_callback(partial(self._answered, flight))

    def _answered(self, flight: Flight[Future], task: asyncio.Task[SignedBatch]) -> None:
        del self._flying[flight]
        self._coalescer.answered(flight)
        answer = _answer(task)
        alone = self._coalescer.refused(flight, answer) if isinstance(answer, HsmsignError) else None
        if alone is None:
            for item, outcome in zip(flight.unload(), outcomes(flight.count, answer), strict=True):
                item.outcome = outcome
                _wake(item)
        else:
            for item in alone:
                _wake(item)
        # after those who were woken, so that what they want next goes in one batch
        asyncio.get_running_loop().call_soon(self._land, flight)

    def _land(self, flight: Flight[Future]) -> None:
        for following in self._coalescer.landed(flight):
            self._launch(following)


def _wake(item: Item[Future]) -> None:
    if not item.waiter.done():
        item.waiter.set_result(None)


def _answer(task: asyncio.Task[SignedBatch]) -> SignedBatch | HsmsignError:
    if task.cancelled():  # nobody waits for it, or the loop ends
        return closed()
    error = task.exception()
    if error is None:
        return task.result()
    return error if isinstance(error, HsmsignError) else failed(error)

"""Coalesced signatures for callers that are tasks of one event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Protocol

from hsmsign.client.coalescing import Again, Coalescer, Flight, Item, Kind, Lane, closed, outcomes
from hsmsign.client.values import Signature, SignedBatch
from hsmsign.model.errors import DeadlineError, HsmsignError


class Transport(Protocol):
    """What carries signatures to a daemon. Times are in seconds."""

    async def one(self, kind: Kind, data: bytes, timeout: float) -> Signature:  # noqa: ASYNC109 - it goes to gRPC
        """Sign one input. Raises HsmsignError."""
        ...

    async def many(self, kind: Kind, inputs: list[bytes], timeout: float) -> SignedBatch:  # noqa: ASYNC109 - as above
        """Sign several. Raises HsmsignError."""
        ...

    def late(self) -> DeadlineError:
        """For a caller whose deadline has passed."""
        ...


class Tasks:
    """Signs for many tasks at once."""

    def __init__(self, transport: Transport, coalescer: Coalescer, full: Callable[[str], str]) -> None:
        """`full` makes a key's whole name."""
        self._transport = transport
        self._coalescer = coalescer
        self._full = full
        self._outstanding: dict[Item, asyncio.Future[None]] = {}
        self._flying: dict[Flight, asyncio.Task[None]] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0

    async def sign(self, kind: Kind, data: bytes, timeout: float) -> Signature:  # noqa: ASYNC109 - it goes to gRPC
        """Sign one input, alone or with others. Raises HsmsignError, DeadlineError among them."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        item = Item(data, time.monotonic() + timeout, partial(_wake, future), copy_context())
        lane = self._coalescer.lane(kind, self._full)
        flight = self._coalescer.arrive(lane, item)
        if flight is not None:
            if flight.items[0] is item and len(flight.items) == 1:
                try:
                    return await self._transport.one(lane.kind, data, timeout)
                finally:
                    self._land(flight)
            self._launch(flight)
        return await self._wait(item, lane, future)

    def close(self) -> None:
        """Whoever waits for a flight gets an error now; what is in the air ends by itself."""
        for item in self._coalescer.close():
            item.outcome = closed()
            item.wake()
        if self._alarm is not None:
            self._alarm.cancel()

    async def _wait(self, item: Item, lane: Lane, future: asyncio.Future[None]) -> Signature:
        self._outstanding[item] = future
        if self._alarm is None or item.deadline < self._alarm_at:
            self._set_alarm(item.deadline)
        try:
            await future
        finally:
            del self._outstanding[item]
            if item.outcome is None and self._coalescer.left(item) and item.flight in self._flying:
                self._flying[item.flight].cancel()
        outcome = item.outcome
        if outcome is None:
            raise self._transport.late()
        if isinstance(outcome, Again):
            return await self._transport.one(lane.kind, item.data, item.deadline - time.monotonic())
        if isinstance(outcome, HsmsignError):
            raise outcome
        return outcome

    def _set_alarm(self, deadline: float) -> None:
        """Look at deadlines then. One timer for all: most callers give the same time, and few ever need it."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = deadline
        self._alarm = asyncio.get_running_loop().call_later(max(0.0, deadline - time.monotonic()), self._expire)

    def _expire(self) -> None:
        self._alarm = None
        now = time.monotonic()
        later = []
        for item, future in self._outstanding.items():
            if item.deadline > now:
                later.append(item.deadline)
            else:
                _wake(future)
        if later:
            self._set_alarm(min(later))

    def _launch(self, flight: Flight) -> None:
        context = flight.items[0].context
        task = asyncio.get_running_loop().create_task(self._fly(flight), context=context)
        self._flying[flight] = task

    async def _fly(self, flight: Flight) -> None:
        answer: SignedBatch | HsmsignError
        try:
            answer = await self._transport.many(flight.kind, flight.inputs, flight.deadline - time.monotonic())
        except HsmsignError as error:
            answer = error
        except asyncio.CancelledError:  # nobody waits for it, or the loop ends
            answer = closed()
        del self._flying[flight]
        alone = self._coalescer.refused(flight, answer) if isinstance(answer, HsmsignError) else None
        if alone is None:
            for item, outcome in zip(flight.items, outcomes(flight, answer), strict=True):
                item.outcome = outcome
                item.wake()
        else:
            for item in alone:
                item.wake()
        # after those who were woken, so that what they want next goes in one batch
        asyncio.get_running_loop().call_soon(self._land, flight)

    def _land(self, flight: Flight) -> None:
        for following in self._coalescer.landed(flight):
            self._launch(following)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)

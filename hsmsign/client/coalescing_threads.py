"""Coalesced signatures for callers that are threads. Who waits holds one lock, and is woken once.

There is no thread of our own: a batch is sent by whoever finds that it is time, a caller or the thread in which gRPC
says that the one before is over.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Protocol

from hsmsign.client.coalescing import Again, Coalescer, Flight, Item, Kind, closed, failed, outcomes
from hsmsign.client.values import Signature, SignedBatch
from hsmsign.model.algorithms import InputKind, Scheme, SignatureFormat
from hsmsign.model.errors import DeadlineError, HsmsignError

Answer = SignedBatch | HsmsignError


class Transport(Protocol):
    """What carries signatures to a daemon. Times are in seconds."""

    def full(self, name: str) -> str:
        """A key's whole name. Raises ResourceNameError."""
        ...

    def one(self, kind: Kind, data: bytes, timeout: float) -> Signature:
        """Sign one input, and wait for it. Raises HsmsignError."""
        ...

    def many(self, kind: Kind, inputs: list[bytes], timeout: float, done: Callable[[Answer], None]) -> None:
        """Begin to sign several. `done` is called once, here or in another thread, unless this raises."""
        ...

    def late(self) -> DeadlineError:
        """For a caller whose deadline has passed."""
        ...


class Threads:
    """Signs for many threads at once."""

    def __init__(self, transport: Transport, coalescer: Coalescer[threading.Lock]) -> None:
        self._transport = transport
        self._coalescer = coalescer
        self._mutex = threading.Lock()

    def sign(
        self, name: str, scheme: Scheme | None, kind: InputKind, form: SignatureFormat, data: bytes, timeout: float
    ) -> Signature:
        """Sign one input, alone or with others. Raises HsmsignError, DeadlineError among them."""
        waiter = threading.Lock()
        waiter.acquire()
        item = Item(data, time.monotonic() + timeout, waiter)
        with self._mutex:
            lane = self._coalescer.lane(name, scheme, kind, form, self._transport.full)
            flight = self._coalescer.arrive(lane, item)
        if flight is not None:
            if flight.count == 1 and flight.items[0] is item:
                return self._alone(flight, data, timeout)
            self._launch(flight)
        there = False
        try:
            there = waiter.acquire(timeout=max(0.0, min(timeout, threading.TIMEOUT_MAX)))
        finally:
            if not there:
                with self._mutex:
                    self._coalescer.left(item)
        outcome = item.outcome
        if isinstance(outcome, Signature):
            return outcome
        if outcome is None:
            raise self._transport.late()
        if isinstance(outcome, Again):
            return self._transport.one(lane.kind, data, item.deadline - time.monotonic())
        raise outcome

    def close(self) -> None:
        """Whoever waits for a flight gets an error now; what is in the air ends by itself."""
        with self._mutex:
            waiting = self._coalescer.close()
        for item in waiting:
            item.outcome = closed()
            item.waiter.release()

    def _alone(self, flight: Flight[threading.Lock], data: bytes, timeout: float) -> Signature:
        """What a call of one's own costs: no other thread, no callback."""
        try:
            return self._transport.one(flight.kind, data, timeout)
        finally:
            self._land(flight)

    def _launch(self, flight: Flight[threading.Lock]) -> None:
        """Send a batch. What interrupts this thread meanwhile is not the others' affair: theirs waits again."""
        timeout = flight.deadline - time.monotonic()
        context = flight.items[0].context or copy_context()
        done = partial(self._answered, flight)
        try:
            context.run(self._transport.many, flight.kind, flight.inputs, timeout, done)
        except HsmsignError as error:
            done(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
            done(failed(error))
        except BaseException:
            with self._mutex:
                unheard = self._coalescer.answered(flight)
                if unheard:
                    self._coalescer.back(flight)
            if unheard:
                self._land(flight)
            raise

    def _answered(self, flight: Flight[threading.Lock], answer: Answer) -> None:
        with self._mutex:
            if not self._coalescer.answered(flight):
                return
            alone = self._coalescer.refused(flight, answer) if isinstance(answer, HsmsignError) else None
        try:
            self._deliver(flight, answer, alone)
            time.sleep(0)  # those who were woken run now, so that what they want next goes in one batch
        finally:
            self._land(flight)

    def _deliver(
        self, flight: Flight[threading.Lock], answer: Answer, alone: list[Item[threading.Lock]] | None
    ) -> None:
        if alone is None:
            for item, outcome in zip(flight.unload(), outcomes(flight.count, answer), strict=True):
                item.outcome = outcome
                item.waiter.release()
        else:
            for item in alone:
                item.waiter.release()

    def _land(self, flight: Flight[threading.Lock]) -> None:
        with self._mutex:
            departing = self._coalescer.landed(flight)
        for following in departing:
            self._launch(following)

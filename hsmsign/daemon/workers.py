"""The front workers: as many as are configured, and while the configuration changes, those before them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from hsmsign.daemon.children import Backoff, Child, Event, HasFd
from hsmsign.daemon.config import Config
from hsmsign.daemon.doors import Doors
from hsmsign.daemon.worker_config import WorkerConfig
from hsmsign.ledger import Ledgers
from hsmsign.model.errors import HsmsignError
from hsmsign.model.hostwire import to_json

_PARTING = 2.0
"""Seconds that a worker which does not serve yet is given to go."""
_AGAIN = 0.5
"""Seconds until one that could not even be started is tried again."""
log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class _Seat:
    """A worker of a configuration; one after the other, where one goes away."""

    config: WorkerConfig
    environment: dict[str, str]
    child: Child
    run: asyncio.Task[int]


class WorkersKeeper:
    """Sees to it that the front workers are there."""

    def __init__(self, config: Config, changed: Callable[[], None]) -> None:
        """Open what callers connect to. Raises HsmsignError."""
        self._ledgers = Ledgers()
        self.doors = Doors(config)
        self._changed = changed
        self._seats: list[_Seat] = []
        self._starting: list[_Seat] = []
        self._retiring: set[Child] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._generation = 0
        self._stopping = False

    @property
    def current(self) -> list[Child]:
        """Those that serve, or will in a moment."""
        return [seat.child for seat in self._seats]

    @property
    def children(self) -> list[Child]:
        """All workers that run now."""
        return [*self.current, *(seat.child for seat in self._starting), *self._retiring]

    async def start(self, config: WorkerConfig, environment: dict[str, str]) -> Event | None:
        """Start workers and wait until they serve; then let those before them finish and go.

        Gives what one said where it cannot start: then nothing has changed, as where waiting is cancelled.
        """
        self._generation += 1
        config = replace(config, listen=self.doors.endpoint, generation=self._generation)
        failure: Event | None = None
        try:
            # the first alone: what it does to the database, and what it finds wrong, is once for all
            for numbers in (range(1), range(1, config.workers)):
                seats = [self._sit(replace(config, number=number), environment) for number in numbers]
                failure = failure or await _until_ready(seats)
                if failure is not None:
                    break
        except (HsmsignError, OSError) as error:
            failure = {"message": str(error), "hint": error.hint if isinstance(error, HsmsignError) else ""}
        except asyncio.CancelledError:
            await self._give_up()
            raise
        if failure is not None:
            await self._give_up()
            return failure
        self._take_over()
        return None

    def _sit(self, config: WorkerConfig, environment: dict[str, str]) -> _Seat:
        child, run = self._spawn(config, environment)
        seat = _Seat(config, environment, child, run)
        self._starting.append(seat)
        return seat

    def _take_over(self) -> None:
        before, self._seats, self._starting = self._seats, self._starting, []
        for seat in self._seats:
            keep = asyncio.get_running_loop().create_task(self._keep(seat))
            self._tasks.add(keep)
            keep.add_done_callback(self._tasks.discard)
        for seat in before:
            if seat.child.alive():
                self._retiring.add(seat.child)
                seat.child.terminate()

    async def _give_up(self) -> None:
        """End workers that have nothing under way yet, whatever they hang in."""
        for seat in self._starting:
            seat.child.terminate()
        runs = [seat.run for seat in self._starting]
        if runs:
            await asyncio.wait(runs, timeout=_PARTING)
            for seat in self._starting:
                seat.child.kill()
            await asyncio.wait(runs)
        self._starting = []

    def _spawn(self, config: WorkerConfig, environment: dict[str, str]) -> tuple[Child, asyncio.Task[int]]:
        """Raises OSError, HsmsignError."""
        slot = self._ledgers.take()
        name = "worker" if config.workers == 1 else f"worker {config.number}"
        message = {"config": to_json(config), "slot": slot}
        options: dict[str, HasFd | None] = {**self.doors.options(), "--ledger-fd": self._ledgers}
        try:
            child = Child.start(name, "hsmsign.daemon.run_worker", options, message, environment)
        except OSError:
            self._ledgers.release(slot)
            raise
        log.info("worker started", pid=child.pid, worker=config.number)
        return child, asyncio.get_running_loop().create_task(self._to_its_end(child, slot))

    async def _to_its_end(self, child: Child, slot: int) -> int:
        """Its exit code. What it had under way is over at once: whoever comes again to another worker is let in."""
        try:
            return await child.run()
        finally:
            child.kill()  # where it is we who end: what it enters from now on would be counted for the next
            self._ledgers.release(slot)

    async def _keep(self, seat: _Seat) -> None:
        backoff = Backoff()
        while True:
            code = await seat.run
            child = seat.child
            self._retiring.discard(child)
            log.info("worker ended", pid=child.pid, code=code, worker=seat.config.number)
            if seat not in self._seats or self._stopping:
                return
            await asyncio.sleep(backoff.after(time.monotonic() - child.started))
            if seat not in self._seats or self._stopping:
                return
            try:
                seat.child, seat.run = self._spawn(seat.config, seat.environment)
            except (OSError, HsmsignError) as error:  # no memory, no descriptors: perhaps in a moment
                log.error("cannot start a worker", error=str(error))
                await asyncio.sleep(_AGAIN)
                continue
            seat.child.on_event = lambda event: self._changed() if event.get("event") == "ready" else None

    async def stop(self) -> None:
        """End all workers; what they have under way is finished."""
        self._stopping = True
        for child in self.children:
            child.terminate()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def close(self) -> None:
        """Let go of the sockets."""
        self.doors.close()
        self._ledgers.close()


async def _until_ready(seats: list[_Seat]) -> Event | None:
    """Wait until all of them serve; what one said that cannot."""
    found = await asyncio.gather(*map(_ready, seats))
    return next((failure for failure in found if failure is not None), None)


async def _ready(seat: _Seat) -> Event | None:
    ready = asyncio.get_running_loop().create_task(seat.child.ready.wait())
    try:
        await asyncio.wait([seat.run, ready], return_when=asyncio.FIRST_COMPLETED)
    finally:
        ready.cancel()
    if seat.child.ready.is_set():
        return None
    return seat.child.failure or {"message": f"a front worker ended with {seat.run.result()} before it was ready"}

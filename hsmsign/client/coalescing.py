"""Signatures that are wanted one by one, at the same time, travel together: who goes when, and with whom.

Nothing here waits or sends: that is for `coalescing_threads` and `coalescing_tasks`. What is wanted of one kind (a key,
a scheme, a kind of input, a format) stands in a lane of its own: a key on a slow device holds up no other. There is no
timer: in an empty lane a call goes at once, and what comes meanwhile goes together.
"""

from __future__ import annotations

import enum
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from typing import Generic, NamedTuple, TypeVar

from hsmsign.client import signatures
from hsmsign.client.values import Signature, SignedBatch
from hsmsign.model.algorithms import InputKind, Scheme, SignatureFormat
from hsmsign.model.errors import BatchSizeError, CancelledError, HsmsignError, ResourceExhaustedError

FLIGHTS = 2
"""Batches of a lane that may be under way at the same time: the daemon has the next while it answers one."""
WORTH = 0.005
"""Seconds that a batch must take its device for another to be under way beside it: a call costs a millisecond of
processor, over all."""
_CALL = 0.001
"""Seconds of a call that are not the device's, about."""
_ALONE_SECONDS = 60.0
"""How long a key is taken for one that signs single inputs only, after the daemon said so."""
_LANES = 256
"""Lanes that are remembered while nothing is wanted of them."""


class Kind(NamedTuple):
    """What inputs of one batch have in common."""

    name: str
    scheme: Scheme | None
    input: InputKind
    format: SignatureFormat


class Again(enum.Enum):
    """What becomes of an item that travelled with others and was not signed for that."""

    ALONE = enum.auto()
    """Its caller sends it, by itself."""


Outcome = Signature | HsmsignError | Again
W = TypeVar("W")


class Item(Generic[W]):
    """One signature that somebody waits for."""

    __slots__ = ("context", "data", "deadline", "flight", "gone", "outcome", "waiter")

    def __init__(self, data: bytes, deadline: float, waiter: W) -> None:
        """`deadline` is in seconds of `time.monotonic()`; `waiter` is what wakes its caller."""
        self.data = data
        self.deadline = deadline
        self.waiter = waiter
        self.outcome: Outcome | None = None
        self.flight: Flight[W] | None = None
        self.context: Context | None = None
        """That of its caller, where it may become the oldest of a flight: a call is made in it."""
        self.gone = False
        """Whether nobody waits for it any more."""


class Lane(Generic[W]):
    """What is wanted of one kind: what waits, and how much of it is under way."""

    __slots__ = ("alone_until", "flights", "in_air", "kind", "landing", "pace", "waiting")

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.waiting: deque[Item[W]] = deque()
        self.flights = 0
        self.in_air = 0
        self.landing = 0
        """Flights that are answered, and not over yet."""
        self.pace = 0.0
        """Seconds that its device takes for one, as far as is known."""
        self.alone_until = 0.0

    def learn(self, flight: Flight[W], now: float) -> None:
        """How quick the device is. Flights that are in the air together share it. Whatever else was in the way only
        made it look slower: so a quick flight is believed at once, and slow ones when there are several."""
        took = max(0.0, now - flight.began - _CALL) / self.flights / flight.count
        self.pace = took if took < self.pace else self.pace + (took - self.pace) / 16


class Flight(Generic[W]):
    """Items that travel in one call."""

    __slots__ = ("apart", "began", "count", "items", "lane", "left", "over", "size")

    def __init__(self, lane: Lane[W], items: list[Item[W]], size: int, *, apart: bool = False) -> None:
        self.lane = lane
        self.items = items
        self.count = self.left = len(items)
        """How many there are; and callers that still wait for it."""
        self.size = size
        self.began = 0.0
        self.apart = apart
        """Whether it counts for nothing in its lane."""
        self.over = False
        """Whether it has its answer."""

    @property
    def kind(self) -> Kind:
        """What its inputs have in common."""
        return self.lane.kind

    @property
    def inputs(self) -> list[bytes]:
        """What is to be signed."""
        return [item.data for item in self.items]

    @property
    def deadline(self) -> float:
        """The longest of its callers'."""
        return max([item.deadline for item in self.items])

    def unload(self) -> list[Item[W]]:
        """Its items, which leave it: who holds one no longer holds all."""
        items, self.items = self.items, []
        return items


class Coalescer(Generic[W]):
    """Lanes by kind. It locks nothing: who uses it from several threads does that around each method."""

    def __init__(
        self,
        *,
        flights: int = FLIGHTS,
        items: int = signatures.BATCH_ITEMS,
        size: int = signatures.BATCH_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """At most `items` with `size` bytes go in one call, or one item, however large."""
        self._flights = flights
        self._items = items
        self._size = size
        self._clock = clock
        self._lanes: dict[object, Lane[W]] = {}
        self._closed = False

    def lane(
        self, name: str, scheme: Scheme | None, kind: InputKind, form: SignatureFormat, full: Callable[[str], str]
    ) -> Lane[W]:
        """The lane of what a caller wants; `full` makes the whole of a key's name. Raises what `full` does."""
        place = (name, id(scheme), id(kind), id(form))  # members of enums are there once, and slow to hash
        lane = self._lanes.get(place)
        if lane is None:
            lane = Lane(Kind(full(name), scheme, kind, form))
            if len(self._lanes) >= _LANES:
                self._forget()
            self._lanes[place] = lane
        return lane

    def arrive(self, lane: Lane[W], item: Item[W]) -> Flight[W] | None:
        """An item that is wanted; the flight that goes now, with it or others. Raises CancelledError when closed."""
        if self._closed:
            raise closed()
        if lane.alone_until:
            if self._clock() < lane.alone_until:
                return Flight(lane, [item], 0, apart=True)
            lane.alone_until = 0.0
        if not lane.waiting:
            item.context = copy_context()
        lane.waiting.append(item)
        return self._depart(lane)

    def answered(self, flight: Flight[W]) -> bool:
        """A flight has its answer; whether that is news. Nothing goes in its lane until `landed`: those who get their
        signatures now may want more."""
        if flight.over:
            return False
        flight.over = True
        lane = flight.lane
        if not flight.apart:
            lane.learn(flight, self._clock())
            lane.in_air -= flight.count
            lane.landing += 1
        return True

    def landed(self, flight: Flight[W]) -> list[Flight[W]]:
        """A flight is over; those that go now."""
        self.answered(flight)
        lane = flight.lane
        if not flight.apart:
            lane.landing -= 1
            lane.flights -= 1
        departing = []
        while (following := self._depart(lane)) is not None:
            departing.append(following)
        return departing

    def back(self, flight: Flight[W]) -> None:
        """Its items wait again, before all others; `landed` is still to be called."""
        items = flight.unload()
        for item in items:
            item.flight = None
        flight.lane.waiting.extendleft(reversed(items))

    def left(self, item: Item[W]) -> bool:
        """Nobody waits for an item any more; whether that was the last of its flight."""
        item.gone = True
        if item.flight is None:
            return False
        item.flight.left -= 1
        return item.flight.left == 0

    def refused(self, flight: Flight[W], error: HsmsignError) -> list[Item[W]] | None:
        """Whether a batch that was refused as a whole goes again in parts: then they wait, but for those that are given
        here, whose callers send them alone. None where it does not.

        It does where being a batch was the reason. What is refused for a caller's limit, a right or a device would be
        refused again, and is the error of each.
        """
        if flight.count == 1:
            return None
        if isinstance(error, BatchSizeError):
            items, size = error.metadata.get("max_items", ""), error.metadata.get("max_bytes", "")
            if items.isdecimal():
                self._items = max(1, min(int(items), flight.count - 1))
            elif size.isdecimal():
                self._size = max(1, min(int(size), flight.size - 1))
            else:  # others approve what this key signs, one input at a time
                return self._alone_from_now(flight)
        elif isinstance(error, ResourceExhaustedError) and "larger than max" in error.message:
            self._size = max(1, flight.size // 2)
        else:
            return None
        self.back(flight)
        return []

    def close(self) -> list[Item[W]]:
        """Nothing goes any more; what waited."""
        self._closed = True
        waiting = [item for lane in self._lanes.values() for item in lane.waiting]
        for lane in self._lanes.values():
            lane.waiting.clear()
        return waiting

    def _depart(self, lane: Lane[W]) -> Flight[W] | None:
        """The next flight of a lane. It takes all that waits. Where there is so much for the device to do that several
        are worth it, each gets the same share, and one in the air is waited for until the next has as much."""
        waiting = len(lane.waiting)
        if not waiting or lane.landing or lane.flights >= self._flights:
            return None
        there = waiting + lane.in_air
        share = -(-there // self._flights)
        if share * lane.pace < WORTH:
            share = there
        if lane.flights and waiting < share:
            return None
        flight = self._take(lane, min(share, self._items))
        if flight is None:
            return None
        flight.began = self._clock()
        lane.flights += 1
        lane.in_air += flight.count
        return flight

    def _take(self, lane: Lane[W], count: int) -> Flight[W] | None:
        """The oldest items, as many as one call has room for, without those whose callers have gone."""
        waiting, items, size = lane.waiting, list[Item[W]](), 0
        while waiting and len(items) < count:
            item = waiting[0]
            if not item.gone:
                size += len(item.data)
                if items and size > self._size:
                    size -= len(item.data)
                    break
                items.append(item)
            waiting.popleft()
        if not items:
            return None
        flight = Flight(lane, items, size)
        for item in items:
            item.flight = flight
        return flight

    def _alone_from_now(self, flight: Flight[W]) -> list[Item[W]]:
        lane = flight.lane
        lane.alone_until = self._clock() + _ALONE_SECONDS
        items = [*flight.unload(), *lane.waiting]
        lane.waiting.clear()
        for item in items:
            item.outcome = Again.ALONE
        return items

    def _forget(self) -> None:
        for place, lane in list(self._lanes.items()):
            if not lane.flights and not lane.waiting:
                del self._lanes[place]


def outcomes(count: int, answer: SignedBatch | HsmsignError) -> Sequence[Outcome]:
    """What each item of a flight becomes. An error of the whole is each one's own: callers raise theirs."""
    if isinstance(answer, HsmsignError) or answer.scheme is None:
        error = answer if isinstance(answer, HsmsignError) else signatures.unknown_scheme()
        return [error, *(_alike(error) for _ in range(count - 1))]
    version, scheme = answer.key_version, answer.scheme
    return [Signature(one, version, scheme) if isinstance(one, bytes) else one for one in answer]


def closed() -> CancelledError:
    """For who wants a signature from a client that is closed."""
    return CancelledError("the client is closed, and signs nothing any more", hint="connect again")


def failed(error: BaseException) -> HsmsignError:
    """For what nobody was ready for."""
    return HsmsignError(f"a batch of signatures failed in the client: {error!r}", hint="report it as a bug")


def _alike(error: HsmsignError) -> HsmsignError:
    """Another one that says the same: an exception that several threads raise would collect all their traces."""
    kind = error.__class__
    other = kind.__new__(kind)
    HsmsignError.__init__(other, error.message, hint=error.hint, metadata=error.metadata, retry_after=error.retry_after)
    return other

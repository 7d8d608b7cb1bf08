"""Has orders signed by the token that holds the key, or by one of several that do."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from hsmsign.devices.base import Device, NotAnsweringError
from hsmsign.keyring import ResolvedKey
from hsmsign.keyring.values import Place
from hsmsign.model.device import JobFailure, JobStatus, SignOrder
from hsmsign.model.errors import BackendNotFoundError, DeadlineError, HsmsignError, QueueFullError, UnavailableError
from hsmsign.signing.breaker import Breaker
from hsmsign.signing.failures import to_error
from hsmsign.signing.values import GroupFailure

_FINAL = frozenset({JobStatus.OK, JobStatus.DEADLINE, JobStatus.CANCELLED, JobStatus.BAD_INPUT})
"""What another token would answer, too."""
_FIRST_LOOK, _LOOK_EVERY = 0.05, 0.25
"""Seconds between two looks for another token, while an order waits for one because no other was able: at first, and
at the longest."""
_PATIENCE = 1.0
"""Seconds after which such an order leaves a token that is there but does not get done, for one that would begin at
once. Twice as many each time: tokens that are all that slow must get done, too."""


@dataclass(slots=True)
class Signed:
    """What became of an order: the signatures in its order, b"" where there is a failure."""

    signatures: list[bytes]
    failures: list[GroupFailure] = field(default_factory=list)


class _Parts:
    """An order of which several devices sign some."""

    def __init__(self, inputs: list[bytes]) -> None:
        self._all = inputs
        self._signatures = [b""] * len(inputs)
        self._failures: dict[int, HsmsignError] = {}
        self._heard = False
        self.wanted: Sequence[int] = range(len(inputs))
        """The places of those that another device may still sign."""
        self.error: HsmsignError | None = None
        """Why a device was not even asked."""

    def inputs(self) -> list[bytes]:
        """What is still to be signed."""
        return [self._all[index] for index in self.wanted]

    def add(self, signed: Signed, again: list[int]) -> None:
        """What a device made of `inputs()`, and which of those another one may make."""
        self._heard = True
        for index, signature in zip(self.wanted, signed.signatures, strict=True):
            self._signatures[index] = signature
            self._failures.pop(index, None)
        self._failures.update({self.wanted[one.index]: one.error for one in signed.failures})
        self.wanted = [self.wanted[index] for index in again]

    def missed(self, error: HsmsignError) -> None:
        """A device was not even asked. That a backend is not there any more is said where nothing else is wrong: who
        hears of something else may try again."""
        if self.error is None or not isinstance(error, BackendNotFoundError):
            self.error = error

    def result(self) -> Signed:
        """All of it. Raises `error` where no device was ever asked."""
        if not self._heard and self.error is not None:
            raise self.error
        failures = [GroupFailure(index, error) for index, error in sorted(self._failures.items())]
        return Signed(self._signatures, failures)


class _Tour:
    """Which places an order still goes to."""

    def __init__(self, places: list[Place]) -> None:
        self.left = places
        self.silent: list[Place] = []
        """Did not answer; they are asked again where nobody else is left."""
        self.away: list[Place] = []
        """Could not be expected to sign when they were asked, and did not; they are asked again when they can be."""
        self.patience = 1

    def others(self) -> list[Place]:
        """All that may be asked beside the one that is."""
        return [*self.left, *self.silent, *self.away]

    def failed(self, place: Place, *, able: bool) -> None:
        """It was asked for nothing; was it able when it was?"""
        if not able:
            self.away.append(place)

    def turn(self, back: list[Place]) -> None:
        """The next round: with those that are back; without any other, with those that did not answer."""
        self.left += back
        self.away = [one for one in self.away if one not in back]
        if not self.left:
            self.left, self.silent = self.silent, []


class Places:
    """The devices of one worker, as those see them who want signatures."""

    def __init__(self, devices: Mapping[str, Device], max_in_flight: int) -> None:
        """`max_in_flight`: signatures that may wait for one device."""
        self._devices = devices
        self._max_in_flight = max_in_flight
        self._breakers = {name: Breaker(name) for name in devices}
        self.moved: Counter[str] = Counter()
        """Signatures that a device did not make and another was asked for, by the device's name."""

    def broken_off(self, name: str) -> bool:
        """Whether a device keeps failing, and callers are refused."""
        return self._breakers[name].broken_off

    async def sign(self, key: ResolvedKey, order: SignOrder) -> Signed:
        """Have an order for this key signed. Its locator is that of the key's own device, others get theirs.

        Raises DeadlineError, and where nothing was signed QueueFullError, BackendNotFoundError and what a device that
        is away is reported with.
        """
        if order.deadline and order.deadline <= time.monotonic():
            raise DeadlineError("the deadline had passed before anything was signed", hint="give more time")
        if key.replicas:
            return await self._anywhere(key, order)
        signed, _ = await self._at(Place(key.device, order.locator), key, order, waits=True)
        return signed

    async def _anywhere(self, key: ResolvedKey, order: SignOrder) -> Signed:
        """Ask one token after the other for what is not signed yet."""
        parts = _Parts(order.inputs)
        tour = _Tour([Place(key.device, order.locator), *key.replicas])
        while tour.left:
            items = len(parts.wanted)
            place = min(tour.left, key=lambda one: self._rank(one, len(parts.wanted)))
            tour.left.remove(place)
            able = self._able(place, items)
            rest = replace(order, inputs=parts.inputs())
            try:
                if any(self._able(one, items) for one in tour.left):
                    signed, again = await self._at(place, key, rest, waits=False)
                else:
                    signed, again = await self._while_alone(place, tour, key, rest)
            except NotAnsweringError:
                tour.silent.append(place)
            except (UnavailableError, QueueFullError, BackendNotFoundError) as error:
                parts.missed(error)
                tour.failed(place, able=able)
            else:
                parts.add(signed, again)
                if not parts.wanted:
                    break
                tour.failed(place, able=able)
            tour.turn([one for one in tour.away if self._able(one, len(parts.wanted))])
            if tour.left:
                self.moved[place.device] += len(parts.wanted)
        return parts.result()

    async def _while_alone(
        self, place: Place, tour: _Tour, key: ResolvedKey, order: SignOrder
    ) -> tuple[Signed, list[int]]:
        """As `_at`, where no other device is able: it is waited for, unless it does not get done and another is back.
        That is NotAnsweringError. Raises DeadlineError where none is in time."""
        items, started, pause = len(order.inputs), time.monotonic(), _FIRST_LOOK
        asked = asyncio.ensure_future(self._at(place, key, order, waits=True))
        try:
            while not (await asyncio.wait({asked}, timeout=pause))[0]:
                pause = min(pause * 2, _LOOK_EVERY)
                now, device = time.monotonic(), self._devices[place.device]
                late = now - started > _PATIENCE * tour.patience
                if (late or not device.answering()) and any(self._able(one, items) for one in tour.others()):
                    tour.patience *= 2 if late else 1
                    raise NotAnsweringError(f"the device of backend {place.device!r} does not get done")
                if order.deadline and now > order.deadline + _LOOK_EVERY and not device.answering():
                    raise DeadlineError("no device that holds the key came back in time", hint="give more time")
            return asked.result()
        finally:
            asked.cancel()

    def _rank(self, place: Place, items: int) -> tuple[bool, int]:
        """The less the better: is it able, and how much waits there?"""
        device = self._devices.get(place.device)
        return not self._able(place, items), device.in_flight() if device is not None else 0

    def _able(self, place: Place, items: int) -> bool:
        """Whether a device would begin with so much at once."""
        device = self._devices.get(place.device)
        if device is None or not device.answering() or self._breakers[place.device].refuses():
            return False
        return device.in_flight() + items <= self._max_in_flight

    async def _at(self, place: Place, key: ResolvedKey, order: SignOrder, *, waits: bool) -> tuple[Signed, list[int]]:
        """What one device makes of an order, and which items of it another one may make."""
        device = self._device(place, key, len(order.inputs))
        breaker = self._breakers[place.device]
        tries = breaker.check()
        if place.locator != order.locator:
            order = replace(order, locator=place.locator)
        try:
            outcome = await (device.sign(order) if waits else device.sign(order, waits=False))
        except (HsmsignError, asyncio.CancelledError):
            if tries:
                breaker.unheard()
            raise
        breaker.heard(outcome)
        if not outcome.failures:
            return Signed(outcome.signatures), []
        again = [one.index for one in outcome.failures if one.status not in _FINAL]
        return Signed(outcome.signatures, _failures(outcome.failures, key.name, place.device)), again

    def _device(self, place: Place, key: ResolvedKey, items: int) -> Device:
        """The device, if it has room."""
        device = self._devices.get(place.device)
        if device is None:
            raise BackendNotFoundError(
                f"{key.name} is on backend {place.device!r}, which this daemon no longer has",
                hint=f"put [backends.{place.device}] back into its configuration",
            )
        if device.in_flight() + items > self._max_in_flight:
            raise QueueFullError(
                f"backend {place.device!r} has {device.in_flight()} signatures to make and takes no {items} more",
                hint="wait a moment; if it stays so, the device is too slow for its callers",
                metadata={"backend": place.device},
                retry_after=0.1,
            )
        return device


def _failures(found: tuple[JobFailure, ...], version: str, device: str) -> list[GroupFailure]:
    known: dict[tuple[JobStatus, int], HsmsignError] = {}
    failures = []
    for failure in found:
        kind = (failure.status, failure.ckr)
        if kind not in known:
            known[kind] = to_error(failure, version, device)
        failures.append(GroupFailure(failure.index, known[kind]))
    return failures

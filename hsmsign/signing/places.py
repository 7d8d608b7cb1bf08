"""Has orders signed by the token that holds the key, or by one of several that do."""

from __future__ import annotations

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

    def result(self) -> Signed:
        """All of it. Raises `error` where no device was ever asked."""
        if not self._heard and self.error is not None:
            raise self.error
        failures = [GroupFailure(index, error) for index, error in sorted(self._failures.items())]
        return Signed(self._signatures, failures)


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
        left = [Place(key.device, order.locator), *key.replicas]
        silent: list[Place] = []
        while left:
            place = min(left, key=lambda one: self._rank(one, len(parts.wanted)))
            left.remove(place)
            waits = not any(self._able(one, len(parts.wanted)) for one in left)
            try:
                signed, again = await self._at(place, key, replace(order, inputs=parts.inputs()), waits=waits)
            except NotAnsweringError:
                silent.append(place)
            except (UnavailableError, QueueFullError, BackendNotFoundError) as error:
                parts.error = error
            else:
                parts.add(signed, again)
                if not parts.wanted:
                    break
            if not left:
                left, silent = silent, []  # none answered: these may come back, and nobody else will
            if left:
                self.moved[place.device] += len(parts.wanted)
        return parts.result()

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
        breaker.check()
        if place.locator != order.locator:
            order = replace(order, locator=place.locator)
        outcome = await (device.sign(order) if waits else device.sign(order, waits=False))
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

"""A device that keeps failing, and one that recovers."""

from __future__ import annotations

import pytest

from hsmsign.model.device import JobFailure, JobStatus, SignOutcome
from hsmsign.model.errors import DeviceUnavailableError
from hsmsign.signing.breaker import TRIPS_AT, Breaker
from tests.support.clock import Clock

DEVICE_ERROR = (JobStatus.DEVICE_ERROR, 0x30)
GOOD = SignOutcome([b"signature"])


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("hsm", clock)


def failed(kind: tuple[JobStatus, int] = DEVICE_ERROR, count: int = TRIPS_AT, good: int = 0) -> SignOutcome:
    failures = tuple(JobFailure(index, *kind) for index in range(count))
    return SignOutcome([b""] * count + [b"signature"] * good, failures)


def refused(breaker: Breaker) -> float:
    with pytest.raises(DeviceUnavailableError, match="broken off") as caught:
        breaker.check()
    assert caught.value.retry_after is not None
    return caught.value.retry_after


def test_it_is_broken_off_after_so_many_failures_in_a_row(breaker: Breaker) -> None:
    for _ in range(TRIPS_AT - 1):
        breaker.heard(failed(count=1))
        breaker.check()
    breaker.heard(failed(count=1))
    assert refused(breaker) == 1.0


def test_one_signature_between_them_and_it_is_not(breaker: Breaker) -> None:
    for _ in range(3):
        breaker.heard(failed(count=TRIPS_AT - 1))
        breaker.heard(GOOD)
    breaker.heard(failed(good=1))
    breaker.check()


@pytest.mark.parametrize(
    "kind",
    [(JobStatus.DEVICE_ERROR, 0x5), (JobStatus.DEVICE_ERROR, 0x63), (JobStatus.KEY_NOT_FOUND, 0), (JobStatus.BUSY, 0)],
)
def test_what_may_be_the_keys_or_the_callers_fault_does_not_count(
    breaker: Breaker, kind: tuple[JobStatus, int]
) -> None:
    breaker.heard(failed(kind, 1000))
    breaker.check()


def test_one_caller_tries_it_and_the_pauses_grow(breaker: Breaker, clock: Clock) -> None:
    breaker.heard(failed())
    for pause in (1, 2, 4, 8, 16, 30, 30):
        assert refused(breaker) == pause
        clock.now += pause
        breaker.check()  # this one tries
        refused(breaker)  # the others wait for it
        breaker.heard(failed(count=1))


def test_the_first_signature_ends_it(breaker: Breaker, clock: Clock) -> None:
    breaker.heard(failed())
    clock.now += 1
    breaker.check()
    breaker.heard(GOOD)
    assert not breaker.broken_off
    breaker.check()
    breaker.heard(failed())
    assert refused(breaker) == 1.0  # and the next time begins anew


def test_a_try_that_is_never_heard_of_is_not_waited_for_ever(breaker: Breaker, clock: Clock) -> None:
    breaker.heard(failed())
    clock.now += 1
    breaker.check()
    clock.now += refused(breaker)
    breaker.check()


def test_a_try_that_came_to_nothing_leaves_the_device_broken_off_no_longer_than_before(
    breaker: Breaker, clock: Clock
) -> None:
    breaker.heard(failed())
    clock.now += 1
    breaker.check()
    assert refused(breaker) > 1.0
    breaker.unheard()
    assert refused(breaker) == 1.0
    clock.now += 1
    breaker.check()
    breaker.heard(failed(count=1))
    assert refused(breaker) == 2.0


def test_an_order_that_came_to_nothing_breaks_no_device_off_and_ends_no_pause(breaker: Breaker, clock: Clock) -> None:
    breaker.unheard()
    breaker.check()
    breaker.heard(failed())
    breaker.unheard()  # it went out before the others failed
    assert refused(breaker) == 1.0
    clock.now += 0.5
    breaker.unheard()
    assert refused(breaker) == 0.5

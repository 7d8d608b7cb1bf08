"""Who goes when, and with whom: the rules alone, without a thread or a task."""

from __future__ import annotations

import pytest

from hsmsign.client.coalescing import FLIGHTS, WORTH, Again, Coalescer, Flight, Item, outcomes
from hsmsign.client.values import SignedBatch
from hsmsign.model.algorithms import InputKind, Scheme, SignatureFormat
from hsmsign.model.errors import (
    BatchSizeError,
    CallerLimitError,
    CancelledError,
    DigestLengthError,
    HsmsignError,
    PermissionDeniedError,
    ResourceExhaustedError,
)

Coalescing = Coalescer[None]


def lane(coalescer: Coalescing, name: str = "a", kind: InputKind = InputKind.DIGEST):
    return coalescer.lane(name, None, kind, SignatureFormat.DER, lambda text: f"keys/{text}")


def want(coalescer: Coalescing, *data: bytes, name: str = "a") -> list[Flight[None]]:
    """The flights that go when these are wanted one after the other."""
    gone = [coalescer.arrive(lane(coalescer, name), Item(one, 10.0, None)) for one in data]
    return [flight for flight in gone if flight is not None]


def many(count: int, first: int = 0) -> list[bytes]:
    return [str(number).encode() for number in range(first, first + count)]


def test_the_first_goes_at_once_and_what_comes_meanwhile_goes_together_in_its_order():
    coalescer = Coalescing(clock=lambda: 0.0)
    (first,) = want(coalescer, *many(20))
    assert first.inputs == [b"0"]
    assert first.kind.name == "keys/a"
    (second,) = coalescer.landed(first)
    assert second.inputs == many(19, 1)
    assert coalescer.landed(second) == []
    assert [flight.inputs for flight in want(coalescer, b"next")] == [[b"next"]]


def test_a_second_is_under_way_only_where_the_device_is_slow_and_both_give_it_as_much_to_do():
    now = [0.0]
    coalescer = Coalescing(clock=lambda: now[0])
    air = want(coalescer, *many(10))
    seen: list[list[int]] = []
    for seconds in (WORTH / 100, WORTH, WORTH / 100):
        for _ in range(40):  # ten callers, each of which signs again when it has its signature
            flight = air.pop(0)
            now[0] += flight.count * seconds
            assert coalescer.answered(flight)
            assert want(coalescer, *many(flight.count)) == []  # not before all have asked who will
            air += coalescer.landed(flight)
        seen.append(sorted(one.count for one in air))
    assert seen == [[10], [5, 5], [10]]
    assert FLIGHTS == 2


def test_keys_and_kinds_of_input_do_not_wait_for_each_other():
    coalescer = Coalescing(clock=lambda: 0.0)
    (slow,) = want(coalescer, *many(50))
    (other,) = want(coalescer, *many(3), name="b")
    assert (slow.kind.name, other.kind.name) == ("keys/a", "keys/b")
    message = coalescer.arrive(lane(coalescer, kind=InputKind.MESSAGE), Item(b"m", 10.0, None))
    assert message is not None
    assert message.kind.input is InputKind.MESSAGE
    for _ in range(5):  # b goes on, as often as it likes, while a is in the air
        (other,) = coalescer.landed(other) or want(coalescer, b"x", name="b")


def test_the_deadline_of_a_flight_is_the_longest_of_its_callers():
    coalescer = Coalescing(clock=lambda: 0.0)
    (first,) = want(coalescer, b"0")
    for deadline in (5.0, 20.0, 10.0):
        coalescer.arrive(lane(coalescer), Item(b"x", deadline, None))
    (second,) = coalescer.landed(first)
    assert second.deadline == 20.0


def test_who_has_gone_is_not_sent_and_the_last_to_go_ends_the_flight():
    coalescer = Coalescing(clock=lambda: 0.0)
    (first,) = want(coalescer, b"0")
    items = [Item(data, 10.0, None) for data in many(4)]
    for item in items:
        coalescer.arrive(lane(coalescer), item)
    assert not coalescer.left(items[1])
    (second,) = coalescer.landed(first)
    assert second.inputs == [b"0", b"2", b"3"]
    assert [coalescer.left(items[number]) for number in (0, 2, 3)] == [False, False, True]
    everybody = Item(b"x", 10.0, None)
    coalescer.arrive(lane(coalescer), everybody)
    coalescer.left(everybody)
    assert coalescer.landed(second) == []
    assert len(want(coalescer, b"next")) == 1


def test_a_batch_has_no_more_items_and_bytes_than_a_call_takes_and_a_large_one_goes_alone():
    coalescer = Coalescing(items=10, size=1000, clock=lambda: 0.0)
    (first,) = want(coalescer, b"0")
    want(coalescer, *many(25), *[bytes(400)] * 3, bytes(5000), b"1")
    found = []
    following = coalescer.landed(first)
    while following:
        flight = following.pop()
        found.append(flight.inputs)
        following += coalescer.landed(flight)
    assert found == [
        many(10),
        many(10, 10),
        [*many(5, 20), bytes(400), bytes(400)],
        [bytes(400)],
        [bytes(5000)],
        [b"1"],
    ]


@pytest.mark.parametrize(
    ("error", "sizes"),
    [
        (BatchSizeError("x", metadata={"max_items": "20"}), [20, 20, 9]),
        (BatchSizeError("x", metadata={"max_bytes": "300"}), [30, 19]),
        (BatchSizeError("x", metadata={"max_items": "100"}), [48, 1]),  # never as much as was refused
        (ResourceExhaustedError("SERVER: Received message larger than max (500 vs. 100)"), [24, 24, 1]),
    ],
)
def test_a_batch_that_was_too_large_goes_in_smaller_ones_and_so_do_the_next(error, sizes):
    coalescer = Coalescing(clock=lambda: 0.0)
    (first,) = want(coalescer, *[bytes(10)] * 50)
    (refused,) = coalescer.landed(first)
    assert coalescer.refused(refused, error) == []
    found = []
    following = coalescer.landed(refused)
    while following:
        flight = following.pop()
        found.append(flight.count)
        following += coalescer.landed(flight)
    assert found == sizes


@pytest.mark.parametrize(
    "error", [CallerLimitError("x"), PermissionDeniedError("x"), ResourceExhaustedError("x"), HsmsignError("x")]
)
def test_what_would_be_refused_again_is_not_sent_again(error):
    coalescer = Coalescing(clock=lambda: 0.0)
    (first,) = want(coalescer, *many(10))
    (refused,) = coalescer.landed(first)
    assert coalescer.refused(refused, error) is None
    assert coalescer.landed(refused) == []


def test_what_is_one_by_itself_was_not_refused_for_being_a_batch():
    coalescer = Coalescing(clock=lambda: 0.0)
    (first,) = want(coalescer, b"0")
    assert coalescer.refused(first, BatchSizeError("x")) is None


def test_a_key_that_signs_single_inputs_only_gets_them_from_each_caller_and_is_tried_anew_later():
    now = [0.0]
    coalescer = Coalescing(clock=lambda: now[0])
    (first,) = want(coalescer, *many(4))
    (refused,) = coalescer.landed(first)
    want(coalescer, *many(2, 4))
    alone = coalescer.refused(refused, BatchSizeError("one input at a time"))
    assert alone is not None
    assert [item.data for item in alone] == many(5, 1)  # those that waited, too: they need not be refused first
    assert {item.outcome for item in alone} == {Again.ALONE}
    assert coalescer.landed(refused) == []
    assert [flight.inputs for flight in want(coalescer, *many(3))] == [[b"0"], [b"1"], [b"2"]]
    now[0] = 3600.0
    (flight,) = want(coalescer, *many(3))
    assert [one.count for one in coalescer.landed(flight)] == [2]


def test_every_item_has_its_own_error_also_where_all_failed_for_the_same_reason():
    bad = DigestLengthError("SHA-256", 32, 5)
    made = outcomes(2, SignedBatch([b"s", bad], "keys/a/versions/1", Scheme.ECDSA_P256_SHA256))
    assert (made[0].value, made[0].key_version, made[1]) == (b"s", "keys/a/versions/1", bad)
    found = outcomes(3, CallerLimitError("words", hint="do", metadata={"limit": "x"}, retry_after=0.5))
    assert len({id(error) for error in found}) == 3
    assert {type(error) for error in found} == {CallerLimitError}
    assert {(error.message, error.hint, error.retry_after) for error in found} == {("words", "do", 0.5)}
    assert len(outcomes(2, SignedBatch([b"s", b"t"], "keys/a/versions/1", None))) == 2


def test_a_closed_one_takes_nothing_and_gives_back_what_waits():
    coalescer = Coalescing(clock=lambda: 0.0)
    (first,) = want(coalescer, *many(3))
    assert [item.data for item in coalescer.close()] == many(2, 1)
    assert coalescer.landed(first) == []
    with pytest.raises(CancelledError, match="closed"):
        want(coalescer, b"x")


def test_kinds_that_nobody_wants_any_more_are_forgotten():
    coalescer = Coalescing(clock=lambda: 0.0)
    (held,) = want(coalescer, b"x", name="held")
    for number in range(2000):
        (flight,) = want(coalescer, b"x", name=f"k{number}")
        coalescer.landed(flight)
    assert len(coalescer._lanes) < 600
    assert want(coalescer, b"y", name="held") == []
    assert [flight.inputs for flight in coalescer.landed(held)] == [[b"y"]]

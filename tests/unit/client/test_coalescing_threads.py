"""Coalesced signatures with real threads, and a desk in the daemon's place that answers when it is told to."""

from __future__ import annotations

import contextvars
import queue
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from hsmsign.client.coalescing import Coalescer
from hsmsign.client.coalescing_threads import Answer, Threads
from hsmsign.client.values import Signature, SignedBatch
from hsmsign.model.algorithms import InputKind, Scheme, SignatureFormat
from hsmsign.model.errors import (
    BatchSizeError,
    CallerLimitError,
    CancelledError,
    DeadlineError,
    DigestLengthError,
    HsmsignError,
    ResourceNameError,
)
from tests.support.daemon import PATIENCE, eventually

TRACE: contextvars.ContextVar[str] = contextvars.ContextVar("trace", default="none")
VERSION, SCHEME = "keys/a/versions/1", Scheme.ECDSA_P256_SHA256


def signed(name: str, data: bytes) -> bytes:
    return f"{name}:".encode() + data


@dataclass
class Flown:
    """A call that the desk has, and has not answered."""

    name: str
    inputs: list[bytes]
    timeout: float
    done: Callable[[Answer], None]
    trace: str = field(default_factory=TRACE.get)

    def answer(self, error: HsmsignError | None = None) -> None:
        entries = [DigestLengthError("x", 32, 3) if data == b"bad" else signed(self.name, data) for data in self.inputs]
        self.done(error or SignedBatch(entries, VERSION, SCHEME))


class Desk:
    def __init__(self) -> None:
        self.calls: queue.Queue[Flown] = queue.Queue()
        self.raises: list[BaseException] = []

    def full(self, name: str) -> str:
        if name == "no name":
            raise ResourceNameError("no name")
        return f"keys/{name}"

    def one(self, kind, data, timeout):
        landed: queue.Queue[Answer] = queue.Queue()
        self.calls.put(Flown(kind.name, [data], timeout, landed.put))
        answer = landed.get(timeout=PATIENCE)
        if isinstance(answer, HsmsignError):
            raise answer
        if isinstance(answer[0], HsmsignError):
            raise answer[0]
        return Signature(answer[0], answer.key_version, SCHEME)

    def many(self, kind, inputs, timeout, done):
        if self.raises:
            raise self.raises.pop()
        self.calls.put(Flown(kind.name, inputs, timeout, done))

    def late(self):
        return DeadlineError("too late")

    def next(self) -> Flown:
        return self.calls.get(timeout=PATIENCE)


@dataclass
class Scene:
    desk: Desk = field(default_factory=Desk)
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(100))

    def __post_init__(self) -> None:
        self.coalescer: Coalescer[threading.Lock] = Coalescer(clock=lambda: 0.0)
        self.threads = Threads(self.desk, self.coalescer)

    def sign(self, data: bytes, timeout: float = PATIENCE, name: str = "a") -> bytes:
        return self.threads.sign(name, None, InputKind.DIGEST, SignatureFormat.DER, data, timeout).value

    def begin(self, data: bytes, timeout: float = PATIENCE, name: str = "a", trace: str = "none"):
        def run() -> bytes:
            TRACE.set(trace)
            return self.sign(data, timeout, name)

        return self.pool.submit(run)

    def waiting(self) -> int:
        return sum(len(lane.waiting) for lane in list(self.coalescer._lanes.values()))

    def waiting_behind_one(self, *data: bytes, **said):
        """Callers that wait while one call is in the air: that, the first one's future, and theirs."""
        first = self.begin(b"first")
        call = self.desk.next()
        futures = []
        for number, one in enumerate(data):
            futures.append(self.begin(one, **said))
            eventually(lambda number=number: self.waiting() == number + 1)
        return call, first, futures


@pytest.fixture
def scene():
    made = Scene()
    yield made
    made.threads.close()
    while not made.desk.calls.empty():
        made.desk.calls.get().answer()
    made.pool.shutdown()


def test_what_threads_want_while_a_call_is_in_the_air_goes_together(scene):
    call, first, futures = scene.waiting_behind_one(*[str(number).encode() for number in range(63)])
    assert call.inputs == [b"first"]
    assert scene.desk.calls.empty()
    call.answer()
    batch = scene.desk.next()
    assert batch.inputs == [str(number).encode() for number in range(63)]
    batch.answer()
    assert first.result(PATIENCE) == b"keys/a:first"
    assert [future.result(PATIENCE) for future in futures] == [signed("keys/a", one) for one in batch.inputs]


def test_one_bad_input_is_the_error_of_its_caller_alone(scene):
    call, _, (good, bad) = scene.waiting_behind_one(b"good", b"bad")
    call.answer()
    scene.desk.next().answer()
    assert good.result(PATIENCE) == b"keys/a:good"
    with pytest.raises(DigestLengthError):
        bad.result(PATIENCE)


def test_the_error_of_a_batch_is_raised_in_every_thread_as_its_own_and_nothing_is_sent_again(scene):
    call, _, futures = scene.waiting_behind_one(b"1", b"2", b"3")
    call.answer()
    scene.desk.next().answer(CallerLimitError("too fast", retry_after=0.1))
    found = [future.exception(PATIENCE) for future in futures]
    assert {type(error) for error in found} == {CallerLimitError}
    assert len({id(error) for error in found}) == 3
    assert scene.desk.calls.empty()


def test_a_caller_whose_deadline_passes_hears_so_and_the_others_get_their_signatures(scene):
    call, _, (stays,) = scene.waiting_behind_one(b"stays")
    hurried = scene.begin(b"hurried", 0.05)
    with pytest.raises(DeadlineError):
        hurried.result(PATIENCE)
    call.answer()
    batch = scene.desk.next()
    assert batch.inputs == [b"stays"]  # who gave up is not signed for
    late = scene.begin(b"in the air", 2.0)
    eventually(lambda: scene.waiting() == 1)
    longer = scene.begin(b"longer", 30.0)
    eventually(lambda: scene.waiting() == 2)
    batch.answer()
    both = scene.desk.next()
    assert both.inputs == [b"in the air", b"longer"]
    assert both.timeout > 20  # as long as the longest has
    with pytest.raises(DeadlineError):
        late.result(PATIENCE)
    both.answer()
    assert stays.result(PATIENCE) == b"keys/a:stays"
    assert longer.result(PATIENCE) == b"keys/a:longer"


def test_no_time_at_all_is_a_deadline_that_has_passed(scene):
    call, _, _ = scene.waiting_behind_one(b"x")
    for timeout in (0.0, -1.0):
        with pytest.raises(DeadlineError):
            scene.sign(b"now", timeout)
    call.answer()


def test_a_key_that_does_not_answer_holds_up_no_other(scene):
    scene.begin(b"stuck", name="slow")
    stuck = scene.desk.next()
    for number in range(3):
        future = scene.begin(str(number).encode(), name="quick")
        scene.desk.next().answer()
        assert future.result(PATIENCE) == signed("keys/quick", str(number).encode())
    stuck.answer()


def test_a_key_under_dual_control_gets_each_input_from_its_own_caller(scene):
    call, _, futures = scene.waiting_behind_one(b"1", b"2", b"3")
    call.answer()
    scene.desk.next().answer(BatchSizeError("one input at a time"))
    singles = [scene.desk.next() for _ in range(3)]
    assert sorted(single.inputs for single in singles) == [[b"1"], [b"2"], [b"3"]]
    for single in singles:
        single.answer()
    assert [future.result(PATIENCE) for future in futures] == [signed("keys/a", one) for one in (b"1", b"2", b"3")]


def test_a_name_that_is_none_spoils_nothing(scene):
    with pytest.raises(ResourceNameError):
        scene.sign(b"x", name="no name")
    future = scene.begin(b"x")
    scene.desk.next().answer()
    assert future.result(PATIENCE)


def test_a_call_is_made_in_the_context_of_its_oldest_caller(scene):
    call, _, _ = scene.waiting_behind_one(b"1", trace="oldest")
    scene.begin(b"2", trace="other")
    eventually(lambda: scene.waiting() == 2)
    call.answer()
    batch = scene.desk.next()
    assert batch.trace == "oldest"
    batch.answer()
    scene.begin(b"alone", trace="mine")
    alone = scene.desk.next()
    assert alone.trace == "mine"
    alone.answer()


def test_an_interrupt_in_the_thread_that_sends_for_others_is_not_their_affair(scene):
    call, first, futures = scene.waiting_behind_one(b"1", b"2")
    scene.desk.raises.append(KeyboardInterrupt())
    call.answer()  # the first one's thread sends what waits
    assert isinstance(first.exception(PATIENCE), KeyboardInterrupt)
    batch = scene.desk.next()
    assert batch.inputs == [b"1", b"2"]
    batch.answer()
    assert [future.result(PATIENCE) for future in futures] == [b"keys/a:1", b"keys/a:2"]


def test_whatever_goes_wrong_while_sending_is_heard_by_all(scene):
    call, first, futures = scene.waiting_behind_one(b"1", b"2")
    scene.desk.raises.append(ValueError("a bug"))
    call.answer()
    assert first.result(PATIENCE) == b"keys/a:first"
    for future in futures:
        with pytest.raises(HsmsignError, match="a bug"):
            future.result(PATIENCE)


def test_closing_tells_those_who_wait(scene):
    call, first, futures = scene.waiting_behind_one(b"1", b"2")
    scene.threads.close()
    for future in futures:
        with pytest.raises(CancelledError, match="closed"):
            future.result(PATIENCE)
    call.answer()
    assert first.result(PATIENCE) == b"keys/a:first"
    with pytest.raises(CancelledError, match="closed"):
        scene.sign(b"x")


def test_many_threads_get_every_signature_once_and_theirs():
    """No wake-up is lost, whoever gives up, and whatever fails."""
    desk, stop = Desk(), threading.Event()
    threads = Threads(desk, Coalescer(items=50))
    chance = random.Random(1)

    def answering() -> None:
        while not stop.is_set():
            try:
                call = desk.calls.get(timeout=0.05)
            except queue.Empty:
                continue
            call.answer(CallerLimitError("x") if len(call.inputs) > 1 and chance.random() < 0.1 else None)

    def run(number: int) -> int:
        own, made = random.Random(number), 0
        for turn in range(100):
            data = b"bad" if own.random() < 0.05 else f"{number}/{turn}".encode()
            name = own.choice("abc")
            try:
                got = threads.sign(name, None, InputKind.DIGEST, SignatureFormat.DER, data, own.choice((0.001, 30.0)))
                assert got.value == signed(f"keys/{name}", data)
                made += 1
            except (DeadlineError, DigestLengthError, CallerLimitError):
                pass
        return made

    desks = [threading.Thread(target=answering) for _ in range(3)]
    for one in desks:
        one.start()
    with ThreadPoolExecutor(64) as pool:
        made = list(pool.map(run, range(64)))
    stop.set()
    for one in desks:
        one.join()
    assert sum(made) > 640
    assert all(not lane.waiting and not lane.flights and not lane.in_air for lane in threads._coalescer._lanes.values())

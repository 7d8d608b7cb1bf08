"""How much a caller may have signed, and when it hears that it is too much."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import count

import pytest

from hsmsign.model.caller import Caller
from hsmsign.model.errors import CallerLimitError
from hsmsign.model.key_facts import KeyFacts
from hsmsign.policy import Limit, LimitScope
from hsmsign.signing import Admission
from tests.support.clock import Clock

ANN, BEN = Caller("unix:1", ("unix-group:5",)), Caller("unix:2", ("unix-group:5",))
WEB, API = KeyFacts("web"), KeyFacts("api")

_LINES = count(1)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def limit(*principals: str, per: LimitScope = LimitScope.BOTH, keys: tuple[str, ...] = ("*",), **more) -> Limit:
    return Limit(f"p:{next(_LINES)}", principals or ("*",), keys, per, **more)


def gets(admission: Admission, caller: Caller, key: KeyFacts, many: int = 1) -> bool:
    try:
        with admission.admit(caller, key, many):
            return True
    except CallerLimitError:
        return False


def test_a_rate_lets_a_burst_through_and_then_as_many_as_it_says(clock: Clock) -> None:
    admission = Admission((limit(rate=10.0, burst=3),), 1000, clock=clock)
    assert [gets(admission, ANN, WEB) for _ in range(5)] == [True, True, True, False, False]
    clock.now += 0.1
    assert [gets(admission, ANN, WEB) for _ in range(2)] == [True, False]
    clock.now += 3600
    assert [gets(admission, ANN, WEB) for _ in range(4)] == [True, True, True, False]


def test_a_batch_larger_than_the_burst_is_let_in_and_paid_for(clock: Clock) -> None:
    admission = Admission((limit(rate=10.0, burst=3),), 1000, clock=clock)
    assert gets(admission, ANN, WEB, 23)
    with pytest.raises(CallerLimitError) as refused, admission.admit(ANN, WEB, 1):
        pass
    assert refused.value.retry_after == pytest.approx(2.1)
    clock.now += 2.0
    assert not gets(admission, ANN, WEB)
    clock.now += 0.11
    assert gets(admission, ANN, WEB)


@pytest.mark.parametrize(
    ("per", "expected"),
    [
        (LimitScope.BOTH, [True, False, True, True]),
        (LimitScope.PRINCIPAL, [True, False, False, True]),
        (LimitScope.KEY, [True, False, True, False]),
    ],
)
def test_what_a_limit_is_counted_for(clock: Clock, per: LimitScope, expected: list[bool]) -> None:
    admission = Admission((limit(per=per, rate=1.0, burst=1),), 1000, clock=clock)
    assert [gets(admission, *one) for one in ((ANN, WEB), (ANN, WEB), (ANN, API), (BEN, WEB))] == expected


def test_a_limit_is_about_who_and_what_it_names(clock: Clock) -> None:
    narrow = limit("unix:1", keys=("web*",), rate=1.0, burst=1)
    group = limit("unix-group:5", keys=("api",), per=LimitScope.KEY, rate=1.0, burst=1)
    admission = Admission((narrow, group), 1000, clock=clock)
    assert [gets(admission, ANN, WEB) for _ in range(2)] == [True, False]
    assert [gets(admission, BEN, WEB) for _ in range(2)] == [True, True]
    assert [gets(admission, ANN, API), gets(admission, BEN, API)] == [True, False]


def test_only_so_many_are_under_way(clock: Clock) -> None:
    admission = Admission((limit(concurrency=4),), 1000, clock=clock)
    with ExitStack() as under_way:
        under_way.enter_context(admission.admit(ANN, WEB, 3))
        assert not gets(admission, ANN, WEB, 2)
        assert gets(admission, BEN, WEB, 2)
        assert gets(admission, ANN, WEB)
    assert gets(admission, ANN, WEB, 9)  # more than the limit gets in alone


def test_no_caller_fills_a_device_alone_whatever_the_policy_says(clock: Clock) -> None:
    admission = Admission((), 100, clock=clock)
    with admission.admit(ANN, WEB, 60):
        with pytest.raises(CallerLimitError, match="60 signatures under way"), admission.admit(ANN, API, 41):
            pass
        assert gets(admission, BEN, WEB, 100)
    assert gets(admission, ANN, WEB, 500)


def test_what_was_refused_is_not_counted(clock: Clock) -> None:
    admission = Admission((limit(rate=1.0, burst=2), limit(concurrency=1)), 1000, clock=clock)
    with admission.admit(ANN, WEB, 1):
        assert not gets(admission, ANN, WEB)  # by the second limit: the first has not paid for it
    assert gets(admission, ANN, WEB)

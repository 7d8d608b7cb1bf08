from __future__ import annotations

from collections.abc import Callable

import pytest

from hsmsign.measuring import tally
from hsmsign.measuring.tally import Tally
from hsmsign.model.errors import QueueFullError


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [100.0]
    monkeypatch.setattr(tally.time, "perf_counter", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_a_rate_counts_signatures_and_a_latency_is_of_a_call(clock: Callable[[float], None]) -> None:
    found = Tally(10.0, each=256)
    found.begin()
    for milliseconds in range(1, 101):
        clock(milliseconds / 1000)
        found.add(tally.time.perf_counter() - milliseconds / 1000)
    figures = found.figures()
    assert figures is not None
    assert figures.signatures == 25_600
    assert figures.rate == pytest.approx(25_600 / 5.05)
    assert (figures.p50, figures.p99) == (pytest.approx(0.050), pytest.approx(0.099))


def test_a_tally_is_over_when_its_time_is(clock: Callable[[float], None]) -> None:
    found = Tally(1.0)
    clock(5)
    found.begin()  # what came before, as connecting, takes nothing of it
    clock(0.9)
    assert not found.over
    clock(0.2)
    assert found.over


def test_the_first_failure_ends_a_load_and_is_kept(clock: Callable[[float], None]) -> None:
    found = Tally(1.0)
    first = QueueFullError("the first")
    found.fail(first)
    found.fail(QueueFullError("another"))
    assert found.over
    assert found.failure is first


def test_where_no_call_was_done_there_are_no_figures(clock: Callable[[float], None]) -> None:
    found = Tally(1.0)
    found.stop()
    assert found.over
    assert found.figures() is None

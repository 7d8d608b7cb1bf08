"""How a load is judged: by its yardstick just before and just after, in every round."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import unary
from bench.loads import Figures
from bench.rows import Extent, Report, Row

_SAID = """
finished in 2.00s, {rate} req/s, 100KB/s
requests: {done} total, {done} started, {done} done, {done} succeeded, {failed} failed, 0 errored, 0 timeout
status codes: {done} 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 1.00MB (1000000) total, 10KB (10000) headers (space savings 95%), 10KB ({data}) data
"""


def measured(raws: list[float], runs: list[Figures], *, rounds: int, goal: float | None = None) -> Row:
    raw, run = iter(raws), iter(runs)
    out = Report(Extent(1.0, rounds))
    out.group("group", "a yardstick").add("a load", lambda: next(raw), lambda: next(run), goal=goal)
    (row,) = out.rows
    return row


def test_each_round_is_compared_with_what_the_yardstick_did_before_and_after_it():
    row = measured([100.0, 300.0, 500.0], [Figures(100.0), Figures(100.0)], rounds=2)
    assert row.ratio == pytest.approx((0.5 + 0.25) / 2)
    assert row.spread == (0.25, 0.5)
    assert row.yardstick == "a yardstick"


def test_one_round_out_of_line_changes_neither_rate_nor_ratio():
    row = measured([100.0] * 4, [Figures(50.0), Figures(50.0), Figures(1.0)], rounds=3)
    assert (row.rate, row.ratio) == (50.0, 0.5)


def test_percentiles_are_of_the_calls_of_all_rounds_together():
    slow, quick = (
        Figures(1.0, tuple(number / 1e6 for number in numbers)) for numbers in (range(500, 1000), range(500))
    )
    row = measured([1.0] * 3, [slow, quick], rounds=2)
    wanted = {"1": 10, "10": 100, "25": 250, "50": 500, "75": 750, "90": 900, "99": 990, "99.9": 999}
    assert row.percentiles == pytest.approx(wanted)


def test_a_load_that_took_no_latencies_has_no_percentiles():
    assert measured([1.0, 1.0], [Figures(1.0)], rounds=1).percentiles == {}


def test_clients_that_count_their_own_processor_time_are_believed():
    assert measured([1.0] * 3, [Figures(1.0, (), 4, 2.0), Figures(1.0, (), 6, 3.0)], rounds=2).cpu_us == {"client": 5e5}


@pytest.mark.parametrize(("goal", "word"), [(0.5, "meets"), (0.51, "misses")])
def test_a_line_says_whether_the_goal_is_met(goal: float, word: str):
    assert f"({word} {goal:.2f})" in str(measured([1.0], [Figures(0.5)], rounds=0, goal=goal))


def test_what_is_not_asked_for_is_not_measured():
    out = Report(Extent(1.0, 1), only="batch", groups=["one"])
    for group, load in (("one", "a stream"), ("other", "a batch")):
        out.group(group, "a yardstick").add(load, lambda: pytest.fail("it ran"), lambda: pytest.fail("it ran"))
    assert out.rows == []


def test_what_h2load_says_becomes_figures(tmp_path: Path):
    log = tmp_path / "log"
    log.write_text("1500000000\t200\t250\n1500000001\t200\t750\n")
    figures = unary._figures(_SAID.format(rate="1234.50", done=2, failed=0, data=200), log, 46)
    assert figures == Figures(1234.5, (0.00025, 0.00075), 2)


@pytest.mark.parametrize(("failed", "data"), [(1, 200), (0, 0)], ids=["calls failed", "answers without a message"])
def test_h2loads_figures_are_refused_where_nothing_was_signed(tmp_path: Path, failed: int, data: int):
    with pytest.raises(RuntimeError):
        unary._figures(_SAID.format(rate="1234.50", done=2, failed=failed, data=data), tmp_path / "log", 46)

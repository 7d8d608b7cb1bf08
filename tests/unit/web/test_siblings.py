"""The metrics of several workers as one text."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from hsmsign.audit.records import OK, CallMade
from hsmsign.web.metrics import Metrics
from hsmsign.web.siblings import Siblings, merged


def counted(worker: str, calls: int) -> Metrics:
    metrics = Metrics(worker)
    for _ in range(calls):
        metrics.called(CallMade("GetKey", "unix:0", "1", "keys/a", OK, 0.1))
    return metrics


def calls(text: bytes) -> dict[str, float]:
    families = {one.name: one for one in text_string_to_metric_families(text.decode())}
    return {one.labels["worker"]: one.value for one in families["hsmsign_calls"].samples if one.name.endswith("_total")}


def test_the_series_of_each_worker_stand_under_one_heading() -> None:
    text = merged([counted("0", 2).text(), counted("1", 3).text()])
    assert calls(text) == {"0": 2, "1": 3}
    assert text.count(b"# TYPE hsmsign_calls ") == 1


def test_a_text_that_was_cut_off_is_left_out() -> None:
    assert calls(merged([counted("0", 2).text(), counted("1", 3).text()[:-9]])) == {"0": 2}


async def test_whoever_is_asked_asks_the_others_and_does_without_who_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hsmsign.web.siblings._PATIENCE", 5.0)
    workers = [Siblings(tmp_path, number, 3, counted(str(number), number + 1).text) for number in range(3)]
    running = [asyncio.ensure_future(worker.run()) for worker in workers[:2]]
    while not all((tmp_path / f"{number}.sum").exists() for number in range(2)):  # noqa: ASYNC110 - a file sets no event
        await asyncio.sleep(0.01)
    assert calls(await workers[0].text()) == {"0": 1, "1": 2}
    assert calls(await workers[1].text()) == {"0": 1, "1": 2}
    for task in running:
        task.cancel()

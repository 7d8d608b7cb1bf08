from __future__ import annotations

import base64
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bench import plots, report, results

HOSTILE = '<script>alert(1)</script> | $\\frac{ & "quoted" \']]> `code` [x](javascript:alert(1))'
ROW = {
    "group": "callers",
    "load": "sign(), 64 tasks",
    "series": "tasks",
    "x": 64,
    "x_name": "callers",
    "rate": 7000.0,
    "ratio": 0.7,
    "yardstick": "the raw C loop",
    "goal": 0.6,
    "percentiles": {"1": 800.0, "50": 2500.0, "99": 9000.0, "99.9": 20000.0},
    "cpu_us": {"client": 16.0, "worker": 18.0, "host": 97.0, "auditor": 4.0},
    "pss_mib": None,
}


class Page(HTMLParser):
    """The elements of a page, and its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for found, attributes in self.elements if found == tag]

    @property
    def pictures(self) -> list[bytes]:
        """Every drawing in it, light and dark."""
        places = [one["src"] for one in self.all("img")] + [one["srcset"] for one in self.all("source")]
        assert all(place.startswith("data:image/svg+xml;base64,") for place in places)
        return [base64.b64decode(place.partition(",")[2]) for place in places]


def written(folder: Path, *rows: dict[str, Any], **rest: Any) -> tuple[Page, str]:
    """What `python -m bench.report` makes of a report with these rows."""
    (folder / "report.json").write_text(json.dumps({"rows": list(rows), **rest}))
    assert report.main(["--json", str(folder / "report.json"), "--out", str(folder)]) == 0
    return Page((folder / "report.html").read_text()), (folder / "report.md").read_text()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_goal_that_is_not_met_is_said_first(tmp_path: Path) -> None:
    page, text = written(tmp_path, ROW, {**ROW, "load": "SignBatch of 256", "ratio": 0.8, "goal": 0.9})
    for words in ("\n".join(page.words), text):
        assert "1 of 2 goals is NOT met" in words
        assert words.index("NOT met") < words.index("SignBatch of 256") < words.index("sign(), 64 tasks")
    missed, met = (text.index(f"| {load} | the raw C loop |") for load in ("SignBatch of 256", "sign(), 64 tasks"))
    assert missed < met
    assert text[missed:].startswith("| SignBatch of 256 | the raw C loop | 0.90 | 0.80 | NOT met |")
    assert text[met:].startswith("| sign(), 64 tasks | the raw C loop | 0.60 | 0.70 | met |")


def test_goals_that_are_all_met_are_said_to_be(tmp_path: Path) -> None:
    page, text = written(tmp_path, ROW, {**ROW, "x": 16, "ratio": 0.6})
    for words in (" ".join(page.words), text):
        assert "All goals are met (2)." in words
        assert "NOT met" not in words


def test_a_load_that_was_not_measured_does_not_meet_its_goal(tmp_path: Path) -> None:
    _, text = written(tmp_path, {**ROW, "ratio": float("nan")})
    assert "1 of 1 goals is NOT met" in text


def test_memory_and_time_have_goals_too(tmp_path: Path) -> None:
    slow = {**ROW, "load": "one at a time", "ratio": 0.05, "goal": 0.125, "factor": 20.0}
    large = {**ROW, "load": "10,000 connections", "goal": None, "pss_mib": 250.0, "pss_goal_mib": 200.0}
    quick = {**slow, "load": "another", "ratio": 0.2, "factor": 5.0, "pss_mib": 150.0, "pss_goal_mib": 200.0}
    _, text = written(tmp_path, slow, large, quick)
    assert "2 of 4 goals are NOT met" in text
    for line in (
        "| one at a time | the raw C loop | at most 8.0 times as long | 20.0 times | NOT met |",
        "| 10,000 connections | the raw C loop | at most 200 MiB | 250 MiB | NOT met |",
        "| another | the raw C loop | at most 8.0 times as long | 5.0 times | met |",
        "| another | the raw C loop | at most 200 MiB | 150 MiB | met |",
    ):
        assert line in text


def test_the_spread_of_all_rounds_is_shown_and_failover(tmp_path: Path) -> None:
    failover = [{"fault": "its host is killed", "longest_ms": [18.0312, 17], "calls": 21479}]
    _, text = written(tmp_path, {**ROW, "spread": [0.61, 0.79]}, rounds=5, seconds=2, failover=failover)
    assert "0.61 to 0.79" in text
    assert "5 rounds, 2 seconds each" in text
    assert "| its host is killed | 18.03, 17 | 21,479 |" in text


def test_a_short_run_says_that_its_figures_say_nothing(tmp_path: Path) -> None:
    page, text = written(tmp_path, ROW, rounds=0)
    for words in (" ".join(page.words), text):
        assert "A short run" in words
    assert "A short run" not in written(tmp_path, ROW, rounds=5)[1]


def test_a_report_without_rows_says_so(tmp_path: Path) -> None:
    page, text = written(tmp_path)
    for words in (" ".join(page.words), text):
        assert "No load was measured." in words
    assert page.pictures == []
    assert page.all("table") == []


def test_words_of_a_report_are_words_and_nothing_else(tmp_path: Path) -> None:
    rows = [
        {**ROW, **dict.fromkeys(("group", "load", "series", "x_name", "yardstick"), HOSTILE), "x": x} for x in (1, 9)
    ]
    for row in rows:
        row["cpu_us"] = {HOSTILE: 5.0}
    page, text = written(tmp_path, *rows, machine={HOSTILE: HOSTILE}, versions={"x": HOSTILE}, when=HOSTILE)
    assert page.all("script") == []
    assert page.all("a") == []
    assert HOSTILE in page.words
    assert HOSTILE in page.all("img")[0]["alt"]
    for picture in page.pictures:
        names = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(picture).iter()}  # well-formed
        assert "script" not in names
    narrow = {
        **ROW,
        "percentiles": {"50": 2200.0, "99": 8800.0},
    }  # less than a decade: its ticks are between the powers
    drawn = [picture.decode() for picture in written(tmp_path, narrow)[0].pictures]
    assert [text for text in drawn if "$" in text] == []
    table = [line for line in text.splitlines() if line.startswith("|") and "alert" in line]
    assert {len(cells(line)) for line in table} == {5, 6}  # goals, and the group: no cell more
    assert "<script" not in text
    assert "](javascript" not in text


def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    page, _ = written(tmp_path, ROW, {**ROW, "x": 16, "ratio": 0.4})
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "link", "iframe", "object"})
    (policy,) = [one["content"] for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "url(" not in (tmp_path / "report.html").read_text()


def test_each_picture_is_drawn_for_light_and_dark_and_told_in_words(tmp_path: Path) -> None:
    page, _ = written(tmp_path, ROW, {**ROW, "x": 16, "ratio": 0.4})
    assert len(page.all("img")) == len(page.all("source")) == 3
    assert all(one["media"] == "(prefers-color-scheme: dark)" for one in page.all("source"))
    alts = [one["alt"] for one in page.all("img")]
    assert "tasks: 0.4 at 16 callers, 0.7 at 64 callers." in alts[0]
    assert "p50 2,500 microseconds, p99 9,000 microseconds" in alts[1]
    assert "client 16, worker 18, host 97, auditor 4" in alts[2]
    light, dark = page.pictures[0].decode(), page.pictures[3].decode()
    assert "fill: #1f2328" in light
    assert "#1f2328" not in dark


def test_all_that_was_varied_is_drawn(tmp_path: Path) -> None:
    rows = [
        {**ROW, "group": name, "x_name": name, "x": x, "series": name, "pss_mib": 100.0 + x}
        for name in ("batch", "callers", "connections", "keys", "workers")
        for x in (1, 1000)
    ]
    memory = [{"signatures": n, "pss_mib": 90.0} for n in (1000, 2000)]
    (tmp_path / "report.json").write_text(json.dumps({"rows": rows, "memory": memory}))
    titles = [picture.title for picture in plots.pictures(results.read(tmp_path / "report.json"))]
    for name in ("batch", "callers", "keys", "workers"):
        assert f"Throughput against {name}, as ratio to the raw C loop" in titles
    assert "Rate and memory with many connections" in titles
    assert "Memory over signatures" in titles
    assert "Latency of calls: connections" in titles
    assert "Processor time of one signature, by process" in titles


def test_ratios_to_different_yardsticks_are_not_drawn_together(tmp_path: Path) -> None:
    rows = [{**ROW, "x": x, "yardstick": of, "series": "s"} for x in (1, 4) for of in ("the raw C loop", "one worker")]
    (tmp_path / "report.json").write_text(json.dumps({"rows": rows}))
    titles = [picture.title for picture in plots.pictures(results.read(tmp_path / "report.json"))]
    assert [title for title in titles if title.startswith("Throughput")] == [
        "Throughput against callers, as ratio to the raw C loop",
        "Throughput against callers, as ratio to one worker",
    ]


def test_a_short_run_has_little_and_makes_a_page(tmp_path: Path) -> None:
    page, text = written(
        tmp_path, {"load": "raw C loop", "rate": 11000, "ratio": 1}, crls=[{"entries": 1000, "seconds": 0.05}]
    )
    for words in (" ".join(page.words), text):
        assert "No goal was set for what was measured." in words
        assert "11,000" in words
        assert "1,000" in words
    assert page.pictures == []


@pytest.mark.parametrize(
    ("content", "words"), [(None, "No such file"), ("{", "is not JSON"), ("[]", "an object is expected")]
)
def test_what_is_no_report_is_said_in_one_error(
    tmp_path: Path, content: str | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    assert report.main(["--json", str(tmp_path / "report.json"), "--out", str(tmp_path)]) == 66
    said = capsys.readouterr().err
    assert words in said
    assert "make bench" in said
    assert not (tmp_path / "report.html").exists()

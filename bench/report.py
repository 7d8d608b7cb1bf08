"""bench/report.md and bench/report.html from bench/report.json: what was asked, what was reached, and pictures.

    python -m bench.report [--json FILE] [--out FOLDER]

The page needs nothing but itself: it opens from a file, without a network.
"""

from __future__ import annotations

import argparse
import base64
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench import plots, results
from bench.results import Goal, Results, Row
from hsmsign.model.errors import HsmsignError

_HERE = Path(__file__).parent
_STRUCTURE = re.compile(r"[\\`*_{}\[\]<>#|~&\r\n]")
"""What Markdown takes for its own, within a line or a cell of a table."""
_LATENCIES = (50.0, 99.0)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of words under headings. The first column names its row; from column `numbers` on they are numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: int = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Write both files; 0, or 66 where there is no report to write them from."""
    parser = argparse.ArgumentParser(prog="bench.report", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, default=_HERE / "report.json", help="what `make bench` measured")
    parser.add_argument("--out", type=Path, default=_HERE, help="the folder of report.md and report.html")
    chosen = parser.parse_args(arguments)
    try:
        found = results.read(chosen.json)
    except HsmsignError as error:
        print(f"error: {error.message}\n  {error.hint}", file=sys.stderr)
        return 66
    for name, text in (("report.md", markdown(found)), ("report.html", page(found))):
        (chosen.out / name).write_text(text, encoding="utf-8")
        print(f"wrote {chosen.out / name}")
    return 0


def page(found: Results) -> str:
    """The report as a page of HTML."""
    environment = _environment(autoescape=True)
    environment.filters["data_uri"] = _data_uri
    return environment.get_template("page.html.in").render(_facts(found), pictures=plots.pictures(found))


def markdown(found: Results) -> str:
    """The report as Markdown: the tables alone."""
    return _environment(autoescape=True, finalize=_harmless).get_template("page.md.in").render(_facts(found))


def _environment(**options: Any) -> Environment:
    return Environment(
        loader=FileSystemLoader(_HERE), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, **options
    )


def _facts(found: Results) -> dict[str, Any]:
    goals = sorted(
        ((row, goal) for row in found.rows for goal in row.goals),
        key=lambda one: one[1].met,  # those that want a reader first
    )
    return {
        "when": found.when,
        "how": _how(found),
        "empty": not found.rows,
        "verdict": _verdict(goals),
        "short": found.rounds == 0,
        "missed": list(dict.fromkeys(row.load for row, goal in goals if not goal.met)),
        "goals": _goals(goals) if goals else None,
        "groups": [_group(name, [row for row in found.rows if row.group == name]) for name in _names(found.rows)],
        "others": [*_failover(found), *_crls(found), *_memory(found)],
        "surroundings": _surroundings(found),
    }


def _how(found: Results) -> str:
    words = []
    if found.rounds:
        words.append(f"{found.rounds:g} rounds")
    if found.seconds:
        words.append(f"{found.seconds:g} seconds each")
    return ", ".join(words)


def _verdict(goals: Sequence[tuple[Row, Goal]]) -> str:
    if not goals:
        return "No goal was set for what was measured."
    met = sum(1 for _, goal in goals if goal.met)
    if met == len(goals):
        return f"All goals are met ({met})." if met > 1 else "The one goal is met."
    return f"{len(goals) - met} of {len(goals)} goals {'is' if len(goals) - met == 1 else 'are'} NOT met:"


def _goals(goals: Iterable[tuple[Row, Goal]]) -> Table:
    rows = [
        (row.load, row.yardstick, goal.asked, goal.reached, "met" if goal.met else "NOT met") for row, goal in goals
    ]
    return Table("Goals", ("load", "as a ratio to", "asked", "reached", "verdict"), rows, numbers=2)


def _names(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(row.group for row in rows))


def _group(name: str, rows: Sequence[Row]) -> Table:
    """All rows of a group, with those columns that any of them has."""
    columns: list[tuple[str, list[str]]] = [
        ("a second", [_count(row.rate) for row in rows]),
        ("ratio", [_ratio(row.ratio) for row in rows]),
        ("of all rounds", [_spread(row) for row in rows]),
        *((f"p{mark:g} µs", [_count(row.percentiles.get(mark)) for row in rows]) for mark in _LATENCIES),
        *((f"{who} µs", [_count(row.cpu_us.get(who)) for row in rows]) for who in _processes(rows)),
        ("PSS MiB", ["" if row.pss_mib is None else f"{row.pss_mib:,.1f}" for row in rows]),
    ]
    kept = [(title, cells) for title, cells in columns if any(cells)]
    yardsticks = dict.fromkeys(row.yardstick for row in rows if row.yardstick)
    of = [("to", [row.yardstick for row in rows])] if len(yardsticks) > 1 else []
    title = f"{name}, as ratios to {next(iter(yardsticks))}" if len(yardsticks) == 1 else name
    named = [*of, *kept]
    body = [[row.load, *(cells[at] for _, cells in named)] for at, row in enumerate(rows)]
    return Table(title, ["load", *(heading for heading, _ in named)], body, numbers=1 + len(of))


def _processes(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(who for row in rows for who in row.cpu_us))


def _crls(found: Results) -> Iterable[Table]:
    if found.crls:
        columns = list(dict.fromkeys(name for one in found.crls for name in one))
        rows = [[f"{one[name]:,.6g}" if name in one else "" for name in columns] for one in found.crls]
        yield Table("CRLs", [name.replace("_", " ") for name in columns], rows)


def _failover(found: Results) -> Iterable[Table]:
    if found.failover:
        columns = list(dict.fromkeys(name for one in found.failover for name in one))
        rows = [[one.get(name, "") for name in columns] for one in found.failover]
        yield Table("Failover", [name.replace("_", " ") for name in columns], rows)


def _memory(found: Results) -> Iterable[Table]:
    rows = [] if found.idle_mib is None else [("0 (idle)", f"{found.idle_mib:,.1f}")]
    rows += [(f"{signatures:,.0f}", f"{mib:,.1f}") for signatures, mib in found.memory]
    if rows:
        yield Table("Memory of the daemon, all processes", ("signatures made", "PSS MiB"), rows)


def _surroundings(found: Results) -> list[tuple[str, str]]:
    return [(name.replace("_", " "), value) for name, value in (*found.machine.items(), *found.versions.items())]


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _spread(row: Row) -> str:
    """Nothing where there was one round."""
    low, high = row.spread or (0.0, 0.0)
    return f"{low:.2f} to {high:.2f}" if low < high else ""


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if abs(value) >= 10 else f"{value:.1f}"


def _data_uri(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode('ascii')}"


def _harmless(value: object) -> object:
    """Words that Markdown shows as they are. An entity is never structure (CommonMark, section 2.5)."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return Markup(_STRUCTURE.sub(lambda one: f"&#{ord(one[0])};", value))


if __name__ == "__main__":
    sys.exit(main())

"""bench/report.json as values. Any field may be missing, a short run has few rows: what is not there is left out."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hsmsign.model.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Goal:
    """What was asked of a load, and what was reached, in words; whether that is enough."""

    asked: str
    reached: str
    met: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One load. Times are in microseconds."""

    group: str
    load: str
    series: str = ""
    x: float | None = None
    x_name: str = ""
    """What `x` counts: "callers", "batch", "keys", "connections", "workers"; empty where there is no `x`."""
    rate: float | None = None
    """A second."""
    ratio: float | None = None
    """To the yardstick."""
    spread: tuple[float, float] | None = None
    """The lowest and the highest ratio of all rounds."""
    factor: float | None = None
    """How many times the yardstick's time a call takes; of calls that are judged by their time."""
    yardstick: str = ""
    goal: float | None = None
    """The ratio that is asked for, or more."""
    percentiles: Mapping[float, float] = field(default_factory=dict)
    cpu_us: Mapping[str, float] = field(default_factory=dict)
    """Processor time of one signature, by process."""
    pss_mib: float | None = None
    pss_goal_mib: float | None = None
    """The memory that is asked for, or less."""

    @property
    def goals(self) -> list[Goal]:
        """What was asked of it. What was not measured does not meet a goal."""
        goals = []
        if self.goal is not None:
            met = self.ratio is not None and self.ratio >= self.goal
            by_time = self.factor is not None and self.goal > 0
            asked = f"at most {1 / self.goal:.1f} times as long" if by_time else f"{self.goal:.2f}"
            reached = f"{self.factor:.1f} times" if by_time else _said(self.ratio, ".2f")
            goals.append(Goal(asked, reached, met))
        if self.pss_goal_mib is not None:
            met = self.pss_mib is not None and self.pss_mib <= self.pss_goal_mib
            goals.append(Goal(f"at most {self.pss_goal_mib:,.0f} MiB", _said(self.pss_mib, ",.0f", " MiB"), met))
        return goals


@dataclass(frozen=True, slots=True)
class Results:
    """One run of `make bench`."""

    machine: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    when: str = ""
    seconds: float | None = None
    """Of each run of a load or of its yardstick."""
    rounds: float | None = None
    rows: tuple[Row, ...] = ()
    memory: tuple[tuple[float, float], ...] = ()
    """Signatures made, and the daemon's memory then, MiB."""
    crls: tuple[Mapping[str, float], ...] = ()
    failover: tuple[Mapping[str, str], ...] = ()
    idle_mib: float | None = None


def read(path: Path) -> Results:
    """Read a report. Raises ConfigurationError where it is none."""
    try:
        said = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}", hint="make one with: make bench") from error
    except ValueError as error:
        raise ConfigurationError(f"{path} is not JSON: {error}", hint="make it anew with: make bench") from error
    if not isinstance(said, dict):
        raise ConfigurationError(f"{path} is no report: an object is expected", hint="make it anew with: make bench")
    return Results(
        machine=_words(said.get("machine")),
        versions=_words(said.get("versions")),
        when=_text(said.get("when")),
        seconds=_number(said.get("seconds")),
        rounds=_number(said.get("rounds")),
        rows=tuple(_row(one) for one in _objects(said.get("rows"))),
        memory=tuple(_pairs(_objects(said.get("memory")))),
        crls=tuple(_numbers(one) for one in _objects(said.get("crls"))),
        failover=tuple(
            {str(name): _cell(value) for name, value in one.items()} for one in _objects(said.get("failover"))
        ),
        idle_mib=_number(said.get("idle_mib")),
    )


def _row(said: Mapping[str, Any]) -> Row:
    return Row(
        group=_text(said.get("group")) or "other",
        load=_text(said.get("load")),
        series=_text(said.get("series")),
        x=_number(said.get("x")),
        x_name=_text(said.get("x_name")),
        rate=_number(said.get("rate")),
        ratio=_number(said.get("ratio")),
        yardstick=_text(said.get("yardstick")),
        goal=_number(said.get("goal")),
        percentiles=dict(sorted((float(p), us) for p, us in _numbers(said.get("percentiles")).items() if _is_float(p))),
        cpu_us=_numbers(said.get("cpu_us")),
        pss_mib=_number(said.get("pss_mib")),
        pss_goal_mib=_number(said.get("pss_goal_mib")),
        spread=_spread(said.get("spread")),
        factor=_number(said.get("factor")),
    )


def _spread(said: Any) -> tuple[float, float] | None:
    ends = [_number(end) for end in said] if isinstance(said, list) else []
    known = [end for end in ends if end is not None]
    return (min(known), max(known)) if known else None


def _pairs(said: Iterable[Mapping[str, Any]]) -> Iterable[tuple[float, float]]:
    for one in said:
        signatures, mib = _number(one.get("signatures")), _number(one.get("pss_mib"))
        if signatures is not None and mib is not None:
            yield signatures, mib


def _objects(said: Any) -> list[Mapping[str, Any]]:
    return [one for one in said if isinstance(one, dict)] if isinstance(said, list) else []


def _words(said: Any) -> dict[str, str]:
    return {str(name): _text(value) for name, value in said.items()} if isinstance(said, dict) else {}


def _numbers(said: Any) -> dict[str, float]:
    pairs = said.items() if isinstance(said, dict) else ()
    return {str(name): number for name, value in pairs if (number := _number(value)) is not None}


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _number(value: Any) -> float | None:
    """None also for what is written NaN or Infinity: a load that made nothing."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None


def _cell(value: Any) -> str:
    """A value of a table whose columns are not known here."""
    if isinstance(value, list):
        return ", ".join(_cell(one) for one in value)
    number = _number(value)
    return _text(value) if number is None else f"{number:,.4g}" if number < 1000 else f"{number:,.0f}"


def _said(value: float | None, form: str, unit: str = "") -> str:
    return "not measured" if value is None else f"{value:{form}}{unit}"


def _is_float(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False

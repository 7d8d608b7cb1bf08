"""Rows of the report: each load beside its yardstick, which runs just before and just after it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.loads import Figures
from bench.processor import seconds_by_process
from bench.scene import Scene

SHARES = (1, 10, 25, 50, 75, 90, 99, 99.9)
"""Per cent of calls, for the latencies of a row."""


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured: seconds of each run, rounds of each load (0: once, after its yardstick), which sizes."""

    seconds: float
    rounds: int
    short: bool = False
    long: bool = False

    def sizes(self, usual: Sequence[int], *, short: Sequence[int], long: Sequence[int] = ()) -> list[int]:
        """Those of `short` alone in the short form, those of `long` beside the usual in the long one."""
        return list(short) if self.short else [*usual, *(long if self.long else ())]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report. `rate` is a second, `ratio` and `goal` are to the yardstick, `spread` is the lowest and
    the highest ratio of all rounds. Percentiles are of the calls' latencies, `cpu_us` is the processor time of one
    signature by process: both in microseconds, both empty where they were not taken. `pss_mib` is the daemon's memory
    after the load, `pss_goal_mib` what it should stay under. `factor` is there where a call is judged by its time: how
    many times the yardstick's it takes."""

    group: str
    load: str
    series: str
    x: float | None
    x_name: str
    rate: float
    ratio: float
    spread: tuple[float, float]
    yardstick: str
    goal: float | None
    factor: float | None
    percentiles: dict[str, float]
    cpu_us: dict[str, float]
    pss_mib: float | None
    pss_goal_mib: float | None

    def __str__(self) -> str:
        line = f"{self.load:56} {self.rate:9,.0f}/s   {self.ratio:5.2f}"
        if self.goal is not None:
            line += f" ({'meets' if self.ratio >= self.goal else 'misses'} {self.goal:.2f})"
        if self.factor is not None:
            line += f" {self.factor:5.1f} times as long"
        if self.percentiles:
            line += f"   p50 {self.percentiles['50']:9,.0f} us   p99 {self.percentiles['99']:9,.0f} us"
        if self.pss_goal_mib is not None and self.pss_mib is not None:
            line += f"   {self.pss_mib:.0f} MiB (goal: {self.pss_goal_mib:.0f})"
        return line


@dataclass(slots=True)
class Measured:
    """What the rounds of a load gave."""

    rates: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    count: int = 0

    def take(self, figures: Figures, yardstick: float) -> None:
        """One more round."""
        self.rates.append(figures.rate)
        self.ratios.append(figures.rate / yardstick)
        self.latencies.extend(figures.latencies)
        self.count += figures.count

    def percentiles(self) -> dict[str, float]:
        """Of all rounds together, in microseconds."""
        ordered = sorted(self.latencies)
        last = len(ordered) - 1
        return {str(share): ordered[min(last, int(share / 100 * len(ordered)))] * 1e6 for share in SHARES if ordered}

    def processor(self) -> dict[str, float]:
        """Microseconds of a signature, by process; empty where it is not known how many there were."""
        return {name: took / self.count * 1e6 for name, took in self.seconds.items() if self.count}


def measure(raw: Callable[[], float], load: Callable[[], Figures], rounds: int, scene: Scene | None = None) -> Measured:
    """Some rounds of a load, each between two runs of the yardstick; without rounds once, after one. The processor time
    of the daemon of `scene` and of this process is taken where there is one."""
    found = Measured()

    def once() -> Figures:
        before = seconds_by_process(scene) if scene else {}
        figures = load()
        took = {name: after - before[name] for name, after in (seconds_by_process(scene) if scene else {}).items()}
        if figures.client_seconds is not None:
            took["client"] = figures.client_seconds
        for name, seconds in took.items():
            found.seconds[name] = found.seconds.get(name, 0.0) + seconds
        return figures

    before = raw()
    if not rounds:
        found.take(once(), before)
    for _ in range(rounds):
        figures = once()
        after = raw()
        found.take(figures, statistics.mean((before, after)))
        before = after
    return found


class Report:
    """The rows, printed as they are measured."""

    def __init__(self, extent: Extent, only: str = "", groups: Sequence[str] = ()) -> None:
        """Only loads that have `only` in their name, of these groups (of all where there are none)."""
        self.rows: list[Row] = []
        self.extent = extent
        self.only = only
        self._groups = groups

    def wants(self, *groups: str) -> bool:
        """Whether any of these groups is to be measured."""
        return not self._groups or any(group in self._groups for group in groups)

    def group(self, name: str, yardstick: str, scene: Scene | None = None) -> Group:
        """What rows of this group are added to. `scene` has the daemon whose processor time and memory are taken."""
        return Group(self, name, yardstick, scene)


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that belong together."""

    report: Report
    name: str
    yardstick: str
    scene: Scene | None

    def add(
        self,
        load: str,
        raw: Callable[[], float],
        run: Callable[[], Figures],
        *,
        series: str = "",
        x: tuple[str, float] | None = None,
        goal: float | None = None,
        pss_goal: float | None = None,
        by_time: bool = False,
    ) -> None:
        """Measure a load beside its yardstick. Rows of one series differ in `x`, which has a name."""
        if not self.report.wants(self.name) or self.report.only not in load:
            return
        found = measure(raw, run, self.report.extent.rounds, self.scene)
        row = Row(
            group=self.name,
            load=load,
            series=series or load,
            x=x[1] if x else None,
            x_name=x[0] if x else "",
            rate=statistics.median(found.rates),
            ratio=statistics.median(found.ratios),
            spread=(min(found.ratios), max(found.ratios)),
            yardstick=self.yardstick,
            goal=goal,
            factor=1 / statistics.median(found.ratios) if by_time else None,
            percentiles=found.percentiles(),
            cpu_us=found.processor(),
            pss_mib=self.scene.memory() if self.scene else None,
            pss_goal_mib=pss_goal,
        )
        self.report.rows.append(row)
        print(row, flush=True)

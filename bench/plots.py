"""Pictures of a run, as SVG: each for a light and for a dark page, with words for who cannot see it.

The colours are those of Okabe and Ito, which can be told apart with any kind of colour vision; besides, lines have
markers of their own, and bars have hatches.
"""

from __future__ import annotations

import io
import itertools
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import matplotlib as mpl
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from bench.results import Results, Row

K = TypeVar("K")
T = TypeVar("T")
Points = list[tuple[float, float]]
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_STYLES = ("-", "--", "-.", ":", "-", "--", "-.", ":")
_HATCHES = ("", "//", "..", "xx", "\\\\", "++")
_LIGHT = ("#1f2328", "#b8bec5")
_DARK = ("#e6edf3", "#4b535d")
"""The inks of a page: of words, and of the grid."""
_WIDTH = 8.0
"""Inches."""
_LEGEND = 90
"""Characters beside each other."""
_MOST_LINES = 8
_MOST_BARS = 20


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture. `alt` tells what there is to see."""

    title: str
    alt: str
    light: bytes
    """SVG."""
    dark: bytes


def pictures(results: Results) -> list[Picture]:
    """All that there is something to draw of."""
    return [
        *_ratios(results.rows),
        *_connections([row for row in results.rows if row.x_name == "connections"]),
        *_latencies(results.rows),
        *_processors([row for row in results.rows if row.cpu_us]),
        *_memory(results.memory),
    ]


def _ratios(rows: Iterable[Row]) -> Iterator[Picture]:
    """Throughput against whatever was varied; only what has the same yardstick stands in one picture."""
    drawable = [row for row in rows if row.x is not None and row.ratio is not None and row.x_name]
    for (x_name, yardstick), found in _grouped(drawable, lambda row: (row.x_name, row.yardstick)).items():
        series = _series(found, lambda row: row.ratio)
        if x_name == "connections" or all(len(points) < 2 for points in series.values()):
            continue
        goals = sorted({(row.x, row.goal) for row in found if row.x is not None and row.goal is not None})
        of = f"ratio to {yardstick or 'the yardstick'}"
        for part in _parts(list(series), _MOST_LINES):
            lines = {name: series[name] for name in part}

            def draw(
                figure: Figure,
                lines: Mapping[str, Points] = lines,
                goals: Points = goals,
                words: tuple[str, str] = (x_name, of),
            ) -> None:
                axes = figure.add_subplot()
                _draw_lines(axes, lines, *words)
                if goals:
                    axes.scatter(
                        [x for x, _ in goals],
                        [y for _, y in goals],
                        marker="_",
                        s=400,
                        linewidths=2,
                        color=_LIGHT[0],
                        label="goal",
                    )
                axes.set_ylim(bottom=0)
                _legend(axes)

            yield _picture(f"Throughput against {x_name}, as {of}", _told(lines, x_name), draw)


def _connections(rows: Sequence[Row]) -> Iterator[Picture]:
    panels = [
        (words, series)
        for words, value in (("a second", lambda row: row.rate), ("MiB (PSS)", lambda row: row.pss_mib))
        if (series := _series(rows, value))
    ]
    if not panels:
        return

    def draw(figure: Figure) -> None:
        for axes, (words, series) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _draw_lines(axes, series, "connections", words)
            axes.set_ylim(bottom=0)
            _legend(axes)

    alt = " ".join(f"{words[0].upper()}{words[1:]}: {_told(series, 'connections')}" for words, series in panels)
    yield _picture("Rate and memory with many connections", alt, draw)


def _latencies(rows: Iterable[Row]) -> Iterator[Picture]:
    for group, found in _grouped([row for row in rows if row.percentiles], lambda row: row.group).items():
        for some, part in _few(found):
            marks = sorted({mark for row in part for mark in row.percentiles})

            def draw(figure: Figure, part: Sequence[Row] = part, marks: Sequence[float] = marks) -> None:
                axes = figure.add_subplot()
                for row in part:
                    known = [(marks.index(mark), max(us, 0.1)) for mark, us in row.percentiles.items()]
                    axes.plot(*zip(*known, strict=True), label=_short(row.load))
                axes.set_xticks(range(len(marks)), [f"p{mark:g}" for mark in marks])
                axes.set_yscale("log")
                # by itself it would write powers of ten in mathematics, and hardly any where a picture has one decade
                axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axes.yaxis.set_major_formatter("{x:,.0f}")
                axes.yaxis.set_minor_formatter(NullFormatter())
                axes.set_ylabel("microseconds (logarithmic)")
                axes.set_xlabel("this share of calls was as quick, or quicker")
                _legend(axes)

            alt = " ".join(f"{row.load}: {_ends(row.percentiles)}." for row in part)
            yield _picture(f"Latency of calls: {group}{', ' if some else ''}{some}", alt, draw)


def _few(rows: Sequence[Row]) -> Iterator[tuple[str, Sequence[Row]]]:
    """No more in one picture than can be told apart; where that takes several, each is of a series, which is named."""
    of_series = _grouped(rows, lambda row: row.series) if len(rows) > _MOST_LINES else {"": list(rows)}
    for name, some in of_series.items():
        for part in _parts(some, _MOST_LINES):
            yield name, part


def _ends(percentiles: Mapping[float, float]) -> str:
    chosen = [mark for mark in (50.0, 99.0) if mark in percentiles] or list(percentiles)
    return ", ".join(f"p{mark:g} {percentiles[mark]:,.0f} microseconds" for mark in chosen)


def _processors(rows: Sequence[Row]) -> Iterator[Picture]:
    """Stacked bars, one a load, one piece a process."""
    for part in _parts(rows, _MOST_BARS):
        processes = list(dict.fromkeys(name for row in part for name in row.cpu_us))

        def draw(figure: Figure, part: Sequence[Row] = part, processes: Sequence[str] = processes) -> None:
            axes = figure.add_subplot()
            base = [0.0] * len(part)
            for name, colour, hatch in zip(
                processes, itertools.cycle(_COLOURS), itertools.cycle(_HATCHES), strict=False
            ):
                widths = [max(row.cpu_us.get(name, 0.0), 0.0) for row in part]
                axes.barh(
                    range(len(part)), widths, left=base, color=colour, hatch=hatch, edgecolor=_LIGHT[0], label=name
                )
                base = [one + other for one, other in zip(base, widths, strict=True)]
            axes.set_yticks(range(len(part)), [_short(row.load) for row in part])
            axes.invert_yaxis()
            axes.set_xlabel("microseconds of processor for one signature")
            axes.grid(visible=False, axis="y")
            _legend(axes)

        alt = " ".join(f"{row.load}: {', '.join(f'{who} {us:.0f}' for who, us in row.cpu_us.items())}." for row in part)
        height = 1.6 + 0.34 * len(part)
        yield _picture("Processor time of one signature, by process", f"Microseconds. {alt}", draw, height)


def _memory(memory: Sequence[tuple[float, float]]) -> Iterator[Picture]:
    if len(memory) < 2:
        return
    series = {"all processes of the daemon": list(memory)}

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.plot(*zip(*memory, strict=True))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("signatures made")
        axes.set_ylabel("MiB (PSS)")
        axes.set_ylim(bottom=0)

    yield _picture("Memory over signatures", _told(series, "signatures"), draw)


def _draw_lines(axes: Axes, series: Mapping[str, Points], x_name: str, y_name: str) -> None:
    for name, points in series.items():
        axes.plot(*zip(*points, strict=True), label=_short(name))
    places = sorted({x for points in series.values() for x, _ in points})
    if places[0] > 0 and places[-1] / places[0] >= 8:
        axes.set_xscale("log", base=2)
    axes.set_xticks(places, [f"{x:,g}" for x in places])
    axes.minorticks_off()
    if len(places) > 7:
        axes.tick_params(axis="x", rotation=45)
    axes.set_xlabel(x_name)
    axes.set_ylabel(y_name)


def _series(rows: Iterable[Row], value: Callable[[Row], float | None]) -> dict[str, Points]:
    """Lines by name; one that is in several groups says in which."""
    known = [(row, row.x, y) for row in rows if row.x is not None and (y := value(row)) is not None]
    groups = {row.group for row, _, _ in known}
    lines: dict[str, dict[float, float]] = {}
    for row, x, y in known:
        name = row.series or row.group
        lines.setdefault(name if len(groups) == 1 or name == row.group else f"{row.group}: {name}", {})[x] = y
    return {name: sorted(points.items()) for name, points in lines.items()}


def _told(series: Mapping[str, Points], x_name: str) -> str:
    said = []
    for name, points in series.items():
        (x, y), (last_x, last_y) = points[0], points[-1]
        end = f", {last_y:.4g} at {last_x:,g} {x_name}" if len(points) > 1 else ""
        said.append(f"{name}: {y:.4g} at {x:,g} {x_name}{end}.")
    return " ".join(said)


def _picture(title: str, alt: str, draw: Callable[[Figure], None], height: float = 4.2) -> Picture:
    """Drawn once: dark is the same with another ink."""
    light = dark = _svg(draw, height)
    for ink, other in zip(_LIGHT, _DARK, strict=True):
        dark = dark.replace(ink.encode(), other.encode())
    return Picture(title, f"{title}. {alt}", light, dark)


def _svg(draw: Callable[[Figure], None], height: float) -> bytes:
    out = io.BytesIO()
    with mpl.rc_context(_style(*_LIGHT)):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        draw(figure)
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return out.getvalue()


def _style(ink: str, grid: str) -> dict[Any, Any]:
    return {
        "axes.axisbelow": True,
        "axes.edgecolor": grid,
        "axes.grid": True,
        "axes.labelcolor": ink,
        "axes.prop_cycle": _cycle(),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "font.size": 10,
        "grid.color": grid,
        "grid.linewidth": 0.5,
        "legend.frameon": False,
        "legend.labelcolor": ink,
        "svg.fonttype": "none",  # words stay words: smaller, and a browser can search them
        "svg.hashsalt": "hsmsign",
        "text.color": ink,
        "text.parse_math": False,  # names of loads are words, also with a dollar
        "xtick.color": ink,
        "ytick.color": ink,
    }


def _cycle() -> object:
    colours = list(itertools.islice(itertools.cycle(_COLOURS), len(_MARKERS)))
    return cycler(color=colours) + cycler(marker=list(_MARKERS)) + cycler(linestyle=list(_STYLES))


def _legend(axes: Axes) -> None:
    """Above the plot, where it hides nothing."""
    longest = max((len(text) for text in axes.get_legend_handles_labels()[1]), default=0)
    columns = max(1, min(4, _LEGEND // (longest + 8)))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, fontsize="small")


def _short(text: str) -> str:
    return textwrap.shorten(text, 60, placeholder="…") or "?"


def _grouped(rows: Iterable[Row], key: Callable[[Row], K]) -> dict[K, list[Row]]:
    groups: dict[K, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def _parts(items: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), most):
        yield items[start : start + most]

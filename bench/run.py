"""`make bench`: every figure as a ratio to the bare device, measured just before and after it in the same run."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import loads
from bench.loads import Figures
from bench.scene import Scene


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report."""

    load: str
    rate: float
    ratio: float
    p50_us: float
    p99_us: float


def measure(raw: Callable[[], float], load: Callable[[], Figures], rounds: int) -> tuple[float, float, Figures]:
    """The median rate and ratio over some rounds, each between two runs of the yardstick."""
    rates, ratios, last = [], [], Figures(0.0)
    before = raw()
    for _ in range(rounds):
        last = load()
        after = raw()
        rates.append(last.rate)
        ratios.append(last.rate / statistics.mean((before, after)))
        before = after
    return statistics.median(rates), statistics.median(ratios), last


def report(scene: Scene, seconds: float, rounds: int, only: str) -> list[Row]:
    """All loads, in order; a line is printed as it is measured."""
    key_id = scene.key_id()
    cores = os.cpu_count() or 1
    rows: list[Row] = []

    def add(name: str, load: Callable[[], Figures]) -> None:
        if only not in name:
            return
        rate, ratio, last = measure(lambda: scene.raw(key_id, cores, seconds), load, rounds)
        row = Row(name, rate, ratio, last.percentile(0.5), last.percentile(0.99))
        rows.append(row)
        timing = f"p50 {row.p50_us:9,.0f} us   p99 {row.p99_us:9,.0f} us" if last.latencies else ""
        print(f"{row.load:44} {row.rate:9,.0f}/s   {row.ratio:5.2f} of raw   {timing}", flush=True)

    add(f"raw C loop, {cores} threads (the yardstick)", lambda: Figures(scene.raw(key_id, cores, seconds)))
    add("raw C loop, 1 thread", lambda: Figures(scene.raw(key_id, 1, seconds)))
    add("python-pkcs11, one by one", lambda: loads.python_pkcs11(scene, key_id, seconds))
    for where, connect in (("mTLS", scene.tcp), ("Unix socket", scene.unix)):
        with connect() as client:
            for size in (1, 16, 256, 4096):
                add(f"SignBatch of {size}, {where}", lambda c=client, n=size: loads.batches(c, n, seconds))  # type: ignore[misc]
    for concurrency in (1, 64):
        add(f"Sign, {concurrency} at once, mTLS", lambda n=concurrency: loads.singles(scene, n, seconds))  # type: ignore[misc]
    return rows


def main() -> None:
    """Measure and print; the figures also go to bench/report.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--short", action="store_true", help="a moment for each load: shows that it runs")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run of a load or of the yardstick")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each load; medians are shown")
    parser.add_argument("--only", default="", help="only loads whose name has this in it")
    arguments = parser.parse_args()
    seconds, rounds = (0.3, 1) if arguments.short else (arguments.seconds, arguments.rounds)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print("client and daemon share the cores; ECDSA P-256 on SoftHSM; ratios are medians of paired runs\n")
    with Scene.build() as scene:
        idle = scene.memory()
        rows = report(scene, seconds, rounds, arguments.only)
        print(
            f"\nmemory of the idle daemon (PSS, all processes): {idle:.0f} MiB, after the run {scene.memory():.0f} MiB"
        )
    with Path("bench/report.json").open("w", encoding="utf-8") as file:
        json.dump({"idle_mib": idle, "rows": [asdict(row) for row in rows]}, file, indent=2)


if __name__ == "__main__":
    main()

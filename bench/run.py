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

from bench import authority, failover, fairness, guards, handshakes, loads, tpm, workers
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
    """The median rate and ratio over some rounds, each between two runs of the yardstick; without rounds, after one."""
    rates, ratios, last = [], [], Figures(0.0)
    before = raw()
    if not rounds:
        last = load()
        return last.rate, last.rate / before, last
    for _ in range(rounds):
        last = load()
        after = raw()
        rates.append(last.rate)
        ratios.append(last.rate / statistics.mean((before, after)))
        before = after
    return statistics.median(rates), statistics.median(ratios), last


class Report:
    """The rows, printed as they are measured."""

    def __init__(self, rounds: int, only: str) -> None:
        self.rows: list[Row] = []
        self._rounds, self._only = rounds, only

    def add(self, name: str, raw: Callable[[], float], load: Callable[[], Figures]) -> None:
        """Measure a load beside its yardstick."""
        if self._only not in name:
            return
        rate, ratio, last = measure(raw, load, self._rounds)
        row = Row(name, rate, ratio, last.percentile(0.5), last.percentile(0.99))
        self.rows.append(row)
        timing = f"p50 {row.p50_us:9,.0f} us   p99 {row.p99_us:9,.0f} us" if last.latencies else ""
        print(f"{row.load:48} {row.rate:9,.0f}/s   {row.ratio:5.2f} of raw   {timing}", flush=True)


def on_softhsm(scene: Scene, seconds: float, out: Report) -> None:
    """All loads on a token."""
    key_id = scene.key_id()
    cores = os.cpu_count() or 1

    def add(name: str, load: Callable[[], Figures]) -> None:
        out.add(name, lambda: scene.raw(key_id, cores, seconds), load)

    add(f"raw C loop, {cores} threads (the yardstick)", lambda: Figures(scene.raw(key_id, cores, seconds)))
    add("raw C loop, 1 thread", lambda: Figures(scene.raw(key_id, 1, seconds)))
    add("python-pkcs11, one by one", lambda: loads.python_pkcs11(scene, key_id, seconds))
    for where, connect in (("mTLS", scene.tcp), ("Unix socket", scene.unix)):
        with connect() as client:
            for size in (1, 16, 256, 4096):
                add(f"SignBatch of {size}, {where}", lambda c=client, n=size: loads.batches(c, n, seconds))  # type: ignore[misc]
    add("Sign, 1 at once, mTLS", lambda: loads.singles(scene, 1, seconds))
    for concurrency in (4, 16, 64, 256):
        add(f"sign(), {concurrency} tasks, asyncio, mTLS", lambda n=concurrency: loads.singles(scene, n, seconds))  # type: ignore[misc]
        add(f"sign(), {concurrency} threads, mTLS", lambda n=concurrency: loads.threads(scene, n, seconds))  # type: ignore[misc]


def main() -> None:
    """Measure and print; the figures also go to bench/report.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--short", action="store_true", help="a moment for each load: shows that it runs")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run of a load or of the yardstick")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each load; medians are shown")
    parser.add_argument("--only", default="", help="only loads whose name has this in it")
    arguments = parser.parse_args()
    seconds, rounds = (0.2, 0) if arguments.short else (arguments.seconds, arguments.rounds)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print("client and daemon share the cores; ECDSA P-256; ratios are medians of paired runs\n")
    out = Report(rounds, arguments.only)
    with Scene.build() as scene:
        idle = scene.memory()
        on_softhsm(scene, seconds, out)
        after = scene.memory()
    many, ways = (5, tpm.WAYS[-1:]) if arguments.short else (200, tpm.WAYS)
    tpm.report(out.add, seconds, many, ways)
    print("\nwith policy and audit, the ratio to a daemon without:")
    guards.report(out.add, seconds)
    print("\nbeside a noisy caller, the ratio to the same quiet caller alone:")
    fairness.report(out.add, seconds)
    if arguments.only in "failover":
        print("\nfailover, one key on two tokens, four callers:")
        failover.report(max(rounds, 1), seconds)
    print("\nmore workers, the ratio to a daemon with one:")
    one, two = workers.report(out.add, seconds)
    print(f"memory of an idle daemon (PSS, all processes): {one:.0f} MiB, with two workers {two:.0f} MiB")
    crls = []
    if any(arguments.only in name for name in ("certificates", "OCSP", "CRL")):
        print("\na certificate authority, the ratio to the bare device on all cores; the store is durable (SQLite):")
        crls = authority.report(out.add, seconds, authority.SIZES[0] if arguments.short else max(authority.SIZES))
    if any(arguments.only in name for name in handshakes.NAMES):
        print("\nfull TLS 1.3 handshakes, the ratio to the same server with the key in a file:")
        handshakes.report(out.add, seconds, rounds, short=arguments.short)
    print(f"\nmemory of the idle daemon (PSS, all processes): {idle:.0f} MiB, after the run {after:.0f} MiB")
    with Path("bench/report.json").open("w", encoding="utf-8") as file:
        json.dump({"idle_mib": idle, "rows": [asdict(row) for row in out.rows], "crls": crls}, file, indent=2)


if __name__ == "__main__":
    main()

"""`make bench`: every figure as a ratio to the bare device, measured just before and after it in the same run."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import (
    authority,
    connections,
    failover,
    fairness,
    guards,
    handshakes,
    keys,
    memory,
    p11kit,
    signing,
    slow,
    tpm,
    unary,
    workers,
)
from bench.machine import machine, versions
from bench.rows import Extent, Report
from bench.scene import Scene

GROUPS = (
    *("raw loop", "batch", "callers", "stream", "unary", "alone", "p11-kit", "algorithms"),
    *("memory", "connections", "keys", "slow device", "policy and audit", "fairness", "workers"),
    *("TPM", "failover", "certificate authority", "handshakes"),
)


def on_one_key(out: Report, scene: Scene) -> None:
    """A daemon on a token, beside that token."""
    key_id = scene.key_id()
    signing.loop(out, scene, key_id)
    signing.batches(out, scene, key_id)
    signing.callers(out, scene, key_id)
    signing.streams(out, scene, key_id)
    unary.report(out, scene, key_id)
    signing.alone(out, scene, key_id)
    p11kit.report(out, scene, key_id)
    signing.algorithms(out, scene)


def in_numbers(out: Report, scene: Scene) -> list[dict[str, float]]:
    """Many signatures, connections, keys. Answers with the memory over the signatures."""
    found = []
    if out.wants("memory") and out.only in "memory":
        print("\nmemory of the daemon (PSS, all processes):")
        found = memory.points(scene, 10_000 if out.extent.short else 1_000_000 if out.extent.long else 100_000)
    if out.wants("connections", "keys"):
        print("\nmany connections, the ratio to the bare device; many keys, the ratio to one of them:")
        connections.report(out, scene, scene.key_id())
        keys.report(out, scene)
    return found


def on_one_daemon(out: Report) -> dict[str, Any]:
    """All that runs on one daemon at a time; what is no row goes into the report by itself. Only the short form has the
    same one for everything."""
    with Scene.build(edit=connections.edit) as scene:
        found: dict[str, Any] = {"idle_mib": scene.memory(), "memory": []}
        on_one_key(out, scene)
        if out.extent.short:
            found["memory"] = in_numbers(out, scene)
        print(f"memory of the daemon (PSS): idle {found['idle_mib']:.0f} MiB, after the run {scene.memory():.0f} MiB")
    if not out.extent.short and out.wants("memory", "connections", "keys"):
        with Scene.build(edit=connections.edit) as scene:
            found["memory"] = in_numbers(out, scene)
    return found


def on_softhsm(out: Report) -> None:
    """What wants another daemon, or several."""
    if out.wants("slow device"):
        print("\na slow device, the ratio to what its sessions can do together:")
        slow.report(out)
    if out.wants("policy and audit"):
        print("\nwith policy and audit, the ratio to a daemon without:")
        guards.report(out)
    if out.wants("fairness"):
        print("\nbeside a noisy caller, the ratio to the same quiet caller alone:")
        fairness.report(out)
    if out.wants("workers"):
        print("\nmore workers, the ratio to a daemon with one:")
        workers.report(out)


def beyond(out: Report) -> dict[str, Any]:
    """The other devices and doors; what is no row goes into the report by itself."""
    short, found = out.extent.short, dict[str, Any](crls=[], failover=[])
    if out.wants("TPM"):
        print("\na TPM, the ratio to ESAPI alone:")
        tpm.report(out, *((5, tpm.WAYS[-1:]) if short else (200, tpm.WAYS)))
    if out.wants("failover") and out.only in "failover":
        print("\nfailover, one key on two tokens, four callers:")
        found["failover"] = failover.report(max(out.extent.rounds, 1), out.extent.seconds)
    if out.wants("certificate authority") and any(out.only in name for name in ("certificates", "OCSP", "CRL")):
        print("\na certificate authority, the ratio to the bare device on all cores; the store is durable (SQLite):")
        found["crls"] = authority.report(out, authority.SIZES[0] if short else max(authority.SIZES))
    if out.wants("handshakes") and any(out.only in name for name in handshakes.NAMES):
        print("\nfull TLS 1.3 handshakes, the ratio to the same server with the key in a file:")
        handshakes.report(out)
    return found


def report(out: Report) -> dict[str, Any]:
    """Measure all that is wanted; the content of bench/report.json."""
    began, when = time.monotonic(), dt.datetime.now(dt.UTC)
    first = on_one_daemon(out)
    on_softhsm(out)
    rest = beyond(out)
    return {
        "machine": machine(),
        "versions": versions(),
        "when": when.isoformat(timespec="seconds"),
        "seconds": out.extent.seconds,
        "rounds": out.extent.rounds,
        "took_seconds": time.monotonic() - began,
        "rows": [asdict(row) for row in out.rows],
        **first,
        **rest,
    }


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--short", action="store_true", help="a moment for some loads of each group: shows that they run"
    )
    parser.add_argument("--long", action="store_true", help="also what takes long: 10,000 keys, a million signatures")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run of a load or of the yardstick")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each load; medians are shown")
    parser.add_argument("--only", default="", help="only loads whose name has this in it")
    parser.add_argument("--group", action="append", choices=GROUPS, default=[], help="only this group; may be repeated")
    return parser.parse_args()


def main() -> None:
    """Measure and print; the figures also go to bench/report.json."""
    said = arguments()
    seconds, rounds = (0.1, 0) if said.short else (said.seconds, said.rounds)
    print(f"{machine()['processor']}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print("client and daemon share the cores; ECDSA P-256; ratios are medians of paired runs\n")
    found = report(Report(Extent(seconds, rounds, said.short, said.long), said.only, said.group))
    with Path("bench/report.json").open("w", encoding="utf-8") as file:
        json.dump(found, file, indent=2)


if __name__ == "__main__":
    main()

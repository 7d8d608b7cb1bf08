"""Single calls of several callers, each a process of its own: a daemon with two front workers beside one with one."""

from __future__ import annotations

import json
import subprocess
import sys
import time

from bench.loads import Figures
from bench.rows import Report
from bench.scene import KEY, Scene

_CALLERS = 4
_YARDSTICK = "the same load on a daemon with one worker"
_CALLER = """
import asyncio, json, sys, time
from hsmsign import aio
where, key, at_once, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
async def run():
    latencies = []
    connecting = aio.connect(where) if where.startswith("unix:") else aio.connect(client_file=where)
    async with connecting as client:
        await client.sign(key, digest=bytes(32))
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        end, worked = time.perf_counter() + seconds, time.process_time()
        async def caller():
            while (began := time.perf_counter()) < end:
                await client.sign(key, digest=bytes(32))
                latencies.append(time.perf_counter() - began)
        await asyncio.gather(*(caller() for _ in range(at_once)))
        worked = time.process_time() - worked
    print(json.dumps([worked, latencies]))
asyncio.run(run())
"""


def singles(where: str, at_once: int, seconds: float) -> Figures:
    """Sign calls of all callers, so many at once from each."""
    command = [sys.executable, "-c", _CALLER, where, KEY, str(at_once), str(seconds)]
    callers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(_CALLERS)
    ]
    for caller in callers:
        assert caller.stdout is not None
        caller.stdout.readline()
    began = time.perf_counter()
    for caller in callers:
        assert caller.stdin is not None
        caller.stdin.write("\n")
        caller.stdin.flush()
    worked, latencies = 0.0, list[float]()
    for caller in callers:
        mine, times = json.loads(caller.communicate()[0])
        worked += mine
        latencies += times
    return Figures(len(latencies) / (time.perf_counter() - began), tuple(latencies), len(latencies), worked)


def _two(text: str) -> str:
    return text.replace("workers = 1 ", "workers = 2 ")


def report(out: Report) -> None:
    """Measure, each pair in one run; the ratio is to one worker, that of one worker to itself shows the noise."""
    seconds = out.extent.seconds
    with Scene.build() as one, Scene.build(edit=_two) as two:
        print(f"memory of an idle daemon (PSS): {one.memory():.0f} MiB, with two workers {two.memory():.0f} MiB")
        groups = {1: out.group("workers", _YARDSTICK, one), 2: out.group("workers", _YARDSTICK, two)}
        for at_once in out.extent.sizes((1, 16), short=(16,)):
            for way in ("Unix socket", "mTLS")[: 1 if out.extent.short else None]:  # each caller is slow to start
                for number in out.extent.sizes((1, 2), short=(2,)):
                    few, many = _end(one, way), _end(two if number == 2 else one, way)
                    groups[number].add(
                        f"Sign, {_CALLERS} callers with {at_once} at once, {way}, {number} workers",
                        lambda w=few, n=at_once: singles(w, n, seconds).rate,  # type: ignore[misc]
                        lambda w=many, n=at_once: singles(w, n, seconds),  # type: ignore[misc]
                        series=f"{at_once} at once, {way}",
                        x=("workers", number),
                    )


def _end(scene: Scene, way: str) -> str:
    return scene.unix_target if way == "Unix socket" else f"{scene.folder}/client.toml"

"""Many keys in random use: what is lost beside one key that is used all the time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from bench import loads
from bench.loads import USUAL, Figures, Work
from bench.rows import Group, Report
from bench.scene import KEY, Scene
from hsmsign import aio
from hsmsign.client.client import Client

_GOAL = 0.9
_CALLERS = 64
_MOST = 1000
"""Keys that are all used before the clock starts; with more, SoftHSM would search for hours."""


def report(out: Report, scene: Scene) -> None:
    """The ratio is to the same load with one key, among as many keys. A session looks for a key when it first signs
    with it, and then knows it: the first time has a row of its own, and is over when the others begin."""
    if not out.wants("keys"):
        return
    group = out.group("keys", "the same load with one key", scene)
    names: list[str] = []
    with scene.tcp() as client:
        for count in out.extent.sizes((1, 10, 100, _MOST), short=(1, 10), long=(10_000,)):
            new = _more(client, len(names), count)
            names += new
            if len(new) > max(1, out.extent.rounds):  # each round wants keys of its own
                _first_time(group, scene, new, count)
            if count <= _MOST:
                _use(client, new)
                _in_random_use(group, scene, client, names)


def _more(client: Client, there: int, wanted: int) -> list[str]:
    names = [f"keys/of-many-{number}" for number in range(there, wanted)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: client.create_key(name, algorithm="ecdsa-p256"), names))
    return names


def _use(client: Client, names: Sequence[str]) -> None:
    """Sign so much with each that every session has had it."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: client.sign_batch(name, USUAL.inputs(64)).signatures(), names))


def _first_time(group: Group, scene: Scene, names: Sequence[str], count: int) -> None:
    extent, unused = group.report.extent, iter(names)
    group.add(
        f"sign(), {_CALLERS} tasks, each of {count:,} keys for the first time, mTLS",
        lambda: loads.singles(scene, _CALLERS, extent.seconds).rate,
        lambda: _each(scene, islice(unused, max(1, len(names) // max(1, extent.rounds))), extent.seconds),
        series=f"sign(), {_CALLERS} tasks, mTLS, for the first time",
        x=("keys", count),
    )


def _each(scene: Scene, names: Iterator[str], seconds: float) -> Figures:
    """One signature with each of these keys, as far as the time goes."""
    latencies: list[float] = []

    async def run() -> float:
        async with aio.connect(client_file=scene.folder / "client.toml") as client:
            await client.sign(KEY, digest=bytes(32))
            began = time.perf_counter()

            async def caller() -> None:
                for name in names:
                    if (start := time.perf_counter()) > began + seconds:
                        return
                    await client.sign(name, digest=bytes(32))
                    latencies.append(time.perf_counter() - start)

            await asyncio.gather(*(caller() for _ in range(_CALLERS)))
            return time.perf_counter() - began

    took = asyncio.run(run())
    return Figures(len(latencies) / took, tuple(latencies), len(latencies))


def _in_random_use(group: Group, scene: Scene, client: Client, names: Sequence[str]) -> None:
    seconds, count = group.report.extent.seconds, len(names)
    one, every = Work(names[:1]), Work(tuple(names))
    group.add(
        f"SignBatch of 256, {count:,} keys, mTLS",
        lambda: loads.batches(client, 256, seconds, work=one).rate,
        lambda: loads.batches(client, 256, seconds, work=every),
        series="SignBatch of 256, mTLS",
        x=("keys", count),
        goal=_GOAL if count > 1 else None,
    )
    group.add(
        f"sign(), {_CALLERS} tasks, {count:,} keys, mTLS",
        lambda: loads.singles(scene, _CALLERS, seconds, names=one.names).rate,
        lambda: loads.singles(scene, _CALLERS, seconds, names=every.names),
        series=f"sign(), {_CALLERS} tasks, mTLS",
        x=("keys", count),
        goal=_GOAL if count > 1 else None,
    )

"""The daemon beside the bare device: batches, many callers of one client, one caller alone, streams, algorithms."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator

from bench import loads
from bench.loads import Figures, Work
from bench.rows import Report
from bench.scene import KEY, Scene
from hsmsign.model.algorithms import InputKind, Scheme

CORES = os.cpu_count() or 1
YARDSTICK = f"raw C loop, {CORES} threads"
_BATCH_GOAL, _TASKS_GOAL, _THREADS_GOAL, _STREAM_GOAL, _ALGORITHM_GOAL = 0.90, 0.70, 0.55, 0.75, 0.95
_ALONE_GOAL = 1 / 8
_WINDOW = 1024
_ALGORITHMS = {
    "rsa-2048": Work(["keys/bench-rsa-2048"], Scheme.RSA_PKCS1_SHA256),
    "ecdsa-p384": Work(["keys/bench-ecdsa-p384"], length=48),
    "ed25519": Work(["keys/bench-ed25519"], kind=InputKind.MESSAGE),
}


def loop(out: Report, scene: Scene, key_id: str) -> None:
    """The yardstick beside itself, and what one gets without a daemon."""
    seconds = out.extent.seconds
    group = out.group("raw loop", YARDSTICK)

    def raw() -> float:
        return scene.raw(key_id, CORES, seconds)

    group.add(f"raw C loop, {CORES} threads (the yardstick)", raw, lambda: Figures(raw()))
    group.add("raw C loop, 1 thread", raw, lambda: Figures(scene.raw(key_id, 1, seconds)))
    group.add("python-pkcs11, one by one", raw, lambda: loads.python_pkcs11(scene, key_id, seconds))


def batches(out: Report, scene: Scene, key_id: str) -> None:
    """SignBatch, four calls under way."""
    seconds = out.extent.seconds
    group = out.group("batch", YARDSTICK, scene)
    for where, connect in (("mTLS", scene.tcp), ("Unix socket", scene.unix)):
        with connect() as client:
            for size in out.extent.sizes((1, 16, 256, 4096), short=(1, 256)):
                group.add(
                    f"SignBatch of {size}, {where}",
                    lambda: scene.raw(key_id, CORES, seconds),
                    lambda c=client, n=size: loads.batches(c, n, seconds),  # type: ignore[misc]
                    series=f"SignBatch, {where}",
                    x=("batch", size),
                    goal=_BATCH_GOAL if size == 256 else None,
                )


def callers(out: Report, scene: Scene, key_id: str) -> None:
    """sign() from many tasks or threads that share one client."""
    seconds = out.extent.seconds
    group = out.group("callers", YARDSTICK, scene)

    def raw() -> float:
        return scene.raw(key_id, CORES, seconds)

    for count in out.extent.sizes((1, 4, 16, 64, 256), short=(1, 64)):
        group.add(
            f"sign(), {count} tasks, asyncio, mTLS",
            raw,
            lambda n=count: loads.singles(scene, n, seconds),  # type: ignore[misc]
            series="tasks, asyncio",
            x=("callers", count),
            goal=_TASKS_GOAL if count == 64 else None,
        )
        group.add(
            f"sign(), {count} threads, mTLS",
            raw,
            lambda n=count: loads.threads(scene.tcp, n, seconds),  # type: ignore[misc]
            series="threads",
            x=("callers", count),
            goal=_THREADS_GOAL if count == 64 else None,
        )


def alone(out: Report, scene: Scene, key_id: str) -> None:
    """One caller, one call at a time. The ratio is of the device's own time of a signature to the call's p50: where it
    is 0.125, a call takes eight times as long as its signature."""
    seconds = out.extent.seconds
    group = out.group("alone", "one signature of the raw C loop, 1 thread", scene)

    def median(figures: Figures) -> Figures:
        return Figures(1e6 / figures.percentile(0.5), figures.latencies, figures.count)

    ways = {
        "sign(), one at a time, Unix socket": lambda: loads.threads(scene.unix, 1, seconds),
        "sign(), one at a time, mTLS": lambda: loads.threads(scene.tcp, 1, seconds),
        "sign(), one at a time, asyncio, Unix socket": lambda: loads.singles(scene, 1, seconds, unix=True),
        "sign(), one at a time, asyncio, mTLS": lambda: loads.singles(scene, 1, seconds),
    }
    for name, load in ways.items():
        group.add(
            name,
            lambda: scene.raw(key_id, 1, seconds),
            lambda run=load: median(run()),  # type: ignore[misc]
            goal=_ALONE_GOAL,
            by_time=True,
        )


def streams(out: Report, scene: Scene, key_id: str) -> None:
    """SignStream: sixteen groups may be under way, so that groups of 16 make a window of 256; the daemon takes 1,024
    inputs of a stream."""
    seconds = out.extent.seconds
    group = out.group("stream", YARDSTICK, scene)
    for size in out.extent.sizes((1, 16, 64, 256), short=(16,)):
        group.add(
            f"SignStream, groups of {size}, window {min(16 * size, _WINDOW):,}, mTLS",
            lambda: scene.raw(key_id, CORES, seconds),
            lambda n=size: _stream(scene, n, seconds),  # type: ignore[misc]
            series="SignStream, mTLS",
            x=("batch", size),
            goal=_STREAM_GOAL if size == 16 else None,
        )


def _stream(scene: Scene, size: int, seconds: float) -> Figures:
    digests = loads.USUAL.inputs(1024)
    with scene.tcp() as client:
        client.sign(KEY, digest=digests[0])
        began = time.perf_counter()

        def until() -> Iterator[bytes]:
            for number in itertools.count():
                if number % size == 0 and time.perf_counter() >= began + seconds:
                    return
                yield digests[number % len(digests)]

        count = 0
        for entry in client.sign_stream(KEY, until(), group_size=size):
            if not isinstance(entry, bytes):
                raise entry
            count += 1
        return Figures(count / (time.perf_counter() - began), count=count)


def algorithms(out: Report, scene: Scene) -> None:
    """Batches of 256 of other algorithms, each beside the raw loop of its own."""
    seconds = out.extent.seconds
    with scene.tcp() as client:
        for algorithm, work in _ALGORITHMS.items():
            if not out.wants("algorithms"):
                return
            client.create_key(work.names[0], algorithm=algorithm)
            key_id = scene.key_id(work.names[0])
            out.group("algorithms", f"raw C loop, {algorithm}, {CORES} threads", scene).add(
                f"SignBatch of 256, {algorithm}, mTLS",
                lambda k=key_id, a=algorithm: scene.raw(k, CORES, seconds, a),  # type: ignore[misc]
                lambda w=work: loads.batches(client, 256, seconds, work=w),  # type: ignore[misc]
                goal=_ALGORITHM_GOAL,
            )

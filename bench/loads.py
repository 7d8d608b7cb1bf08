"""The loads: each runs for some seconds and gives signatures a second and how long single calls took."""

from __future__ import annotations

import asyncio
import hashlib
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.scene import KEY, Scene
from hsmsign import aio
from hsmsign.client.client import Client
from hsmsign.model.algorithms import InputKind, Scheme

_PYTHON_PKCS11 = """
import os, sys, time, pkcs11
module, key_id, seconds = sys.argv[1], bytes.fromhex(sys.argv[2]), float(sys.argv[3])
token = pkcs11.lib(module).get_token(token_label="hsmsign")
with token.open(user_pin=os.environ["HSMSIGN_PIN"]) as session:
    key = session.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, id=key_id)
    count, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        key.sign(bytes(32), mechanism=pkcs11.Mechanism.ECDSA)
        count += 1
print(count / seconds)
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """Signatures a second, the latencies of calls in seconds (empty where they were not taken), how many signatures
    there were (0 where nobody counted), and the processor seconds of clients that counted them themselves, without
    their start."""

    rate: float
    latencies: tuple[float, ...] = ()
    count: int = 0
    client_seconds: float | None = None

    def percentile(self, share: float) -> float:
        """The latency, in microseconds, that this share of calls stayed under; 0 where there is none."""
        if not self.latencies:
            return 0.0
        return sorted(self.latencies)[min(len(self.latencies) - 1, int(share * len(self.latencies)))] * 1e6


@dataclass(frozen=True, slots=True)
class Work:
    """What is signed: with one of these keys, at random for each call; by which scheme; inputs of so many bytes."""

    names: Sequence[str] = (KEY,)
    scheme: Scheme | None = None
    kind: InputKind = InputKind.DIGEST
    length: int = 32

    def inputs(self, count: int) -> list[bytes]:
        """So many, each another."""
        return [hashlib.sha512(str(i).encode()).digest()[: self.length] for i in range(count)]


USUAL = Work()


def python_pkcs11(scene: Scene, key_id: str, seconds: float) -> Figures:
    """python-pkcs11 in a process of its own, one signature after the other."""
    command = [sys.executable, "-c", _PYTHON_PKCS11, scene.module, key_id, str(seconds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=scene.environment)
    return Figures(float(done.stdout))


def batches(client: Client, size: int, seconds: float, threads: int = 4, work: Work = USUAL) -> Figures:
    """SignBatch calls of `size` inputs, some threads at once."""
    inputs = work.inputs(size)
    latencies: list[float] = []

    def call() -> None:
        client.sign_batch(random.choice(work.names), inputs, scheme=work.scheme, kind=work.kind).signatures()

    call()
    took = at_once(threads, seconds, call, latencies)
    count = len(latencies) * size
    return Figures(count / took, tuple(latencies), count)


def threads(connect: Callable[[], Client], concurrency: int, seconds: float) -> Figures:
    """Sign calls by so many threads that share one client."""
    digest = hashlib.sha256(b"one").digest()
    latencies: list[float] = []
    with connect() as client:
        client.sign(KEY, digest=digest)
        took = at_once(concurrency, seconds, lambda: client.sign(KEY, digest=digest), latencies)
    return Figures(len(latencies) / took, tuple(latencies), len(latencies))


def at_once(concurrency: int, seconds: float, call: Callable[[], object], latencies: list[float]) -> float:
    """So many threads call again and again, and add to `latencies` what each call took; how long it was in all."""
    end = time.perf_counter() + seconds

    def run() -> None:
        mine = []
        while (began := time.perf_counter()) < end:
            call()
            mine.append(time.perf_counter() - began)
        latencies.extend(mine)

    workers = [threading.Thread(target=run) for _ in range(concurrency)]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return time.perf_counter() - began


def singles(
    scene: Scene, concurrency: int, seconds: float, *, unix: bool = False, names: Sequence[str] = (KEY,)
) -> Figures:
    """Sign calls, so many at once from one asyncio client, each with one of these keys at random."""
    digest = hashlib.sha256(b"one").digest()
    latencies: list[float] = []

    async def run() -> float:
        connecting = aio.connect(scene.unix_target) if unix else aio.connect(client_file=scene.folder / "client.toml")
        async with connecting as client:
            await client.sign(KEY, digest=digest)
            end = time.perf_counter() + seconds

            async def caller() -> None:
                while (began := time.perf_counter()) < end:
                    await client.sign(random.choice(names), digest=digest)
                    latencies.append(time.perf_counter() - began)

            began = time.perf_counter()
            await asyncio.gather(*(caller() for _ in range(concurrency)))
            return time.perf_counter() - began

    took = asyncio.run(run())
    return Figures(len(latencies) / took, tuple(latencies), len(latencies))

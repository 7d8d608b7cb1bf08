"""The loads: each runs for some seconds and gives signatures a second and how long single calls took."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

from bench.scene import KEY, Scene
from hsmsign import aio
from hsmsign.client.client import Client

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
    """Signatures a second, and the latencies of calls in seconds (empty where they were not taken)."""

    rate: float
    latencies: tuple[float, ...] = ()

    def percentile(self, share: float) -> float:
        """The latency, in microseconds, that this share of calls stayed under; 0 where there is none."""
        if not self.latencies:
            return 0.0
        return sorted(self.latencies)[min(len(self.latencies) - 1, int(share * len(self.latencies)))] * 1e6


def python_pkcs11(scene: Scene, key_id: str, seconds: float) -> Figures:
    """python-pkcs11 in a process of its own, one signature after the other."""
    command = [sys.executable, "-c", _PYTHON_PKCS11, scene.module, key_id, str(seconds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=scene.environment)
    return Figures(float(done.stdout))


def batches(client: Client, size: int, seconds: float, threads: int = 4) -> Figures:
    """SignBatch calls of `size` digests, some threads at once."""
    digests = [hashlib.sha256(str(i).encode()).digest() for i in range(size)]
    counts: list[int] = []
    latencies: list[float] = []
    client.sign_batch(KEY, digests).signatures()
    end = time.perf_counter() + seconds

    def run() -> None:
        calls = 0
        while (began := time.perf_counter()) < end:
            client.sign_batch(KEY, digests).signatures()
            latencies.append(time.perf_counter() - began)
            calls += 1
        counts.append(calls)

    workers = [threading.Thread(target=run) for _ in range(threads)]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return Figures(sum(counts) * size / (time.perf_counter() - began), tuple(latencies))


def threads(scene: Scene, concurrency: int, seconds: float) -> Figures:
    """Sign calls over mutual TLS, by so many threads that share one client."""
    digest = hashlib.sha256(b"one").digest()
    latencies: list[float] = []
    with scene.tcp() as client:
        client.sign(KEY, digest=digest)
        end = time.perf_counter() + seconds

        def run() -> None:
            mine = []
            while (began := time.perf_counter()) < end:
                client.sign(KEY, digest=digest)
                mine.append(time.perf_counter() - began)
            latencies.extend(mine)

        workers = [threading.Thread(target=run) for _ in range(concurrency)]
        began = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        took = time.perf_counter() - began
    return Figures(len(latencies) / took, tuple(latencies))


def singles(scene: Scene, concurrency: int, seconds: float) -> Figures:
    """Sign calls over mutual TLS, so many at once from one asyncio client."""
    digest = hashlib.sha256(b"one").digest()
    latencies: list[float] = []

    async def run() -> float:
        async with aio.connect(client_file=scene.folder / "client.toml") as client:
            await client.sign(KEY, digest=digest)
            end = time.perf_counter() + seconds

            async def caller() -> None:
                while (began := time.perf_counter()) < end:
                    await client.sign(KEY, digest=digest)
                    latencies.append(time.perf_counter() - began)

            began = time.perf_counter()
            await asyncio.gather(*(caller() for _ in range(concurrency)))
            return time.perf_counter() - began

    took = asyncio.run(run())
    return Figures(len(latencies) / took, tuple(latencies))

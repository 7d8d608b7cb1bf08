"""A TPM behind the daemon, as ratios to ESAPI alone on the same swtpm."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from bench import loads
from bench.loads import Figures
from bench.rows import Report
from bench.scene import Scene
from hsmsign import aio
from hsmsign.backends.tpm.simulator import two_free_ports
from hsmsign.client.client import Client

WAYS = ("password", "hmac")
"""How a TPM's keys are authorized."""


@dataclass(frozen=True, slots=True)
class Tpm:
    """A daemon on a swtpm."""

    scene: Scene
    tcti: str
    authorization: str

    def bare(self, seconds: float) -> float:
        """ESAPI alone, authorized in the same way, in a process of its own."""
        command = [sys.executable, "-m", "bench.esapi_loop", self.tcti, self.authorization, str(seconds)]
        environment = {**os.environ, "TSS2_LOG": "all+NONE"}
        return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


@contextlib.contextmanager
def _swtpm() -> Iterator[str]:
    folder, port = Path(tempfile.mkdtemp(prefix="hsmsign-bench-tpm-")), two_free_ports()
    where = [f"type=tcp,bindaddr=127.0.0.1,port={port}", f"type=tcp,bindaddr=127.0.0.1,port={port + 1}"]
    command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder}", "--flags", "not-need-init,startup-clear"]
    process = subprocess.Popen([*command, "--server", where[0], "--ctrl", where[1]], stdin=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        yield f"swtpm:host=127.0.0.1,port={port}"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder)


@contextlib.contextmanager
def _daemon(authorization: str) -> Iterator[Tpm]:
    def edit(config: str) -> str:
        return config.replace('authorization = "hmac"', f'authorization = "{authorization}"')

    with _swtpm() as tcti, Scene.build(("--backend", "tpm2", "--tcti", tcti), edit) as scene:
        yield Tpm(scene, tcti, authorization)


def report(out: Report, many: int, ways: Sequence[str] = WAYS) -> None:
    """All loads on a TPM, in these ways of authorization; with so `many` keys, which take a while to make, in the
    first."""
    seconds = out.extent.seconds
    for authorization in ways:
        with _daemon(authorization) as tpm, tpm.scene.tcp() as client:
            bare = lambda t=tpm: t.bare(seconds)  # noqa: E731
            group = out.group("TPM", f"ESAPI alone, {authorization}", tpm.scene)
            group.add(f"ESAPI alone, {authorization} (the yardstick)", bare, lambda b=bare: Figures(b()))  # type: ignore[misc]
            for size in out.extent.sizes((1, 16, 256) if authorization == "password" else (1, 16), short=(16,)):
                load = lambda c=client, n=size: loads.batches(c, n, seconds, threads=8)  # noqa: E731
                name = f"TPM, {authorization}: SignBatch of {size}, 8 at once, mTLS"
                group.add(name, bare, load, series=f"SignBatch, {authorization}", x=("batch", size))
            load = lambda s=tpm.scene: loads.singles(s, 8, seconds)  # noqa: E731
            group.add(f"TPM, {authorization}: Sign, 8 at once, mTLS", bare, load)
            if authorization == ways[0]:
                alone = bare()  # measured before: afterwards the daemon fills every place that the TPM has
                keys = _many(client, many)
                load = lambda s=tpm.scene, k=keys: _round_robin(s, k, seconds)  # noqa: E731
                group.add(f"TPM, {authorization}: Sign, {many} keys in turn, 8 at once", lambda a=alone: a, load)


def _many(client: Client, count: int) -> dict[str, ec.EllipticCurvePublicKey]:
    keys = {}
    for number in range(count):
        name = f"keys/many-{number}"
        client.create_key(name, algorithm="ecdsa-p256")
        public = client.public_key(name)
        assert isinstance(public, ec.EllipticCurvePublicKey)
        keys[name] = public
    return keys


def _round_robin(scene: Scene, keys: dict[str, ec.EllipticCurvePublicKey], seconds: float) -> Figures:
    """Each call another key, so that hardly one is loaded; every signature is checked, after the clock stopped."""
    names, latencies, signed = list(keys), list[float](), list[tuple[str, bytes, bytes]]()

    async def run() -> float:
        async with aio.connect(client_file=scene.folder / "client.toml") as client:
            began = time.perf_counter()

            async def caller() -> None:
                while (start := time.perf_counter()) < began + seconds:
                    number = len(latencies) + len(signed)
                    name, message = names[number % len(names)], hashlib.sha256(str(start).encode()).digest()
                    signature = await client.sign(name, message=message)
                    latencies.append(time.perf_counter() - start)
                    signed.append((name, message, signature.value))

            await asyncio.gather(*(caller() for _ in range(8)))
            return time.perf_counter() - began

    took = asyncio.run(run())
    for name, message, signature in signed:
        keys[name].verify(signature, message, ec.ECDSA(hashes.SHA256()))
    return Figures(len(signed) / took, tuple(latencies), len(signed))

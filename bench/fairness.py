"""One noisy caller beside a quiet one: what is left for the quiet one."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator

from bench import loads
from bench.loads import Figures
from bench.rows import Report
from bench.scene import Scene

_NOISE = """
import os, sys, threading, hsmsign
from hsmsign.model.errors import HsmsignError
client, digests = hsmsign.connect(client_file=sys.argv[1]), [os.urandom(32) for _ in range(1024)]
def shout():
    while True:
        try:
            client.sign_batch("keys/bench", digests)
        except HsmsignError:
            pass
for _ in range(8):
    threading.Thread(target=shout, daemon=True).start()
sys.stdin.read()
"""
_WARM = 0.5


@contextlib.contextmanager
def noise(scene: Scene) -> Iterator[None]:
    """Eight threads of another principal that keep 8,192 signatures waiting."""
    command = [sys.executable, "-c", _NOISE, str(scene.folder / "client.toml")]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        time.sleep(_WARM)
        try:
            yield
        finally:
            process.stdin.close()
            process.wait()


def report(out: Report) -> None:
    """Measure, in pairs. The ratio is to the same quiet caller alone."""
    seconds = out.extent.seconds
    group = out.group("fairness", "the same quiet caller alone")
    with Scene.build() as scene, scene.unix() as quiet:

        def beside(size: int) -> Figures:
            with noise(scene):
                return loads.batches(quiet, size, seconds, threads=1)

        for size in out.extent.sizes((1, 16), short=(16,)):
            group.add(
                f"SignBatch of {size}, one at a time, beside a noisy caller",
                lambda n=size: loads.batches(quiet, n, seconds, threads=1).rate,  # type: ignore[misc]
                lambda n=size: beside(n),  # type: ignore[misc]
                series="SignBatch, one at a time, Unix socket",
                x=("batch", size),
            )

"""Connections that do nothing, beside one that signs: what they cost it, and what they cost the daemon in memory."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

from bench import loads
from bench.rows import Report
from bench.scene import KEY, Scene
from bench.signing import CORES, YARDSTICK

_MEMORY_GOAL = 200.0
_IDLE = """
import resource, sys, hsmsign
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
clients = [hsmsign.connect(client_file=sys.argv[1]) for _ in range(int(sys.argv[3]))]
for client in clients:
    client.get_key(sys.argv[2])
print("ready", flush=True)
sys.stdin.read()
"""
_LIMIT = "max_connections_per_caller = "


def edit(text: str) -> str:
    """Let one caller have as many as are wanted here."""
    return text.replace(f"{_LIMIT}512", f"{_LIMIT}4096")


def report(out: Report, scene: Scene, key_id: str) -> None:
    """Each connection has made a call, and makes no other."""
    seconds = out.extent.seconds
    group = out.group("connections", YARDSTICK, scene)
    for count in out.extent.sizes((1, 100, 1000), short=(10,)):
        if not out.wants("connections"):
            return
        with _idle(scene, count), scene.tcp() as client:
            group.add(
                f"SignBatch of 256, {count:,} idle connections beside it, mTLS",
                lambda: scene.raw(key_id, CORES, seconds),
                lambda: loads.batches(client, 256, seconds),
                series="SignBatch of 256, mTLS",
                x=("connections", count),
                pss_goal=_MEMORY_GOAL,
            )


@contextlib.contextmanager
def _idle(scene: Scene, count: int) -> Iterator[None]:
    """A process with so many connections over mutual TLS."""
    command = [sys.executable, "-c", _IDLE, str(scene.folder / "client.toml"), KEY, str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise RuntimeError(f"{count} connections could not be made")
            yield
        finally:
            process.kill()

"""A slow device with many sessions: how much of what they can do together is made use of."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench import loads
from bench.loads import Figures
from bench.rows import Report
from bench.scene import Scene
from tests.support.softhsm import Faults, build_fault_module

_SESSIONS, _LATENCY = 32, 0.005
_GOAL = 0.95


def report(out: Report) -> None:
    """The ratio is to sessions / latency, which leaves no time for the signature itself: the raw loop shows what can be
    reached."""
    seconds, best = max(out.extent.seconds, 0.3), _SESSIONS / _LATENCY
    with _scene() as scene, scene.tcp() as client:
        key_id = scene.key_id()
        group = out.group("slow device", f"{_SESSIONS} sessions, {_LATENCY * 1000:.0f} ms a signature", scene)
        group.add(
            f"raw C loop, {_SESSIONS} threads, slow device",
            lambda: best,
            lambda: Figures(scene.raw(key_id, _SESSIONS, seconds)),
        )
        for size in out.extent.sizes((16, 256), short=(256,)):
            group.add(
                f"SignBatch of {size}, slow device, mTLS",
                lambda: best,
                lambda n=size: loads.batches(client, n, seconds),  # type: ignore[misc]
                series="SignBatch, mTLS",
                x=("batch", size),
                goal=_GOAL if size == 256 else None,
            )
        for count in out.extent.sizes((32, 64, 256), short=(256,)):
            group.add(
                f"sign(), {count} tasks, asyncio, slow device, mTLS",
                lambda: best,
                lambda n=count: loads.singles(scene, n, seconds),  # type: ignore[misc]
                series="tasks, asyncio, mTLS",
                x=("callers", count),
            )


@contextlib.contextmanager
def _scene() -> Iterator[Scene]:
    """SoftHSM behind a module that takes its time for each signature."""
    with tempfile.TemporaryDirectory(prefix="hsmsign-bench-") as name:
        faults = Faults(build_fault_module(Path(name)), Path(name) / "control")
        faults.set(f"C_Sign delay_ms={_LATENCY * 1000:.0f}")

        def edit(text: str) -> str:
            text = re.sub(r'^module = ".*"', f'module = "{faults.module}"', text, flags=re.MULTILINE)
            return text.replace("sessions = 0 ", f"sessions = {_SESSIONS} ")

        with Scene.build(edit=edit, variables=faults.environment()) as scene:
            yield scene

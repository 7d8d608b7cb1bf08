"""One key on two tokens, and one of them dies under load: how long does the unluckiest call take?"""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.scene import KEY, Scene

_CALLERS = 4
_PATIENCE = 60.0


@dataclass
class Calls:
    """What callers met: seconds of each call, and what went wrong."""

    seconds: list[float] = field(default_factory=list)
    failed: list[BaseException] = field(default_factory=list)

    def longest_ms(self) -> float:
        """The unluckiest."""
        return max(self.seconds, default=0.0) * 1000


def _clone(scene: Scene) -> None:
    """A second token with the same keys, which a vendor's tool would make; the daemon learns of it."""
    folder = scene.folder
    shutil.copytree(folder / "softhsm" / "tokens", folder / "clone")
    config = folder / "hsmsign.toml"
    text = config.read_text()
    block = text[text.index("[backends.softhsm]") :].partition("\n[")[0]
    lines = [line for line in block.splitlines()[1:] if not line.startswith(("token_dir", "default"))]
    clone = "\n".join(["", "[backends.clone]", *lines, f'token_dir = "{folder / "clone"}"', ""])
    config.write_text(text.replace("[backends.softhsm]", "[backends.softhsm]\ndefault = true", 1) + clone)
    scene.process.send_signal(signal.SIGHUP)
    with scene.tcp() as client:
        _until(lambda: {one.name: one.state for one in client.backends()}.get("backends/clone") == "ready")
        client.add_replica(KEY, "clone")


def _until(what: Callable[[], object]) -> None:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        try:
            if what():
                return
        except Exception:  # noqa: BLE001 - the worker is being replaced
            pass
        time.sleep(0.1)
    raise RuntimeError("it did not happen")


def _call(scene: Scene, stop: threading.Event, calls: Calls) -> None:
    digest = os.urandom(32)
    with scene.tcp() as client:
        while not stop.is_set():
            began = time.perf_counter()
            try:
                client.sign(KEY, digest=digest)
            except BaseException as error:  # noqa: BLE001 - told in the report
                calls.failed.append(error)
            calls.seconds.append(time.perf_counter() - began)


def _during(scene: Scene, number: int, seconds: float) -> Calls:
    """Callers at work; after a moment the first token's host gets that signal."""
    calls, stop = Calls(), threading.Event()
    threads = [threading.Thread(target=_call, args=(scene, stop, calls)) for _ in range(_CALLERS)]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    if number:
        hosts = json.loads((scene.folder / "run" / "endpoints.json").read_text())["pids"]["hosts"]
        os.kill(hosts["softhsm"], number)
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    with scene.tcp() as client:
        _until(lambda: all(one.state == "ready" for one in client.backends()))
    return calls


def report(rounds: int, seconds: float) -> list[dict[str, object]]:
    """Measure and print: the longest call of each run in milliseconds, how many calls there were, how many failed."""
    rows: list[dict[str, object]] = []
    with Scene.build() as scene:
        _clone(scene)
        deaths = {"no token dies": 0, "its host is killed": signal.SIGKILL, "it falls silent": signal.SIGSTOP}
        for words, number in deaths.items():
            runs = [_during(scene, number, max(seconds, 0.4)) for _ in range(rounds)]
            every = [run.longest_ms() for run in runs]
            longest = ", ".join(f"{each:,.0f}" for each in every)
            made, failed = sum(len(run.seconds) for run in runs), sum(len(run.failed) for run in runs)
            print(f"{words:20} longest call of each run: {longest} ms; {made:,} calls, {failed} failed", flush=True)
            rows.append({"what": words, "longest_ms": every, "calls": made, "failed": failed})
    return rows

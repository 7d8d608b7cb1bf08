"""Whose processor time a load takes."""

from __future__ import annotations

import os

import psutil

from bench.scene import Scene

_REPORTED = ("worker", "host", "auditor")
"""The supervisor does nothing for a signature."""


def seconds_by_process(scene: Scene) -> dict[str, float]:
    """Processor seconds since they began: of this process and the children it has waited for ("client"), and of the
    daemon's processes of each kind together."""
    mine = os.times()
    found = {"client": mine.user + mine.system + mine.children_user + mine.children_system}
    for kind, pids in scene.processes().items():
        if kind in _REPORTED:
            times = [psutil.Process(pid).cpu_times() for pid in pids]
            found[kind] = sum(each.user + each.system for each in times)
    return found

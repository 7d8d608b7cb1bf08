"""`make memory`: many signatures; does the memory of any process grow?"""

from __future__ import annotations

import argparse
import sys

from bench.loads import USUAL
from bench.scene import KEY, Scene

_SLACK = 8.0
"""MiB by which the second half of a run may end above the first: allocators are not exact."""
_SIZE = 1000
_STEPS = 10


def points(scene: Scene, total: int) -> list[dict[str, float]]:
    """Sign, and print and give the daemon's memory every tenth of the way: "signatures" and "pss_mib"."""
    digests, seen = USUAL.inputs(_SIZE), list[dict[str, float]]()
    with scene.tcp() as client:
        for step in range(1, _STEPS + 1):
            for _ in range(max(1, total // _STEPS // _SIZE)):
                client.sign_batch(KEY, digests).signatures()
            seen.append({"signatures": step * total // _STEPS, "pss_mib": scene.memory()})
            print(f"{seen[-1]['signatures']:>10,} signatures: {seen[-1]['pss_mib']:6.1f} MiB", flush=True)
    return seen


def main() -> int:
    """Measure, and judge."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--signatures", type=int, default=1_000_000)
    total = parser.parse_args().signatures
    with Scene.build() as scene:
        seen = points(scene, total)
    growth = seen[-1]["pss_mib"] - seen[len(seen) // 2 - 1]["pss_mib"]
    print(f"growth over the second half: {growth:+.1f} MiB ({'flat' if growth <= _SLACK else 'NOT FLAT'})")
    return 0 if growth <= _SLACK else 1


if __name__ == "__main__":
    sys.exit(main())

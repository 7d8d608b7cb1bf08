"""`make memory`: many signatures; does the memory of any process grow?"""

from __future__ import annotations

import argparse
import hashlib
import sys

from bench.scene import KEY, Scene

_SLACK = 8.0
"""MiB by which the second half of a run may end above the first: allocators are not exact."""
_SIZE = 1000


def main() -> int:
    """Sign, print the memory every tenth of the way, and judge."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--signatures", type=int, default=1_000_000)
    total = parser.parse_args().signatures
    digests = [hashlib.sha256(str(i).encode()).digest() for i in range(_SIZE)]
    seen: list[float] = []
    with Scene.build() as scene, scene.tcp() as client:
        for step in range(1, 11):
            for _ in range(max(1, total // 10 // _SIZE)):
                client.sign_batch(KEY, digests).signatures()
            seen.append(scene.memory())
            print(f"{step * total // 10:>10,} signatures: {seen[-1]:6.1f} MiB", flush=True)
    growth = seen[-1] - seen[len(seen) // 2 - 1]
    print(f"growth over the second half: {growth:+.1f} MiB ({'flat' if growth <= _SLACK else 'NOT FLAT'})")
    return 0 if growth <= _SLACK else 1


if __name__ == "__main__":
    sys.exit(main())

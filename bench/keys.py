"""Many keys in random use: what is lost beside one key that is used all the time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from bench import loads
from bench.loads import Work
from bench.rows import Report
from bench.scene import Scene
from hsmsign.client.client import Client

_GOAL = 0.9
_CALLERS = 64


def report(out: Report, scene: Scene) -> None:
    """The ratio is to the same load with the first of the keys, among as many keys."""
    if not out.wants("keys"):
        return
    seconds = out.extent.seconds
    group = out.group("keys", "the same load with one key", scene)
    names: list[str] = []
    with scene.tcp() as client:
        for count in out.extent.sizes((1, 10, 100, 1000), short=(1, 10), long=(10_000,)):
            names += _more(client, len(names), count)
            one, all_of_them = Work(names[:1]), Work(tuple(names))
            group.add(
                f"SignBatch of 256, {count:,} keys, mTLS",
                lambda w=one: loads.batches(client, 256, seconds, work=w).rate,  # type: ignore[misc]
                lambda w=all_of_them: loads.batches(client, 256, seconds, work=w),  # type: ignore[misc]
                series="SignBatch of 256, mTLS",
                x=("keys", count),
                goal=_GOAL if count > 1 else None,
            )
            group.add(
                f"sign(), {_CALLERS} tasks, {count:,} keys, mTLS",
                lambda w=one: loads.singles(scene, _CALLERS, seconds, names=w.names).rate,  # type: ignore[misc]
                lambda w=all_of_them: loads.singles(scene, _CALLERS, seconds, names=w.names),  # type: ignore[misc]
                series=f"sign(), {_CALLERS} tasks, mTLS",
                x=("keys", count),
                goal=_GOAL if count > 1 else None,
            )


def _more(client: Client, there: int, wanted: int) -> list[str]:
    names = [f"keys/of-many-{number}" for number in range(there, wanted)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: client.create_key(name, algorithm="ecdsa-p256"), names))
    return names

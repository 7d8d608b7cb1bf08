"""What policy and audit cost: the same loads on two daemons, one with everything on, one with as little as can be."""

from __future__ import annotations

from pathlib import Path

from bench import loads
from bench.rows import Report
from bench.scene import Scene

_RULES = "".join(
    f'[[{kind}]]\nprincipals = ["spiffe://example.org/team-{number}/*", "email:*@team{number}.example.org"]\n'
    f'actions = ["sign", "read"]\nkeys = ["team-{number}-*"]\nlabels = {{ team = "{number}" }}\n\n'
    for number in range(25)
    for kind in ("allow", "deny")
)
_LIMIT = '[[limit]]\nprincipals = ["*"]\nrate = "100000000/s"\nconcurrency = 1000000\n'


def _guarded(folder: Path) -> None:
    policy = folder / "policy.toml"
    policy.write_text(policy.read_text() + _RULES + _LIMIT)


def _bare(text: str) -> str:
    return text.replace('durability = "strict"', 'durability = "off"')


def report(out: Report) -> None:
    """Measure, each pair in one run. The ratio is to the daemon that does without."""
    seconds = out.extent.seconds
    with Scene.build(edit=_bare) as bare, Scene.build(prepare=_guarded) as guarded:
        group = out.group("policy and audit", "the same load on a daemon without", guarded)
        for where in ("mTLS", "Unix socket"):
            one_end, other_end = (bare.tcp, guarded.tcp) if where == "mTLS" else (bare.unix, guarded.unix)
            with one_end() as one, other_end() as two:
                for size in out.extent.sizes((1, 16, 256), short=(256,)):
                    group.add(
                        f"SignBatch of {size}, {where}, policy and audit",
                        lambda c=one, n=size: loads.batches(c, n, seconds).rate,  # type: ignore[misc]
                        lambda c=two, n=size: loads.batches(c, n, seconds),  # type: ignore[misc]
                        series=f"SignBatch, {where}",
                        x=("batch", size),
                    )
        for concurrency in out.extent.sizes((1, 64), short=(64,)):
            group.add(
                f"Sign, {concurrency} at once, mTLS, policy and audit",
                lambda n=concurrency: loads.singles(bare, n, seconds).rate,  # type: ignore[misc]
                lambda n=concurrency: loads.singles(guarded, n, seconds),  # type: ignore[misc]
                series="sign(), tasks, mTLS",
                x=("callers", concurrency),
            )

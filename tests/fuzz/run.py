"""Fuzz the parsers: python -m tests.fuzz.run --inputs 10000000

Inputs that make a target take a way that none took before are kept, in memory, and changed further. A defect is written
to a file that --replay takes; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from hsmsign.model.errors import PurposeError
from tests.fuzz.mutate import mutate
from tests.fuzz.targets import TARGETS, Target

CORPUS = Path(__file__).parent / "corpus"
_ROUND = 500
_KEPT = 500
_TELL_EVERY = 5.0


@dataclass(slots=True)
class Fuzzer:
    """One target, with what was learned of it."""

    name: str
    target: Target
    corpus: list[bytes]
    done: int = 0
    refused: int = 0
    ways: set[tuple[str, int]] = field(default_factory=set)

    def round(self, chance: random.Random, inputs: int) -> bytes | None:
        """Try so many inputs; the first that shows a defect."""
        for _ in range(inputs):
            data = mutate(chance, self.corpus)
            self.done += 1
            try:
                self.target.run(data)
                way = ("accepted", 0)
            except self.target.clean as error:
                self.refused += 1
                way = (error.message, 0) if isinstance(error, PurposeError) else _where(error)
            except Exception:  # noqa: BLE001 - that is what is looked for
                return data
            if way not in self.ways:
                self.ways.add(way)
                if len(self.corpus) < _KEPT:
                    self.corpus.append(data)
        return None


def load(name: str) -> list[bytes]:
    """The corpus of a target; never nothing."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def _where(error: BaseException) -> tuple[str, int]:
    """Where it came from in the first place."""
    while error.__context__ is not None:
        error = error.__context__
    trace = error.__traceback__
    assert trace is not None
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_qualname, trace.tb_lineno


def fuzz(names: Sequence[str], seed: int, inputs: int, until: float, out: Path, *, tell: bool) -> tuple[int, int]:
    """Try the targets in turn until so many inputs are done or the time is over; how many inputs and defects."""
    chance = random.Random(seed)
    fuzzers = [Fuzzer(name, TARGETS[name], load(name)) for name in names]
    defects, said, began = 0, time.monotonic(), time.monotonic()
    while fuzzers and (done := sum(one.done for one in fuzzers)) < inputs and time.monotonic() < until:
        for one in list(fuzzers):
            bad = one.round(chance, _ROUND)
            if bad is not None:
                defects += 1
                _write(out, one.name, bad)
                fuzzers.remove(one)
        if tell and time.monotonic() - said > _TELL_EVERY:
            said = time.monotonic()
            print(f"{done} inputs, {done / (said - began):.0f} a second", file=sys.stderr, flush=True)
    if tell:
        for one in fuzzers:
            print(
                f"{one.name:14} {one.done:9} inputs, {one.refused:9} refused in {len(one.ways)} ways", file=sys.stderr
            )
    return sum(one.done for one in fuzzers), defects


def _write(out: Path, name: str, data: bytes) -> None:
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}-{sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    print(f"DEFECT in {name}; again: python -m tests.fuzz.run --target {name} --replay {path}", file=sys.stderr)
    replay(name, path)


def replay(name: str, path: Path) -> int:
    """Try one file; 1 where it shows a defect."""
    target = TARGETS[name]
    try:
        target.run(path.read_bytes())
    except target.clean as error:
        print(f"refused: {error}", file=sys.stderr)
    except Exception:  # noqa: BLE001 - that is what is looked for
        traceback.print_exc()
        return 1
    return 0


def main(words: Sequence[str] | None = None) -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=sys.maxsize, help="how many, over all targets")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=None, help="else another one each time")
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="repeatable; else all")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"), help="where inputs that show defects go")
    parser.add_argument("--replay", type=Path, help="try this file only")
    given = parser.parse_args(words)
    names = given.target or list(TARGETS)
    if given.replay:
        return max(replay(name, given.replay) for name in names)
    seed = given.seed if given.seed is not None else time.time_ns()
    print(f"seed {seed}", file=sys.stderr)
    until, share = time.monotonic() + given.seconds, -(-given.inputs // given.jobs)
    with multiprocessing.get_context("spawn").Pool(given.jobs) as pool:
        runs = [
            pool.apply_async(fuzz, (names, seed + job, share, until, given.out), {"tell": job == 0})
            for job in range(given.jobs)
        ]
        counts = [run.get() for run in runs]
    print(f"{sum(done for done, _ in counts)} inputs, {sum(bad for _, bad in counts)} defects", file=sys.stderr)
    return 1 if any(bad for _, bad in counts) else 0


if __name__ == "__main__":
    sys.exit(main())

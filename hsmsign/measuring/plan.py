"""What is going to be measured, as values."""

from __future__ import annotations

import enum
import os
from collections.abc import Sequence
from dataclasses import dataclass

from hsmsign.model.algorithms import InputKind, Scheme

BATCHES_AT_ONCE = 4
"""SignBatch calls under way at a time: with one, the device would rest while an answer travels."""
MESSAGE_BYTES = 32


class LoadKind(enum.Enum):
    """How signatures are asked for. The value is the word of the command line."""

    BATCH = "batch"
    """SignBatch calls of so many, a few at once."""
    CALLERS = "callers"
    """`sign()` of so many tasks that share an asyncio client: what they want at the same time travels together."""
    ALONE = "alone"
    """One caller, one Sign call after the other."""
    STREAM = "stream"
    """One SignStream."""


@dataclass(frozen=True, slots=True)
class Load:
    """One line of the answer."""

    kind: LoadKind
    count: int = 1
    """Signatures of a batch, or callers."""

    @property
    def words(self) -> str:
        """What it is, for a person."""
        return {
            LoadKind.BATCH: f"SignBatch of {self.count}, {BATCHES_AT_ONCE} at once",
            LoadKind.CALLERS: f"sign(), {self.count} caller{'' if self.count == 1 else 's'}",
            LoadKind.ALONE: "Sign, one after the other",
            LoadKind.STREAM: "SignStream",
        }[self.kind]


@dataclass(frozen=True, slots=True)
class Subject:
    """What signs, and what is signed: always the same version, the scheme named."""

    key_version: str
    scheme: Scheme
    kind: InputKind

    def inputs(self, count: int) -> list[bytes]:
        """So many different inputs, at random: nobody can do anything with a signature of one."""
        hash = self.scheme.hash
        size = hash.size if hash is not None and self.kind is InputKind.DIGEST else MESSAGE_BYTES
        return [os.urandom(size) for _ in range(count)]


def lines_of(kinds: Sequence[LoadKind], batches: Sequence[int], callers: Sequence[int]) -> tuple[Load, ...]:
    """The lines of the answer, in the order of `kinds`."""
    counts = {LoadKind.BATCH: batches, LoadKind.CALLERS: callers}
    return tuple(Load(kind, count) for kind in dict.fromkeys(kinds) for count in dict.fromkeys(counts.get(kind, (1,))))


def duration(count: int, seconds: float, *, with_device: bool) -> float:
    """Seconds that so many loads take. The bare device is measured before and after each."""
    return seconds * (2 * count + 1 if with_device else count)

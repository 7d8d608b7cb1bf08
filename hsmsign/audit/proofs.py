"""Proofs that a record is in the log (C2SP tlog-proof): what a person takes away, and checks without the log."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from hsmsign.audit import merkle, reading, segments
from hsmsign.audit.notes import Checkpoint, Verifier, read_base64, unsigned
from hsmsign.model.errors import AuditError, NotFoundError

_HEADER = "c2sp.org/tlog-proof@v1"
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})")
_SIZE_MAX = 8 << 20


@dataclass(frozen=True, slots=True)
class Proof:
    """A record, its place, what stands beside its way to the root, and a checkpoint with that root."""

    record: bytes
    index: int
    beside: tuple[bytes, ...]
    checkpoint: bytes

    def encode(self) -> bytes:
        """A tlog-proof, with the record as its extra data."""
        hashes = "".join(f"{base64.b64encode(one).decode()}\n" for one in self.beside)
        head = f"{_HEADER}\nextra {base64.b64encode(self.record).decode()}\nindex {self.index}\n{hashes}\n"
        return head.encode() + self.checkpoint

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read a tlog-proof. Raises AuditError."""
        head, blank, note = data.partition(b"\n\n")
        try:
            lines = head.decode("ascii").split("\n") if len(data) <= _SIZE_MAX else []
            found = _INDEX.fullmatch(lines[2])
            if lines[0] != _HEADER or not lines[1].startswith("extra ") or found is None or not blank:
                raise ValueError
            record = read_base64(lines[1].removeprefix("extra "))
            beside = tuple(read_base64(line, merkle.HASH_SIZE) for line in lines[3:])
        except (ValueError, IndexError, AuditError):
            raise AuditError("this is no proof of a record", hint="make one: hsmsign audit prove") from None
        return cls(record, int(found[1]), beside, note)

    def check(self, verifier: Verifier) -> dict[str, Any]:
        """The record, as a value, where the proof holds. Raises AuditError."""
        checkpoint = verifier.open(self.checkpoint)
        hash = merkle.leaf(self.record)
        if not merkle.is_included(hash, self.index, checkpoint.size, self.beside, checkpoint.root):
            raise AuditError("the record is not in the log that the checkpoint is of")
        record = json.loads(self.record)
        assert isinstance(record, dict)  # noqa: S101 - the log has nothing else
        return record


def prove(folder: Path, index: int, note: bytes) -> Proof:
    """The proof of a record by its index, against a checkpoint that covers it. Raises AuditError, NotFoundError."""
    checkpoint = unsigned(note)
    if not 0 <= index < checkpoint.size:
        raise NotFoundError(
            f"record {index} is not below the newest checkpoint, which has {checkpoint.size}",
            hint="the daemon makes one at an interval, and when it stops",
        )
    first = index - index % segments.SEGMENT
    lines = _lines(folder, first, checkpoint)
    leaves = [merkle.leaf(line) for line in lines]
    tops = segments.roots(folder)[: checkpoint.size // segments.SEGMENT]
    rest = checkpoint.size % segments.SEGMENT
    if rest:
        last = leaves if first + segments.SEGMENT > checkpoint.size else _leaves(folder, checkpoint)
        tops.append(merkle.root(last))
    beside = [*merkle.path(index - first, leaves), *merkle.path(first // segments.SEGMENT, tops)]
    return Proof(lines[index - first], index, tuple(beside), note)


def _leaves(folder: Path, checkpoint: Checkpoint) -> list[bytes]:
    """Of the last segment, as far as the checkpoint goes."""
    first = checkpoint.size - checkpoint.size % segments.SEGMENT
    return [merkle.leaf(line) for line in _lines(folder, first, checkpoint)]


def _lines(folder: Path, first: int, checkpoint: Checkpoint) -> list[bytes]:
    wanted = min(segments.SEGMENT, checkpoint.size - first)
    try:
        found = [
            line.rstrip(b"\n")
            for line, _ in zip(segments.lines(folder / segments.name(first)), range(wanted), strict=False)
        ]
    except FileNotFoundError:
        raise NotFoundError(
            f"{segments.name(first)} is not here", hint="was it archived? put it back for the proof"
        ) from None
    if len(found) != wanted:
        raise AuditError(f"{segments.name(first)} has fewer records than the checkpoint", hint="hsmsign audit verify")
    return found


def find(folder: Path, id: str) -> int:
    """The index of the first record with this id, or of this request; or `id` itself where it is an index.
    Raises NotFoundError."""
    if id.isascii() and id.isdigit():
        return int(id)
    wanted = [f'"{name}":{json.dumps(id)}'.encode() for name in ("id", "request")]
    for index, line in reading.records(folder, 0):
        if any(one in line for one in wanted) and id in (json.loads(line).get("id"), json.loads(line).get("request")):
            return index
    raise NotFoundError(f"no record has the id {id!r}, nor is of such a request", hint="hsmsign audit tail shows them")

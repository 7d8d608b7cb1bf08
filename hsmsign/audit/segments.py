"""The files of a log. Each segment has 16,384 records, a line each, so that a full one is a full subtree.

records-000000000000.jsonl    a record a line, as they were written: each line is a leaf of the tree
roots                         the root of each full segment, base64, a line each
checkpoints                   the signed notes, one after the other
checkpoint                    the newest of them
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hsmsign.audit.merkle import HASH_SIZE, Frontier, leaf
from hsmsign.audit.notes import read_base64
from hsmsign.model.errors import AuditError

HEIGHT = 14
SEGMENT = 1 << HEIGHT
"""Records of a full segment."""
CHECKPOINT = "checkpoint"
CHECKPOINTS = "checkpoints"
ROOTS = "roots"


def name(first: int) -> str:
    """The file of the segment whose first record has this index."""
    return f"records-{first:012}.jsonl"


def roots(folder: Path) -> list[bytes]:
    """The roots of the full segments. Raises AuditError where the file is damaged; a last line that was not
    finished is left out."""
    try:
        text = (folder / ROOTS).read_bytes()
    except FileNotFoundError:
        return []
    found = []
    for line in text.split(b"\n")[:-1]:
        try:
            found.append(read_base64(line.decode("ascii", "replace"), HASH_SIZE))
        except AuditError:
            raise AuditError(
                f"line {len(found) + 1} of {folder / ROOTS} is no hash", hint="hsmsign audit verify says more"
            ) from None
    return found


def lines(path: Path) -> Iterator[bytes]:
    """The records of a segment with their line ends; a last one that was not finished has none."""
    with path.open("rb") as file:
        yield from file


def root(path: Path) -> bytes:
    """The root over a segment's records."""
    edge = Frontier()
    for line in lines(path):
        edge.add(leaf(line[:-1]))
    return edge.root()


def newest(folder: Path) -> bytes | None:
    """The newest note; None where there is none yet."""
    try:
        return (folder / CHECKPOINT).read_bytes()
    except FileNotFoundError:
        return None


def checkpoints(folder: Path) -> list[bytes]:
    """All notes, the oldest first."""
    try:
        text = (folder / CHECKPOINTS).read_bytes()
    except FileNotFoundError:
        return []
    found: list[bytes] = []
    begun: list[bytes] = []
    blank = False
    for line in text.splitlines(keepends=True):
        signature = line.startswith("\u2014 ".encode())
        if blank and not signature:
            found.append(b"".join(begun))
            begun, blank = [], False
        begun.append(line)
        blank = blank or signature
    if blank and begun[-1].endswith(b"\n"):
        found.append(b"".join(begun))
    return found

"""Reading a log that somebody else writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hsmsign.audit import segments
from hsmsign.model.errors import NotFoundError


def size(folder: Path) -> int:
    """How many records there are. Raises NotFoundError where there is no log."""
    newest = _segments(folder)[-1]
    return _first(newest) + sum(line.endswith(b"\n") for line in segments.lines(newest))


def records(folder: Path, start: int) -> Iterator[tuple[int, bytes]]:
    """Index and line of each record from `start` on, as many as there are now, and are here."""
    first = start - start % segments.SEGMENT
    for path in _segments(folder):
        at = _first(path)
        if at < first:
            continue
        for index, line in enumerate(segments.lines(path), at):
            if not line.endswith(b"\n"):
                return
            if index >= start:
                yield index, line[:-1]


def _segments(folder: Path) -> list[Path]:
    found = sorted(folder.glob("records-*.jsonl"))
    if not found:
        raise NotFoundError(f"there is no audit log in {folder}", hint="say the folder of audit.folder")
    return found


def _first(path: Path) -> int:
    return int(path.stem.removeprefix("records-"))

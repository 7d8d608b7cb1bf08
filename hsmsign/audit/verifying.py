"""Checking a whole log: every record, in its place, and every checkpoint that was ever signed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from hsmsign.audit import segments
from hsmsign.audit.merkle import Frontier, leaf
from hsmsign.audit.notes import Checkpoint, Verifier, read
from hsmsign.model.errors import AuditError

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong; `index` is the record's, where it is about one."""

    words: str
    index: int | None = None


@dataclass(slots=True)
class Report:
    """What was found."""

    size: int = 0
    root: bytes = b""
    checkpoints: int = 0
    """That are signed, and whose tree the log has."""
    covered: int = 0
    """Records below the newest of them."""
    archived: int = 0
    """Records whose segment is not here: their root was taken from the list."""
    findings: list[Finding] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def verify(
    folder: Path,
    verifier: Verifier | None,
    *,
    kept: Iterable[bytes] = (),
    archived: bool = False,
    progress: Progress = lambda _: None,
) -> Report:
    """Check a log. `kept` are checkpoints from elsewhere: a log that was rolled back, or rewritten, is not theirs.
    With `archived`, full segments may be somewhere else, where a good checkpoint covers them: a `kept` one that ends
    inside of one cannot be checked without it, which is a finding. `progress` hears how many records were read.

    Without a verifier signatures are not checked. Raises AuditError for a `kept` that is no checkpoint of this log.
    """
    report = Report()
    wanted = _checkpoints(folder, verifier, report)
    for note in kept:
        checkpoint = read(note, verifier)
        wanted.setdefault(checkpoint.size, {})[checkpoint.root] = _KEPT
    edge = Frontier()
    away: list[int] = []
    _meet(edge, wanted, report)
    try:
        roots = segments.roots(folder)
    except AuditError as error:
        report.findings.append(Finding(error.message))
        roots = []
    for root in roots:
        if (folder / segments.name(edge.size)).exists():
            _full(folder, root, edge, wanted, report)
        else:
            away.append(edge.size)
            _away(root, edge, wanted, report, archived=archived)
        progress(edge.size)
    _last(folder, edge, wanted, report, progress)
    for size in sorted(size for size in wanted if size > edge.size):
        for words in wanted[size].values():
            report.findings.append(
                Finding(f"{words} says that there were {size} records; {edge.size} are left: the log was cut off")
            )
    if archived:
        _uncovered(away, report)
    report.size, report.root = edge.size, edge.root()
    return report


_KEPT = "a checkpoint kept elsewhere"
Wanted = dict[int, dict[bytes, str]]
"""Roots that the tree must have had, by its size then, with who says so."""


def _checkpoints(folder: Path, verifier: Verifier | None, report: Report) -> Wanted:
    wanted: Wanted = {}
    notes, path = segments.checkpoints(folder), folder / segments.CHECKPOINTS
    if path.exists() and path.stat().st_size > sum(map(len, notes)):
        report.findings.append(Finding("the last checkpoint was not finished"))
    for number, note in enumerate(notes, 1):
        try:
            checkpoint = read(note, verifier)
        except AuditError as error:
            report.findings.append(Finding(f"checkpoint {number}: {error.message}"))
            continue
        wanted.setdefault(checkpoint.size, {})[checkpoint.root] = f"checkpoint {number}"
    newest = segments.newest(folder)
    if newest is not None:
        try:
            checkpoint = read(newest, verifier)
            wanted.setdefault(checkpoint.size, {}).setdefault(checkpoint.root, "the newest checkpoint")
        except AuditError as error:
            report.findings.append(Finding(f"the newest checkpoint: {error.message}"))
    return wanted


def _meet(edge: Frontier, wanted: Wanted, report: Report) -> None:
    """Hold the tree against the checkpoints of its size."""
    for root, words in wanted.pop(edge.size, {}).items():
        if root == edge.root():
            report.checkpoints += 1
            report.covered = edge.size
        else:
            before = f"after record {report.covered - 1}" if report.covered else "from the beginning"
            report.findings.append(
                Finding(
                    f"{words} is of another log: of the {edge.size} records that it covers, some were changed, {before}"
                )
            )


def _away(root: bytes, edge: Frontier, wanted: Wanted, report: Report, *, archived: bool) -> None:
    """Take the root of a segment that is not here from the list."""
    first = edge.size
    name = segments.name(first)
    if not archived:
        report.findings.append(Finding(f"{name} is missing", first))
    report.archived += segments.SEGMENT
    edge.add(root, segments.HEIGHT)
    for size in sorted(size for size in wanted if first < size < edge.size):
        # what is not here cannot be looked into: for the log's own, one that covers all of it will do
        if _KEPT in wanted.pop(size).values():
            report.findings.append(
                Finding(f"{_KEPT}, of {size} records, was not checked: it ends in {name}; put that file back", first)
            )
    _meet(edge, wanted, report)


def _uncovered(away: list[int], report: Report) -> None:
    """Anybody can write a list of roots: what is not here must be covered by a checkpoint that was met."""
    bare = [first for first in away if first + segments.SEGMENT > report.covered]
    if bare:
        words = f"{segments.name(bare[0])} is not here, and no good checkpoint covers it: put it back"
        more = f"; so it is with {len(bare) - 1} more" if len(bare) > 1 else ""
        report.findings.append(Finding(words + more, bare[0]))


def _full(folder: Path, root: bytes, edge: Frontier, wanted: Wanted, report: Report) -> None:
    first = edge.size
    path = folder / segments.name(first)
    own = _records(path, edge, wanted, report, ended=True)
    if edge.size - first != segments.SEGMENT:
        report.findings.append(
            Finding(f"{path.name} has {edge.size - first} records and should have {segments.SEGMENT}", first)
        )
    elif own != root:
        report.findings.append(Finding(f"{path.name} is not what was sealed: some record in it was changed", first))


def _last(folder: Path, edge: Frontier, wanted: Wanted, report: Report, progress: Progress) -> None:
    path = folder / segments.name(edge.size)
    first = edge.size
    if path.exists() and first % segments.SEGMENT == 0:
        _records(path, edge, wanted, report, ended=False)
        progress(edge.size)
        if edge.size - first > segments.SEGMENT:
            report.findings.append(Finding(f"{path.name} has more records than a segment can have", first))
    known = {segments.name(at) for at in range(0, edge.size + 1, segments.SEGMENT)}
    for other in sorted(folder.glob("records-*.jsonl")):
        if other.name not in known:
            report.findings.append(Finding(f"{other.name} does not belong to the log"))


def _records(path: Path, edge: Frontier, wanted: Wanted, report: Report, *, ended: bool) -> bytes:
    """Read one segment. Answers with its own root."""
    own = Frontier()
    for line in segments.lines(path):
        if not line.endswith(b"\n"):
            words = "the last record was not finished" if not ended else "a record was cut off"
            report.findings.append(Finding(words, edge.size))
            break
        if not _is_record(line):
            report.findings.append(Finding("this is no record", edge.size))
        hash = leaf(line[:-1])
        own.add(hash)
        edge.add(hash)
        if edge.size in wanted:
            _meet(edge, wanted, report)
    return own.root()


def _is_record(line: bytes) -> bool:
    try:
        value = json.loads(line)
    except ValueError:
        return False
    return isinstance(value, dict) and json.dumps(value, sort_keys=True, separators=(",", ":")).encode() == line[:-1]


def newest(folder: Path, verifier: Verifier | None) -> Checkpoint:
    """The newest checkpoint. Raises AuditError where there is none, or a wrong one."""
    return read(newest_note(folder), verifier)


def newest_note(folder: Path) -> bytes:
    """The note of the newest checkpoint. Raises AuditError where there is none."""
    note = segments.newest(folder)
    if note is None:
        raise AuditError(
            f"{folder} has no checkpoint yet", hint="the daemon makes one at an interval and when it stops"
        )
    return note

"""The log's only writer: appends records, makes them durable, keeps checkpoints, mends what a crash left."""

from __future__ import annotations

import base64
import fcntl
import itertools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from hsmsign.audit import notes, segments
from hsmsign.audit.merkle import Frontier, leaf
from hsmsign.audit.notes import Checkpoint
from hsmsign.audit.records import Records
from hsmsign.model.errors import AuditError, ConfigurationError

_HEADS = 64


@dataclass(frozen=True, slots=True)
class Head:
    """How many records there are, and the root over them."""

    size: int
    root: bytes


class AuditLog:
    """A log, open for writing. Belongs to one thread.

    Raises OSError where the disk fails: then nothing of the call is in the log, unless it was `sync` that failed, after
    which nobody knows what is on the disk: open it anew.
    """

    def __init__(self, folder: Path, lock: int, roots: Frontier) -> None:
        self._folder = folder
        self._lock = lock
        self._edge = roots
        self._file = -1
        self._length = 0
        self._heads: dict[int, bytes] = {}

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a log, or begin one. Raises AuditError where it is not what its newest checkpoint says, and
        ConfigurationError where it cannot be opened."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(f"cannot open the audit log {folder}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise ConfigurationError(f"the audit log {folder} is another daemon's") from None
        edge = Frontier()
        for root in segments.roots(folder):
            edge.add(root, segments.HEIGHT)
        log = cls(folder, lock, edge)
        log._mend()
        return log

    def head(self) -> Head:
        """The tree as it is now. A checkpoint of it can be kept."""
        root = self._edge.root()
        self._heads[self._edge.size] = root
        while len(self._heads) > _HEADS:
            del self._heads[next(iter(self._heads))]
        return Head(self._edge.size, root)

    def append(self, lines: Sequence[bytes]) -> int:
        """Write records; `sync` makes them durable. Answers with the index of the first."""
        first = self._edge.size
        before, length, name = self._edge.copy(), self._length, self._name
        at = 0
        try:
            while at < len(lines):
                room = segments.SEGMENT - self._edge.size % segments.SEGMENT
                part = lines[at : at + room]
                self._write(b"".join([line + b"\n" for line in part]))
                for line in part:
                    self._edge.add(leaf(line))
                at += len(part)
                if len(part) == room:
                    self._seal()
        except OSError:
            self._take_back(before, length, name)
            raise
        return first

    def sync(self) -> None:
        """Make all that was appended durable."""
        os.fdatasync(self._file)

    def keep(self, note: bytes) -> Checkpoint:
        """Keep a signed checkpoint of a head that `head` gave, unless a newer one is there: several workers make them.
        Raises AuditError for another."""
        checkpoint = notes.unsigned(note)
        if self._heads.get(checkpoint.size) != checkpoint.root:
            raise AuditError("the checkpoint is of a tree that this log never had")
        newest = segments.newest(self._folder)
        if newest is not None and notes.unsigned(newest).size >= checkpoint.size:
            return checkpoint
        self._append_durably(segments.CHECKPOINTS, note)
        self._replace_durably(segments.CHECKPOINT, note)
        return checkpoint

    def close(self) -> None:
        """Make everything durable and let go of the files."""
        try:
            self.sync()
        finally:
            os.close(self._file)
            os.close(self._lock)

    # ---- segments ----

    @property
    def _name(self) -> str:
        return segments.name(self._edge.size - self._edge.size % segments.SEGMENT)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]
        self._length += len(data)

    def _seal(self) -> None:
        """A segment is full: its root goes to the list, and the next segment begins."""
        os.fdatasync(self._file)
        self._append_durably(segments.ROOTS, _line_of(self._last_full_root()))
        os.close(self._file)
        self._begin()

    def _last_full_root(self) -> bytes:
        return segments.root(self._folder / segments.name(self._edge.size - segments.SEGMENT))

    def _begin(self) -> None:
        flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(self._folder / self._name, flags, 0o600)
        self._length = os.fstat(self._file).st_size
        self._sync_folder()

    def _take_back(self, before: Frontier, length: int, name: str) -> None:
        """A write failed: the log is as it was. Raises OSError where even that fails."""
        if name != self._name:  # only what is full is sealed: that cannot be taken back, nor need it
            raise OSError("the disk failed while a segment was sealed")
        os.ftruncate(self._file, length)
        self._edge, self._length = before, length

    def _append_durably(self, name: str, data: bytes) -> None:
        file = os.open(self._folder / name, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            length = os.fstat(file).st_size
            try:
                if os.write(file, data) != len(data):
                    raise OSError("the disk is full")
                os.fsync(file)
            except OSError:
                os.ftruncate(file, length)
                raise
        finally:
            os.close(file)

    def _replace_durably(self, name: str, data: bytes) -> None:
        temporary = self._folder / f"{name}.new"
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._folder / name)
        self._sync_folder()

    def _sync_folder(self) -> None:
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    # ---- after a crash ----

    def _mend(self) -> None:
        """Read the segment that is not full yet. What its end has of records that were not finished is taken away:
        nobody got an answer for them. Raises AuditError where more than that is wrong."""
        self._mend_checkpoints()
        note = segments.newest(self._folder)
        newest = notes.unsigned(note) if note is not None else None
        root = self._edge.root() if newest is not None and newest.size == self._edge.size else b""
        while True:
            self._begin()
            good = 0
            for line in itertools.islice(segments.lines(self._folder / self._name), segments.SEGMENT):
                if not line.endswith(b"}\n") or not line.startswith(b"{"):
                    break
                self._edge.add(leaf(line[:-1]))
                good += len(line)
                if newest is not None and newest.size == self._edge.size:
                    root = self._edge.root()
            if not good or self._edge.size % segments.SEGMENT:
                break
            self._seal_again(good)
        if newest is not None and newest.size > self._edge.size:
            raise self._damaged(
                f"it has {self._edge.size} good records, and had {newest.size} at its newest checkpoint"
            )
        if newest is not None and root and root != newest.root:
            raise self._damaged("its records are not those of its newest checkpoint")
        if good < self._length:
            self._cut_off(good)

    def _seal_again(self, good: int) -> None:
        """The segment became full in the moment of the crash, and its root may stand half in the list."""
        if good < self._length:
            raise self._damaged("a segment has more records than it can have")
        found = [*segments.roots(self._folder), self._last_full_root()]
        self._replace_durably(segments.ROOTS, b"".join(map(_line_of, found)))
        os.close(self._file)

    def _mend_checkpoints(self) -> None:
        whole = sum(map(len, segments.checkpoints(self._folder)))
        path = self._folder / segments.CHECKPOINTS
        if path.exists() and path.stat().st_size > whole:
            os.truncate(path, whole)

    def _cut_off(self, good: int) -> None:
        """Take away what was not finished, keep it beside the log, and say so in the log."""
        with (self._folder / self._name).open("rb") as file:
            file.seek(good)
            torn = file.read()
        aside = self._folder / f"torn-{self._edge.size:012}-{time.time_ns()}"
        aside.write_bytes(torn)
        os.ftruncate(self._file, good)
        self._length = good
        self.append([Records().event("recovered", torn_bytes=len(torn), torn_file=aside.name)])
        self.sync()

    def _damaged(self, what: str) -> AuditError:
        os.close(self._file)
        os.close(self._lock)
        return AuditError(
            f"the audit log {self._folder} is damaged: {what}",
            hint="hsmsign audit verify says where; put it aside or restore it, then start again",
        )


def _line_of(root: bytes) -> bytes:
    return base64.b64encode(root) + b"\n"

"""What workers and the auditor say to each other over a Unix socket: frames of a kind, a length and a body."""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator

HEADER = struct.Struct("!BI")
SIZE = struct.Struct("!Q")
BODY_MAX = 64 << 20


class Ask(enum.IntEnum):
    """What a worker sends."""

    RECORDS = 1
    """Records, a line each, or none: answered when they are durable."""
    RELAXED = 2
    """The same, answered when they are written; durable a second later at most."""
    HEAD = 3
    """How large is the tree, and what is its root?"""
    KEEP = 4
    """A signed note of such a head."""


class Say(enum.IntEnum):
    """What the auditor answers, in the order of what it was asked."""

    DONE = 1
    """A frame of records is in the log."""
    REFUSED = 2
    """A frame of records could not be written; why, in words."""
    HEAD = 3
    """Size (SIZE) and root."""
    KEPT = 4
    """Nothing; or why not, in words."""


def frame(kind: int, body: bytes = b"") -> bytes:
    """One frame."""
    return HEADER.pack(kind, len(body)) + body


class Frames:
    """Takes bytes as they come, gives the frames that are whole."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Kind and body of each frame that is complete now. Raises ValueError for one that is too large."""
        self._buffer += data
        at = 0
        while len(self._buffer) - at >= HEADER.size:
            kind, length = HEADER.unpack_from(self._buffer, at)
            if length > BODY_MAX:
                raise ValueError("a frame is too large")
            if len(self._buffer) - at < HEADER.size + length:
                break
            at += HEADER.size
            yield kind, bytes(self._buffer[at : at + length])
            at += length
        del self._buffer[:at]

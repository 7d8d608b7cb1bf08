"""Records: canonical JSON (sorted names, no spaces, ASCII), a line each. No message, no PIN, no key byte in it.

Of inputs (messages, or the digests that were sent) and of signatures a record has the SHA-256, 32 bytes each, one after
the other in base64; 32 zeros where there is no signature.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from hsmsign.model.algorithms import InputKind, Scheme

PART = 1024
"""Signatures of one record: of a group with more there are several."""
_TEXT_MAX = 300
"""Characters of a key's name, which is a caller's text as long as no key was found."""
_NONE = bytes(32)
OK = "OK"
_ENCODE = json.JSONEncoder(separators=(",", ":")).encode
_KINDS = {kind: kind.name.lower() for kind in InputKind}
_SCHEMES: dict[Scheme | None, str] = {None: "", **{scheme: scheme.name for scheme in Scheme}}


@dataclass(frozen=True, slots=True)
class CallMade:
    """A call that signs nothing, or that was refused before it came to signing."""

    method: str
    principal: str
    request: str
    """The id of the request."""
    name: str
    """The key that it is about."""
    outcome: str
    """OK, or the reason of the error."""
    seconds: float
    peer: str = ""
    """Where it came from, where nobody was proved to call."""
    approval: str = ""
    """approvals/ID that was used up, or is wanted."""


@dataclass(slots=True)
class SignaturesMade:
    """Signatures with one key, or that they were refused."""

    principal: str
    request: str
    name: str
    scheme: Scheme | None
    kind: InputKind
    inputs: Sequence[bytes] = field(repr=False)
    signatures: Sequence[bytes] = field(repr=False)
    """As many as inputs, b"" where one failed; none at all where the group failed."""
    failures: Mapping[int, str]
    """The reasons of those that failed, by their place."""
    outcome: str
    """OK, or the reason of the group's error."""
    seconds: float
    approval: str = ""
    """approvals/ID that was used up, or is wanted."""


class Records:
    """Makes the records of one process. Names stand in their order already: a record costs some microseconds."""

    def __init__(self) -> None:
        self._prefix = os.urandom(6).hex()
        self._numbers = itertools.count(1)

    def call(self, made: CallMade) -> bytes:
        """The record of a call."""
        record = {
            "approval": made.approval,
            "event": "call",
            "id": self._id(),
            "key": made.name[:_TEXT_MAX],
            "method": made.method,
            "outcome": made.outcome,
            "peer": made.peer,
            "principal": made.principal,
            "request": made.request,
            "time": _now(),
            "us": round(made.seconds * 1_000_000),
        }
        return _ENCODE({name: value for name, value in record.items() if value != ""}).encode()

    def signatures(self, made: SignaturesMade) -> Iterator[bytes]:
        """The records of a group, one for each PART of it."""
        if len(made.inputs) <= PART:
            yield self._part(made, 0, made.inputs, made.signatures)
            return
        for first in range(0, len(made.inputs), PART):
            part = slice(first, first + PART)
            yield self._part(made, first, made.inputs[part], made.signatures[part])

    def event(self, what: str, **said: object) -> bytes:
        """Something about the log itself."""
        record = {"event": what, "id": self._id(), "time": _now(), **said}
        return _ENCODE(dict(sorted(record.items()))).encode()

    def _part(self, made: SignaturesMade, first: int, inputs: Sequence[bytes], signatures: Sequence[bytes]) -> bytes:
        failures = {}
        if made.failures:
            within = sorted(str(at) for at in made.failures if first <= at < first + PART)
            failures = {"failures": {at: made.failures[int(at)] for at in within}} if within else {}
        record = {
            **({"approval": made.approval} if made.approval else {}),
            "count": len(inputs),
            "event": "sign",
            **failures,
            "first": first,
            "id": self._id(),
            "inputs": b64encode(b"".join([sha256(one).digest() for one in inputs])).decode(),
            "key": made.name[:_TEXT_MAX],
            "kind": _KINDS[made.kind],
            "outcome": made.outcome,
            "principal": made.principal,
            "request": made.request,
            "scheme": _SCHEMES[made.scheme],
            "signatures": b64encode(b"".join([sha256(one).digest() if one else _NONE for one in signatures])).decode(),
            "time": _now(),
            "us": round(made.seconds * 1_000_000),
        }
        return _ENCODE(record).encode()

    def _id(self) -> str:
        return f"{self._prefix}-{next(self._numbers):x}"


def _now() -> str:
    """Microseconds, UTC (RFC 3339)."""
    seconds, rest = divmod(time.time_ns(), 1_000_000_000)
    return f"{_second(seconds)}.{rest // 1000:06}Z"


@functools.lru_cache(2)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))

"""Records: canonical JSON (sorted names, no spaces, ASCII), a line each. No message, no PIN, no key byte in it.

Of inputs (messages, or the digests that were sent) and of signatures a record has the SHA-256, 32 bytes each, one after
the other in base64; 32 zeros where there is no signature.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hsmsign.model.algorithms import InputKind, Scheme

PART = 1024
"""Signatures of one record: of a group with more there are several."""
_TEXT_MAX = 300
"""Characters of a key's name, which is a caller's text as long as no key was found."""
_NONE = bytes(32)
OK = "OK"


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


@dataclass(frozen=True, slots=True)
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


class Records:
    """Makes the records of one process."""

    def __init__(self) -> None:
        self._prefix = os.urandom(6).hex()
        self._numbers = itertools.count(1)

    def call(self, made: CallMade) -> bytes:
        """The record of a call."""
        said = {"event": "call", "method": made.method, "key": made.name[:_TEXT_MAX], "peer": made.peer}
        return self._line(said | _common(made))

    def signatures(self, made: SignaturesMade) -> Iterator[bytes]:
        """The records of a group, one for each PART of it."""
        common = {
            "event": "sign",
            "key": made.name[:_TEXT_MAX],
            "scheme": "" if made.scheme is None else made.scheme.name,
            "kind": made.kind.name.lower(),
        } | _common(made)
        for first in range(0, max(1, len(made.inputs)), PART):
            inputs = made.inputs[first : first + PART]
            signatures = made.signatures[first : first + PART]
            failed = {str(at): why for at, why in made.failures.items() if first <= at < first + PART}
            part = {
                "first": first,
                "count": len(inputs),
                "inputs": _joined(hashlib.sha256(one).digest() for one in inputs),
                "signatures": _joined(hashlib.sha256(one).digest() if one else _NONE for one in signatures),
                "failures": failed or None,
            }
            yield self._line(common | part)

    def event(self, what: str, **said: object) -> bytes:
        """Something about the log itself."""
        return self._line({"event": what, **said})

    def _line(self, said: Mapping[str, Any]) -> bytes:
        now = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds")
        record = {"id": f"{self._prefix}-{next(self._numbers):x}", "time": f"{now[:-6]}Z", **said}
        kept = {name: value for name, value in record.items() if value not in ("", None)}
        return json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()


def _common(made: CallMade | SignaturesMade) -> dict[str, Any]:
    return {
        "principal": made.principal,
        "request": made.request,
        "outcome": made.outcome,
        "us": round(made.seconds * 1_000_000),
    }


def _joined(parts: Iterable[bytes]) -> str:
    return base64.b64encode(b"".join(parts)).decode()

"""What is asked of the pipeline, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field

from hsmsign.model.algorithms import InputKind, Scheme, SignatureFormat
from hsmsign.model.errors import HsmsignError


@dataclass(slots=True)
class SignGroup:
    """Inputs of one kind for one key and one scheme; nothing of it is checked yet."""

    name: str
    scheme: Scheme | None
    kind: InputKind
    format: SignatureFormat
    inputs: list[bytes] = field(repr=False)
    crc32c: int | None = None
    """Of all inputs one after the other."""


@dataclass(frozen=True, slots=True)
class GroupFailure:
    """An item that has no signature. Items that failed for the same reason share one error."""

    index: int
    error: HsmsignError


@dataclass(slots=True)
class GroupResult:
    """The signatures in the order of the inputs, b"" where one failed."""

    key_version: str
    scheme: Scheme
    signatures: list[bytes] = field(repr=False)
    failures: list[GroupFailure] = field(default_factory=list)
    approval: str = ""
    """approvals/ID, where others had to approve it."""

"""What the keyring answers with."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.dual_control import DualControl
from hsmsign.model.key_facts import KeyFacts
from hsmsign.model.purpose import Purpose
from hsmsign.store import KeyRow, VersionRow, VersionState


class AdoptedObject(enum.Enum):
    """What becomes of an adopted object when its handle is destroyed. The value is that of the wire."""

    RELEASE = 1
    DESTROY = 2


@dataclass(frozen=True, slots=True)
class Key:
    """A key as others may see it: without versions that are still being made."""

    row: KeyRow
    versions: tuple[VersionRow, ...]
    """The oldest first; in a list of keys the primary one only."""
    approval: str = ""
    """approvals/ID, where others approved what was done with it just now."""

    @property
    def name(self) -> str:
        """keys/ID"""
        return f"keys/{self.row.id}"

    @property
    def facts(self) -> KeyFacts:
        """What the policy wants to know of it."""
        return KeyFacts.of(self.row.id, self.row.labels, self.row.algorithm, self.row.purpose.kind)

    @property
    def primary(self) -> str:
        """keys/ID/versions/N, or nothing where no version can sign."""
        number = self.row.primary_version
        return "" if number is None else version_name(self.row.id, number)

    @property
    def etag(self) -> str:
        """Changes with every change of the key."""
        return etag(self.row)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a key pair lies."""

    device: str
    locator: bytes


@dataclass(frozen=True, slots=True)
class ResolvedKey:
    """What a signature needs to know of a key version."""

    name: str
    """keys/ID/versions/N"""
    device: str
    locator: bytes
    """Nothing where the version is destroyed."""
    algorithm: KeyAlgorithm
    state: VersionState
    public_key: bytes
    """SubjectPublicKeyInfo, DER."""
    facts: KeyFacts
    """What the policy wants to know of it."""
    purpose: Purpose = field(default_factory=Purpose)
    control: DualControl = field(default_factory=DualControl)
    replicas: tuple[Place, ...] = ()
    """Further tokens that hold the same key."""


def version_name(key: str, number: int) -> str:
    """The full name of a version."""
    return f"keys/{key}/versions/{number}"


def etag(row: KeyRow) -> str:
    """The mark of this revision of the key."""
    return f"{row.created:x}-{row.revision:x}"

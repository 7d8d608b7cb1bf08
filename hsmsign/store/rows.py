"""What a row says, as plain values. Times are microseconds since 1970 (UTC)."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.device import DeviceFacts, Protection
from hsmsign.model.dual_control import ApprovalState, DualControl, Operation
from hsmsign.model.purpose import Purpose


class VersionState(enum.Enum):
    """Where a key version stands in its life. CREATING and DESTROYING are seen by nobody outside."""

    CREATING = "creating"
    """The name is taken, the device may or may not have the key yet."""
    ENABLED = "enabled"
    DISABLED = "disabled"
    DESTROYING = "destroying"
    """Never signs again; the device may or may not have the key still."""
    DESTROYED = "destroyed"


GONE = frozenset({VersionState.DESTROYING, VersionState.DESTROYED})
"""The states of a version that never signs again."""


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One key handle."""

    id: str
    algorithm: KeyAlgorithm
    backend: str
    labels: dict[str, str]
    primary_version: int | None
    created: int
    updated: int
    revision: int
    """Goes up by one with every change."""
    established: bool
    """Whether it ever had a version that was made: until then nobody sees the key."""
    purpose: Purpose = field(default_factory=Purpose)
    control: DualControl = field(default_factory=DualControl)


@dataclass(frozen=True, slots=True)
class ReplicaRow:
    """A further token that holds the key of a version."""

    key: str
    number: int
    backend: str
    locator: bytes
    facts: DeviceFacts
    uri: str
    holds: str
    """As that of a version: no object is a replica of two versions."""
    created: int


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One version of a key. What the device tells is None (facts, key, locator) until it was made."""

    key: str
    number: int
    state: VersionState
    protection: Protection
    created: int
    object_id: bytes | None = None
    """The CKA_ID that a key of ours was, or is being, made with."""
    locator: bytes | None = None
    public_key: bytes | None = None
    facts: DeviceFacts = field(default_factory=DeviceFacts)
    uri: str = ""
    adopted: bool = False
    holds: str | None = None
    """Which object of which backend it stands for, while it does: no two versions hold the same."""
    keep_object: bool = False
    """DESTROYING only: the handle goes, the object stays."""
    destroyed: int | None = None
    replicas: tuple[ReplicaRow, ...] = ()
    """By the names of their backends; `save_version` leaves them as they are."""


@dataclass(frozen=True, slots=True)
class RequestRow:
    """A request that was carried out, or is being: the same id again is the same request again."""

    id: str
    fingerprint: str
    """Of everything that was asked for."""
    key: str
    number: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What one principal said of a request for approvals."""

    principal: str
    names: tuple[str, ...]
    """All that were proved of it."""
    granted: bool
    at: int


@dataclass(frozen=True, slots=True)
class ApprovalRow:
    """Something that waits for approvals."""

    id: str
    """Greater than those that were made in seconds before."""
    key: str
    operation: Operation
    requester: str
    names: tuple[str, ...]
    """All that were proved of the requester."""
    fingerprint: str
    """Of the requester and of everything that was asked for."""
    summary: str
    """In words, without characters that could make them look like others."""
    message: bytes
    """What is to be signed, where it is not too long to be kept."""
    required: int
    state: ApprovalState
    """Never EXPIRED: that is what the time says."""
    decisions: tuple[Decision, ...]
    created: int
    expires: int

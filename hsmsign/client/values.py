"""What the daemon tells about keys, versions and backends: frozen values."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Iterable
from dataclasses import dataclass, field

from hsmsign.model.algorithms import KeyAlgorithm, Scheme
from hsmsign.model.device import DeviceFacts, Protection
from hsmsign.model.dual_control import ApprovalState, DualControl, Operation
from hsmsign.model.errors import HsmsignError
from hsmsign.model.purpose import Purpose


class VersionState(enum.Enum):
    """What a key version may do. The numbers are those of the wire."""

    ENABLED = 1
    DISABLED = 2
    DESTROYED = 3


class Health(enum.Enum):
    """What `grpc.health.v1` says. The numbers are those of the wire."""

    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2


class AdoptedObject(enum.Enum):
    """What becomes of the device object when an adopted key is destroyed. The numbers are those of the wire."""

    RELEASE = 1
    """The handle goes, the object stays."""
    DESTROY = 2
    """The object goes too."""


@dataclass(frozen=True, slots=True)
class ReplicaInfo:
    """A further token that holds the key of a version."""

    backend: str
    pkcs11_uri: str
    facts: DeviceFacts
    created: dt.datetime | None


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """One version of a key."""

    name: str
    """`keys/ID/versions/N`"""
    state: VersionState
    algorithm: KeyAlgorithm
    protection: Protection | None
    created: dt.datetime | None
    destroyed: dt.datetime | None
    public_key: bytes = field(repr=False)
    """SubjectPublicKeyInfo, DER."""
    pkcs11_uri: str
    facts: DeviceFacts
    adopted: bool
    replicas: tuple[ReplicaInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A key handle. `versions` is oldest first; a listing has the primary version only."""

    name: str
    algorithm: KeyAlgorithm
    backend: str
    labels: dict[str, str]
    created: dt.datetime | None
    updated: dt.datetime | None
    primary_version: str
    versions: tuple[VersionInfo, ...]
    etag: str
    purpose: Purpose = field(default_factory=Purpose)
    dual_control: DualControl = field(default_factory=DualControl)

    @property
    def primary(self) -> VersionInfo | None:
        """The version that signs where a request names the key only."""
        return next((version for version in self.versions if version.name == self.primary_version), None)


@dataclass(frozen=True, slots=True)
class PublicKeyInfo:
    """The public part of one key version, in three forms."""

    key_version: str
    algorithm: KeyAlgorithm
    der: bytes = field(repr=False)
    pem: str = field(repr=False)
    jwk: str = field(repr=False)
    """JSON (RFC 7517); `kid` is the RFC 7638 thumbprint."""


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """One token behind the daemon."""

    name: str
    """`backends/NAME`"""
    kind: str
    default: bool
    state: str
    message: str
    hint: str
    protection: Protection | None
    module_path: str
    library: str
    library_version: str
    cryptoki_version: str
    token_label: str
    token_serial: str
    token_model: str
    firmware_version: str
    algorithms: tuple[KeyAlgorithm, ...]
    sessions: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class ApprovalDecision:
    """What somebody said of a request for approvals."""

    principal: str
    granted: bool
    time: dt.datetime | None


@dataclass(frozen=True, slots=True)
class ApprovalInfo:
    """Something that waits, or waited, for the approval of others."""

    name: str
    """approvals/ID"""
    key: str
    operation: Operation
    requester: str
    summary: str
    """What it is about, in words; ASCII."""
    message: bytes
    """What is to be signed, up to 64 KiB."""
    required: int
    state: ApprovalState
    decisions: tuple[ApprovalDecision, ...]
    created: dt.datetime | None
    expires: dt.datetime | None


@dataclass(frozen=True, slots=True)
class LogCheckpoint:
    """The newest checkpoint of the audit log, and what it can be checked with."""

    note: bytes
    """A signed note (C2SP tlog-checkpoint)."""
    verifier_key: str
    """NAME+ID+KEY (C2SP signed-note): keep it elsewhere."""


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature, the version that made it, and the scheme."""

    value: bytes
    key_version: str
    scheme: Scheme


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found. It is true where the signature is valid."""

    valid: bool
    key_version: str

    def __bool__(self) -> bool:
        return self.valid


class SignedBatch(list[bytes | HsmsignError]):
    """One entry an input, in their order: the signature, or the error of that item.

    A list, with the version and the scheme that signed (the same for all of it).
    """

    def __init__(self, entries: Iterable[bytes | HsmsignError], key_version: str, scheme: Scheme | None) -> None:
        super().__init__(entries)
        self.key_version = key_version
        self.scheme = scheme

    @property
    def errors(self) -> dict[int, HsmsignError]:
        """The items that failed, by their place."""
        return {index: entry for index, entry in enumerate(self) if isinstance(entry, HsmsignError)}

    def signatures(self) -> list[bytes]:
        """All signatures; raises the first item's error where there is one."""
        for entry in self:
            if isinstance(entry, HsmsignError):
                raise entry
        return [entry for entry in self if isinstance(entry, bytes)]

"""What the two sides of the process wall tell each other about a device: plain values.

The worker (room `devices`) and the device host (room `backends`) both use these. They cross the wall as
JSON over the management connection, see `hsmsign.model.hostwire`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from hsmsign.model.algorithms import InputKind, KeyAlgorithm, Scheme, SignatureFormat
from hsmsign.model.errors import CapabilityMissingError


class Protection(enum.Enum):
    """Where the private key lies. The value is the number in `hsmsign.v1.ProtectionLevel`."""

    SOFTWARE = 1
    HSM = 2
    TPM = 3


class DeviceState(enum.Enum):
    """How a device is, seen from outside."""

    STARTING = "starting"
    READY = "ready"
    HEALING = "healing"
    """Something was lost (a session, a login, the token); it is being brought back, calls wait."""
    TOKEN_NOT_PRESENT = "token-not-present"
    PIN_REFUSED = "pin-refused"
    """The PIN was tried once and refused. Only a person's reload makes it be tried again."""
    PIN_LOCKED = "pin-locked"
    BROKEN = "broken"
    """The module cannot be loaded or used: `DeviceHealth.message` says why."""


@dataclass(frozen=True, slots=True)
class DeviceHealth:
    """A device's state, with a sentence for a person and what to do about it."""

    state: DeviceState
    message: str = ""
    hint: str = ""
    ckr: str = ""
    """The name of the device's own code (`CKR_PIN_INCORRECT`, `TPM_RC_BAD_AUTH`), or empty."""
    busy: float = field(default=0.0, compare=False)
    """Seconds that the oldest running signature has been inside the device; 0 where none runs."""


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """Who the device says it is (PKCS #11: CK_INFO, CK_TOKEN_INFO)."""

    protection: Protection
    module_path: str
    library: str
    library_version: str
    cryptoki_version: str
    token_label: str
    token_serial: str
    token_manufacturer: str
    token_model: str
    firmware_version: str
    algorithms: tuple[KeyAlgorithm, ...]
    sessions: int
    keeps_keys: bool = True
    """False: a key is a wrapped blob in the store, of which the device itself knows nothing (TPM)."""
    attests: bool = False
    """It can prove that a key is in it."""

    def must_make(self, algorithm: KeyAlgorithm, who: str, **metadata: str) -> None:
        """Raise CapabilityMissingError, which calls the device `who`, where it cannot make such keys."""
        if algorithm in self.algorithms:
            return
        able = ", ".join(one.value for one in self.algorithms)
        raise CapabilityMissingError(
            f"{who} cannot make keys of algorithm {algorithm.value}",
            hint=f"it can: {able}" if able else "it can make none that are known here: choose another backend",
            metadata={"algorithm": algorithm.value, **metadata},
        )


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """Evidence read back from the device after a key was made or adopted; None where it does not say."""

    sensitive: bool | None = None
    extractable: bool | None = None
    local: bool | None = None
    always_sensitive: bool | None = None
    never_extractable: bool | None = None
    unique_id: str = ""
    pcrs: str = ""
    """TPM only: the platform registers whose values must be those of the key's making, as `sha256:0,7`."""


@dataclass(frozen=True, slots=True)
class DeviceKey:
    """A key pair on a device. `locator` is opaque outside the backend that made it (1 to 1024 bytes)."""

    locator: bytes
    algorithm: KeyAlgorithm
    public_key: bytes
    """SubjectPublicKeyInfo, DER (RFC 5280, section 4.1.2.7)."""
    facts: DeviceFacts
    uri: str
    """RFC 7512 `pkcs11:` URI without a PIN; empty where the device has no such thing."""


FLOWS = 256
"""HSM_FLOWS of native/core/frame.h."""


@dataclass(frozen=True, slots=True)
class SignOrder:
    """Many signatures with one key and one scheme: the unit that crosses the process wall.

    `deadline` is in seconds of `time.monotonic()` (CLOCK_MONOTONIC is the machine's, not the process's);
    0 means none. `inputs` are digests of the right length or messages, and are not checked again.
    """

    locator: bytes
    scheme: Scheme
    kind: InputKind
    format: SignatureFormat
    inputs: list[bytes] = field(repr=False)
    deadline: float = 0.0
    flow: int = 0
    """Whose work it is, a number below FLOWS: flows take turns on the device."""


class JobStatus(enum.IntEnum):
    """What became of one signature. The numbers are those of native/core/status.h."""

    OK = 0
    DEADLINE = 1
    CANCELLED = 2
    KEY_NOT_FOUND = 3
    """No object, or more than one, fits the locator."""
    DEVICE_ERROR = 4
    """The device answered with an error: `JobFailure.ckr` is its number."""
    NOT_PRESENT = 5
    PIN_REFUSED = 6
    PIN_LOCKED = 7
    HOST_LOST = 8
    """The device host went away again and again while it had this job."""
    BAD_INPUT = 9
    UNSUPPORTED = 10
    """The device lacks the mechanism."""
    NO_MEMORY = 11
    BROKEN = 12
    """The device host is up but has no usable device (state BROKEN)."""
    BUSY = 13
    """What waits already takes longer than the order has time: it was refused at once."""


@dataclass(frozen=True, slots=True)
class JobFailure:
    """One item of an order that was not signed. `ckr` is the PKCS #11 return value, or what
    `hsmsign.model.tpm.code` makes; 0 where there is none."""

    index: int
    status: JobStatus
    ckr: int = 0


@dataclass(frozen=True, slots=True)
class SignOutcome:
    """The answers to a SignOrder, in its order. A failed item has b"" and stands in `failures`."""

    signatures: list[bytes] = field(repr=False)
    failures: tuple[JobFailure, ...] = ()

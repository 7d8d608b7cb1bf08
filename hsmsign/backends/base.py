"""What a device is, to the device host.

A backend is small: describe, generate, find, destroy, and take over connections that carry signatures.
What only some devices can do is a protocol of its own, asked for with `isinstance`.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.attestation import AttesterIdentity, Certified
from hsmsign.model.device import DeviceHealth, DeviceInfo, DeviceKey


@dataclass(frozen=True, slots=True)
class PinSource:
    """Where a PIN comes from: exactly one of a file, an environment variable, a systemd credential.

    The PIN itself is read when it is needed and not kept.
    """

    file: Path | None = None
    env: str | None = None
    credential: str | None = None


@dataclass(frozen=True, slots=True)
class Quirks:
    """What some modules do differently. The defaults are the standard's behaviour."""

    exclusive_management: str = "nothing"
    """What is kept out while a key is made or destroyed: "nothing", "lookups" of keys, or "all" signatures too."""
    unusable_mechanisms: tuple[str, ...] = ()
    """`CKM_…` names that the module lists but cannot do."""
    eddsa_curve_as_name: bool = False
    """CKA_EC_PARAMS of Ed25519 as PrintableString "edwards25519" instead of the OID (RFC 8410)."""
    login_as: str = "user"
    """"user" or "none", for tokens that need no login."""


@dataclass(frozen=True, slots=True)
class TpmConfig:
    """What only a TPM has."""

    key_auth: PinSource
    """The secret from which the keys' authorization values are derived."""
    tcti: str = ""
    """How it is reached: `device:/dev/tpmrm0`, `tabrmd`, `swtpm:host=…,port=…`. Empty with `simulator`."""
    simulator: Path | None = None
    """The state folder of a swtpm that the device host starts itself."""
    owner_auth: PinSource | None = None
    """The owner's authorization, where the hierarchy has one: to derive the storage key, and to evict."""
    storage_key: int = 0x81000001
    """The persistent handle of the storage key; where nothing is there, it is derived from the owner's seed."""
    authorization: str = "hmac"
    """"hmac": each signature is authorized in a salted session. "password": in the clear, and several times faster,
    for a TPM that nobody can listen to on its way."""


@dataclass(frozen=True, slots=True)
class BackendConfig:
    """One `[backends.NAME]` of hsmsign.toml, checked and with absolute paths."""

    name: str
    kind: str
    """"softhsm", "pkcs11" or "tpm2"."""
    module: Path = Path()
    """Not of a TPM."""
    token_label: str | None = None
    token_serial: str | None = None
    pin: PinSource | None = None
    sessions: int = 0
    """Sessions, and threads, that sign; 0: as many as the machine has processors."""
    hang_after: float = 10.0
    """Seconds inside one signature after which the device counts as hung and its host is replaced."""
    manage_timeout: float = 120.0
    """The same for a management call (making an RSA key takes its time)."""
    quirks: Quirks = field(default_factory=Quirks)
    token_dir: Path | None = None
    """softhsm only: the folder of the token's objects. None: the machine's own SoftHSM configuration."""
    tpm: TpmConfig | None = None
    """tpm2 only."""

    @property
    def secrets(self) -> tuple[PinSource, ...]:
        """Where all that its host must know, and nobody else, comes from."""
        owned = (self.pin, self.tpm.key_auth, self.tpm.owner_auth) if self.tpm is not None else (self.pin,)
        return tuple(source for source in owned if source is not None)


@dataclass(frozen=True, slots=True)
class ObjectQuery:
    """Which private key object: by CKA_ID, CKA_LABEL, or both; by locator; at least one of them."""

    id: bytes | None = None
    label: str | None = None
    locator: bytes | None = None


class Backend(Protocol):
    """A device, inside its host. Management methods are called one at a time, from one thread.

    Every method may raise DeviceUnavailableError, TokenNotPresentError, PinRefusedError, PinLockedError
    or DeviceError (with `metadata["ckr"]`).
    """

    @property
    def config(self) -> BackendConfig:
        """What it was made from."""
        ...

    def start(self) -> None:
        """Open the module, find the token, log in (one try), let signatures flow. Never raises for what
        the device does: `health()` then says what is wrong."""
        ...

    def health(self) -> DeviceHealth:
        """How the device is now, without asking it."""
        ...

    def tick(self) -> None:
        """Called every second and on a fault: notice lost tokens, bring back what can be brought back.
        A PIN that was refused is not tried again."""
        ...

    def describe(self) -> DeviceInfo:
        """Who the device is and what it can do."""
        ...

    def generate(self, algorithm: KeyAlgorithm, object_id: bytes, label: str, pcrs: str = "") -> DeviceKey:
        """Make a key pair: on the token, sensitive, not extractable, with this CKA_ID.

        `label` is for people who look at the token with other tools; `pcrs` binds the key to platform
        registers of a TPM (`sha256:0,7`). Raises CapabilityMissingError where the device lacks the algorithm,
        or such registers. Leaves nothing behind when it fails.
        """
        ...

    def find(self, query: ObjectQuery) -> list[DeviceKey]:
        """The key pairs that fit (private keys of an algorithm we know, with a public key that is on the
        token, in a certificate, or can be derived)."""
        ...

    def destroy(self, locator: bytes) -> bool:
        """Destroy the private and the public object. False where there was nothing."""
        ...

    def fault_fd(self) -> int:
        """A file descriptor that is readable when `tick` should be called now."""
        ...

    def oldest_active(self) -> float:
        """Seconds that the oldest running signature has been inside the device; 0 where there is none."""
        ...

    def serve(self, connection: socket.socket) -> None:
        """Take over a connection that carries orders (its hello has been read)."""
        ...

    def drain(self, timeout: float) -> None:
        """Wait for running signatures to end, at most this many seconds."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


@runtime_checkable
class Attesting(Protocol):
    """A device that proves where a key lives."""

    def attester(self) -> AttesterIdentity:
        """Who says so."""
        ...

    def certify(self, locator: bytes, qualifying: bytes) -> Certified:
        """Say that a key is in the device, over the caller's 32 bytes."""
        ...

    def activate(self, credential: bytes, secret: bytes) -> bytes:
        """Open a verifier's challenge (TPM2B_ID_OBJECT, TPM2B_ENCRYPTED_SECRET, marshalled)."""
        ...


@runtime_checkable
class Replaceable(Protocol):
    """A device that sometimes only a new process can see."""

    def outdated(self) -> bool:
        """Whether this process cannot see its token but a new one would: the host then ends itself."""
        ...

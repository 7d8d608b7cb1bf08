"""A device as a front worker sees it: far away, behind a process wall, sometimes gone for a moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.attestation import AttesterIdentity, Certified
from hsmsign.model.device import DeviceHealth, DeviceInfo, DeviceKey, SignOrder, SignOutcome
from hsmsign.model.errors import DeviceUnavailableError


@dataclass(frozen=True, slots=True)
class Lookup:
    """Which object: by CKA_ID, CKA_LABEL or both, or by locator."""

    id: bytes | None = None
    label: str | None = None
    locator: bytes | None = None


class NotAnsweringError(DeviceUnavailableError):
    """The device went away, or is silent, and the order was not to wait for it."""


class Device(Protocol):
    """One token. All coroutines run on the worker's event loop.

    A host that dies is waited for: a call then takes longer, or ends with DeviceUnavailableError when its
    time is over. Errors of the device come as what they are (see hsmsign.model.errors).
    """

    @property
    def name(self) -> str:
        """The backend's name in the configuration."""
        ...

    @property
    def kind(self) -> str:
        """The backend's kind: "softhsm", "pkcs11" or "tpm2"."""
        ...

    def health(self) -> DeviceHealth:
        """How it was when last heard of."""
        ...

    def info(self) -> DeviceInfo | None:
        """Who it is; None until it was ready once."""
        ...

    def in_flight(self) -> int:
        """Signatures that wait or are under way for this worker."""
        ...

    def answering(self) -> bool:
        """Whether it is ready, reached, and not silent: then it would begin with an order at once."""
        ...

    async def sign(self, order: SignOrder, *, waits: bool = True) -> SignOutcome:
        """Make many signatures. Cancelling the task takes what is not yet signed out of the queue.

        Raises QueueFullError, DeviceUnavailableError; whatever becomes of single items is in the outcome. One that
        does not wait for a device to come back (`waits` is false) ends with NotAnsweringError as soon as the device
        does not answer.
        """
        ...

    async def generate(self, algorithm: KeyAlgorithm, object_id: bytes, label: str, pcrs: str = "") -> DeviceKey:
        """Make a key pair with this CKA_ID, bound to the TPM's registers `pcrs` where it says any.

        Survives a host that dies in the middle of it: there is one key pair with this id afterwards, or none
        and an error.
        """
        ...

    async def find(self, lookup: Lookup) -> Sequence[DeviceKey]:
        """The key pairs that fit."""
        ...

    async def attester(self) -> AttesterIdentity:
        """Who proves where keys of this device live. Only where its info says that it attests."""
        ...

    async def certify(self, locator: bytes, qualifying: bytes) -> Certified:
        """Have the device say that a key is in it, over 32 bytes."""
        ...

    async def activate(self, credential: bytes, secret: bytes) -> bytes:
        """Open a verifier's challenge. Raises InvalidArgumentError where it is not for this device."""
        ...

    async def destroy(self, locator: bytes) -> bool:
        """Destroy a key pair. False where there was nothing (also: already done)."""
        ...

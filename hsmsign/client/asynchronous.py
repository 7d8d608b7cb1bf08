"""The asyncio client: the same calls as the blocking one, to be awaited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_public_key

from hsmsign.client import configuration, messages
from hsmsign.client.authorities import AsyncAuthorities
from hsmsign.client.configuration import Endpoint, TlsFiles
from hsmsign.client.signing_async import AsyncSigning
from hsmsign.client.values import (
    AdoptedObject,
    ApprovalInfo,
    BackendInfo,
    Health,
    KeyInfo,
    LogCheckpoint,
    PublicKeyInfo,
    VersionInfo,
    VersionState,
)
from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.attestation import Challenge
from hsmsign.model.dual_control import DualControl
from hsmsign.model.purpose import Purpose, PurposeKind
from hsmsign.v1 import audit_pb2

T = TypeVar("T")


def connect(
    target: str | None = None,
    *,
    tls: TlsFiles | None = None,
    client_file: Path | str | None = None,
    deadline: float = 30.0,
) -> AsyncClient:
    """As `hsmsign.connect`, for asyncio. Call it where the event loop runs."""
    return AsyncClient(configuration.resolve(target, tls, client_file), deadline=deadline)


class AsyncClient(AsyncSigning):
    """A connection to a daemon for one event loop. The methods are those of `hsmsign.client.Client`.

    There is no `key()`: what `cryptography` calls a private key signs while it blocks. Use a blocking
    client in a thread for that.
    """

    def __init__(self, endpoint: Endpoint, *, deadline: float = 30.0) -> None:
        super().__init__(endpoint, deadline=deadline)
        self.ca = AsyncAuthorities(self._call, self._receive)
        """Certificate authorities, and what they issue."""

    async def create_key(
        self,
        name: str,
        algorithm: KeyAlgorithm | str | None = None,
        *,
        backend: str | None = None,
        labels: Mapping[str, str] | None = None,
        adopt: str | None = None,
        pcrs: str | None = None,
        purpose: Purpose | PurposeKind | str | None = None,
        dual_control: DualControl | None = None,
        request_id: str | None = None,
        deadline: float | None = None,
    ) -> KeyInfo:
        """Make a key pair on a device and name it, or name one that is there."""
        call = messages.create_key(name, algorithm, backend, labels, adopt, pcrs, purpose, dual_control, request_id)
        return await self._call(call, deadline)

    async def get_key(self, name: str, *, deadline: float | None = None) -> KeyInfo:
        """A key with all its versions."""
        return await self._call(messages.get_key(name), deadline)

    async def list_keys(
        self,
        *,
        labels: Mapping[str, str] | None = None,
        backend: str | None = None,
        page_size: int = 0,
        deadline: float | None = None,
    ) -> AsyncIterator[KeyInfo]:
        """Keys in the order of their names, fetched page by page."""
        token = ""
        while True:
            keys, token = await self._call(messages.list_keys(labels, backend, page_size, token), deadline)
            for key in keys:
                yield key
            if not token:
                return

    async def update_labels(
        self, name: str, labels: Mapping[str, str], *, etag: str | None = None, deadline: float | None = None
    ) -> KeyInfo:
        """Replace all labels. With `etag`, only if the key is still as it was when read."""
        return await self._call(messages.update_key(name, etag, labels=labels), deadline)

    async def set_primary(
        self, name: str, version: int | str, *, etag: str | None = None, deadline: float | None = None
    ) -> KeyInfo:
        """Say which version signs where a request names the key only."""
        return await self._call(messages.update_key(name, etag, primary=version), deadline)

    async def set_purpose(
        self,
        name: str,
        purpose: Purpose | PurposeKind | str,
        *,
        etag: str | None = None,
        deadline: float | None = None,
    ) -> KeyInfo:
        """Say what the key is for from now on."""
        return await self._call(messages.update_key(name, etag, purpose=purpose), deadline)

    async def set_dual_control(
        self, name: str, dual_control: DualControl, *, etag: str | None = None, deadline: float | None = None
    ) -> KeyInfo:
        """Say who has to approve what is done with the key. Where approvals were wanted before, others approve this."""
        return await self._call(messages.update_key(name, etag, dual_control=dual_control), deadline)

    async def approvals(
        self, *, key: str | None = None, everything: bool = False, deadline: float | None = None
    ) -> AsyncIterator[ApprovalInfo]:
        """What waits for approvals, the oldest first: what the caller asked for, or may decide. With `everything` also
        what nothing can come of any more."""
        token = ""
        while True:
            found, token = await self._call(messages.list_approvals(key, everything, token), deadline)
            for one in found:
                yield one
            if not token:
                return

    async def approval(self, name: str, *, deadline: float | None = None) -> ApprovalInfo:
        """One request for approvals."""
        return await self._call(messages.get_approval(name), deadline)

    async def grant_approval(self, name: str, *, deadline: float | None = None) -> ApprovalInfo:
        """Approve it. Nobody approves what they asked for themselves."""
        return await self._call(messages.decide_approval(name, grant=True), deadline)

    async def deny_approval(self, name: str, *, deadline: float | None = None) -> ApprovalInfo:
        """Say no; who asked for it withdraws it so."""
        return await self._call(messages.decide_approval(name, grant=False), deadline)

    async def enable_version(self, name: str, *, deadline: float | None = None) -> VersionInfo:
        """Let a disabled version sign again."""
        return await self._call(messages.set_version_state(name, VersionState.ENABLED), deadline)

    async def disable_version(self, name: str, *, deadline: float | None = None) -> VersionInfo:
        """Keep a version from signing; it can be enabled again."""
        return await self._call(messages.set_version_state(name, VersionState.DISABLED), deadline)

    async def rotate_key(self, name: str, *, request_id: str | None = None, deadline: float | None = None) -> KeyInfo:
        """Make a new version, which becomes the primary one."""
        return await self._call(messages.rotate_key(name, request_id), deadline)

    async def destroy_key(
        self,
        name: str,
        *,
        adopted: AdoptedObject | None = None,
        validate_only: bool = False,
        etag: str | None = None,
        deadline: float | None = None,
    ) -> KeyInfo:
        """Destroy a key with all its versions, or one version. It cannot be undone."""
        return await self._call(messages.destroy_key(name, adopted, validate_only, etag), deadline)

    async def add_replica(
        self, name: str, backend: str, *, uri: str | None = None, deadline: float | None = None
    ) -> VersionInfo:
        """Let a further token sign for a version (of a key's name: its primary one), which holds its key already; `uri`
        says which object it is where its CKA_ID is another."""
        return await self._call(messages.add_replica(name, backend, uri), deadline)

    async def remove_replica(self, name: str, backend: str, *, deadline: float | None = None) -> VersionInfo:
        """Let it no longer sign for that version. The object stays on its token."""
        return await self._call(messages.remove_replica(name, backend), deadline)

    async def public_key(self, name: str, *, deadline: float | None = None) -> PublicKeyTypes:
        """The public key, as `cryptography` has it."""
        return load_der_public_key((await self.public_key_info(name, deadline=deadline)).der)

    async def public_key_info(self, name: str, *, deadline: float | None = None) -> PublicKeyInfo:
        """The public key as DER, PEM and JWK, with the version it belongs to."""
        return await self._call(messages.get_public_key(name), deadline)

    async def attest_key(
        self, name: str, nonce: bytes, *, challenge: Challenge | None = None, deadline: float | None = None
    ) -> bytes:
        """Have it said where a version lives: the document that `hsmsign.attestation.verify` takes."""
        return await self._call(messages.attest_key(name, nonce, challenge), deadline)

    async def backends(self, *, deadline: float | None = None) -> tuple[BackendInfo, ...]:
        """The devices behind the daemon, and how they are."""
        return (await self._call(messages.list_backends(), deadline))[0]

    async def daemon_version(self, *, deadline: float | None = None) -> str:
        """Version of the daemon."""
        return (await self._call(messages.list_backends(), deadline))[1]

    async def health(self, service: str = "", *, deadline: float | None = None) -> Health:
        """How the daemon is, or one backend (`backends/NAME`)."""
        return await self._call(messages.health(service), deadline)

    async def audit_checkpoint(self, *, deadline: float | None = None) -> LogCheckpoint:
        """The newest checkpoint of the daemon's audit log."""
        return await self._call(messages.get_checkpoint(), deadline)

    async def audit_proof(self, id: str, *, deadline: float | None = None) -> bytes:
        """Proof (C2SP tlog-proof) that a record is in the audit log; see `Client.audit_proof`."""
        return await self._call(messages.prove_record(id), deadline)

    async def audit_records(
        self, *, last: int = 0, follow: bool = False, deadline: float | None = None
    ) -> AsyncIterator[tuple[int, bytes]]:
        """Index and record (JSON) of the `last` ones; with `follow`, of all that come, too."""
        request = messages.tail_records(last, follow)
        async for answer in self._receive(messages.TAIL, request, audit_pb2.TailRecordsResponse, deadline):
            yield answer.index, answer.record

"""The blocking client."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_public_key

from hsmsign.client import configuration, messages
from hsmsign.client.authorities import Authorities
from hsmsign.client.configuration import Endpoint, TlsFiles
from hsmsign.client.remote import RemoteSigner, remote_signer
from hsmsign.client.signing import Signing
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
Progress = Callable[[int], object]


def connect(
    target: str | None = None,
    *,
    tls: TlsFiles | None = None,
    client_file: Path | str | None = None,
    deadline: float = 30.0,
) -> Client:
    """A client of the daemon at `target`: `unix:///path` or, with TLS, `dns:///host:port`.

    Without a target the client file says where: `client_file`, else $HSMSIGN_CLIENT, else the user's own.
    `deadline` is in seconds, for each call. Connects at the first call; raises ConfigurationError.
    """
    return Client(configuration.resolve(target, tls, client_file), deadline=deadline)


class Client(Signing):
    """A connection to a daemon. Safe to use from many threads; make it after a fork, not before.

    Every method raises HsmsignError's subclasses. Names may be short: `web-1` means `keys/web-1`.
    `deadline` (seconds) is that of the client where a call names none.
    """

    def __init__(self, endpoint: Endpoint, *, deadline: float = 30.0) -> None:
        super().__init__(endpoint, deadline=deadline)
        self.ca = Authorities(self._call, self._receive)
        """Certificate authorities, and what they issue."""

    def key(self, name: str) -> RemoteSigner:
        """A private key for `cryptography`, PyJWT, josepy that signs through the daemon.

        It is pinned to one version: the one named, or the primary one as it is now. So a certificate made
        for it fits it for as long as it lives; ask again after a rotation.
        """
        return remote_signer(self, self.public_key_info(name))

    def create_key(
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
        """Make a key pair on a device and name it; with `adopt`, name the one that a URI points to
        (`pkcs11:…`, or a TPM's `tpm2:handle=0x81010001`). `pcrs` binds it to registers of a TPM, `sha256:0,7`.

        The same call with the same `request_id` (a UUID) gives the same key.
        """
        return self._call(
            messages.create_key(name, algorithm, backend, labels, adopt, pcrs, purpose, dual_control, request_id),
            deadline,
        )

    def get_key(self, name: str, *, deadline: float | None = None) -> KeyInfo:
        """A key with all its versions."""
        return self._call(messages.get_key(name), deadline)

    def list_keys(
        self,
        *,
        labels: Mapping[str, str] | None = None,
        backend: str | None = None,
        page_size: int = 0,
        deadline: float | None = None,
    ) -> Iterator[KeyInfo]:
        """Keys in the order of their names, fetched page by page."""
        token = ""
        while True:
            keys, token = self._call(messages.list_keys(labels, backend, page_size, token), deadline)
            yield from keys
            if not token:
                return

    def update_labels(
        self, name: str, labels: Mapping[str, str], *, etag: str | None = None, deadline: float | None = None
    ) -> KeyInfo:
        """Replace all labels. With `etag`, only if the key is still as it was when read."""
        return self._call(messages.update_key(name, etag, labels=labels), deadline)

    def set_primary(
        self, name: str, version: int | str, *, etag: str | None = None, deadline: float | None = None
    ) -> KeyInfo:
        """Say which version signs where a request names the key only."""
        return self._call(messages.update_key(name, etag, primary=version), deadline)

    def set_purpose(
        self,
        name: str,
        purpose: Purpose | PurposeKind | str,
        *,
        etag: str | None = None,
        deadline: float | None = None,
    ) -> KeyInfo:
        """Say what the key is for from now on."""
        return self._call(messages.update_key(name, etag, purpose=purpose), deadline)

    def set_dual_control(
        self, name: str, dual_control: DualControl, *, etag: str | None = None, deadline: float | None = None
    ) -> KeyInfo:
        """Say who has to approve what is done with the key. Where approvals were wanted before, others approve this."""
        return self._call(messages.update_key(name, etag, dual_control=dual_control), deadline)

    def approvals(
        self, *, key: str | None = None, everything: bool = False, deadline: float | None = None
    ) -> Iterator[ApprovalInfo]:
        """What waits for approvals, the oldest first: what the caller asked for, or may decide. With `everything` also
        what nothing can come of any more."""
        token = ""
        while True:
            found, token = self._call(messages.list_approvals(key, everything, token), deadline)
            yield from found
            if not token:
                return

    def approval(self, name: str, *, deadline: float | None = None) -> ApprovalInfo:
        """One request for approvals."""
        return self._call(messages.get_approval(name), deadline)

    def grant_approval(self, name: str, *, deadline: float | None = None) -> ApprovalInfo:
        """Approve it. Nobody approves what they asked for themselves."""
        return self._call(messages.decide_approval(name, grant=True), deadline)

    def deny_approval(self, name: str, *, deadline: float | None = None) -> ApprovalInfo:
        """Say no; who asked for it withdraws it so."""
        return self._call(messages.decide_approval(name, grant=False), deadline)

    def enable_version(self, name: str, *, deadline: float | None = None) -> VersionInfo:
        """Let a disabled version (`keys/ID/versions/N`) sign again."""
        return self._call(messages.set_version_state(name, VersionState.ENABLED), deadline)

    def disable_version(self, name: str, *, deadline: float | None = None) -> VersionInfo:
        """Keep a version (`keys/ID/versions/N`) from signing; it can be enabled again."""
        return self._call(messages.set_version_state(name, VersionState.DISABLED), deadline)

    def rotate_key(self, name: str, *, request_id: str | None = None, deadline: float | None = None) -> KeyInfo:
        """Make a new version, which becomes the primary one."""
        return self._call(messages.rotate_key(name, request_id), deadline)

    def destroy_key(
        self,
        name: str,
        *,
        adopted: AdoptedObject | None = None,
        validate_only: bool = False,
        etag: str | None = None,
        deadline: float | None = None,
    ) -> KeyInfo:
        """Destroy a key with all its versions, or one version. It cannot be undone.

        `adopted` must be said for an adopted key; `validate_only` checks everything and changes nothing.
        """
        return self._call(messages.destroy_key(name, adopted, validate_only, etag), deadline)

    def add_replica(
        self, name: str, backend: str, *, uri: str | None = None, deadline: float | None = None
    ) -> VersionInfo:
        """Let a further token sign for a version (of a key's name: its primary one), which holds its key already; `uri`
        says which object it is where its CKA_ID is another."""
        return self._call(messages.add_replica(name, backend, uri), deadline)

    def remove_replica(self, name: str, backend: str, *, deadline: float | None = None) -> VersionInfo:
        """Let it no longer sign for that version. The object stays on its token."""
        return self._call(messages.remove_replica(name, backend), deadline)

    def public_key(self, name: str, *, deadline: float | None = None) -> PublicKeyTypes:
        """The public key, as `cryptography` has it."""
        return load_der_public_key(self.public_key_info(name, deadline=deadline).der)

    def public_key_info(self, name: str, *, deadline: float | None = None) -> PublicKeyInfo:
        """The public key as DER, PEM and JWK, with the version it belongs to."""
        return self._call(messages.get_public_key(name), deadline)

    def attest_key(
        self, name: str, nonce: bytes, *, challenge: Challenge | None = None, deadline: float | None = None
    ) -> bytes:
        """Have it said where a version lives: the document that `hsmsign.attestation.verify` takes.

        `nonce` is the verifier's own, 8 to 64 bytes at random; so is the challenge, which only a TPM can open.
        """
        return self._call(messages.attest_key(name, nonce, challenge), deadline)

    def backends(self, *, deadline: float | None = None) -> tuple[BackendInfo, ...]:
        """The devices behind the daemon, and how they are."""
        return self._call(messages.list_backends(), deadline)[0]

    def daemon_version(self, *, deadline: float | None = None) -> str:
        """Version of the daemon."""
        return self._call(messages.list_backends(), deadline)[1]

    def health(self, service: str = "", *, deadline: float | None = None) -> Health:
        """How the daemon is, or one backend (`backends/NAME`), as `grpc.health.v1` tells it."""
        return self._call(messages.health(service), deadline)

    def audit_checkpoint(self, *, deadline: float | None = None) -> LogCheckpoint:
        """The newest checkpoint of the daemon's audit log."""
        return self._call(messages.get_checkpoint(), deadline)

    def audit_proof(self, id: str, *, deadline: float | None = None) -> bytes:
        """Proof (C2SP tlog-proof) that a record is in the audit log: by its index, its id, or its request's id."""
        return self._call(messages.prove_record(id), deadline)

    def audit_records(
        self, *, last: int = 0, follow: bool = False, deadline: float | None = None
    ) -> Iterator[tuple[int, bytes]]:
        """Index and record (JSON) of the `last` ones; with `follow`, of all that come, too. No deadline by default."""
        request = messages.tail_records(last, follow)
        for answer in self._receive(messages.TAIL, request, audit_pb2.TailRecordsResponse, deadline):
            yield answer.index, answer.record

"""The blocking client."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_public_key
from google.protobuf.message import Message

from hsmsign.client import configuration, messages, own_key, signatures, stream
from hsmsign.client.authorities import Authorities
from hsmsign.client.channel import open_channel
from hsmsign.client.configuration import Endpoint, TlsFiles
from hsmsign.client.failures import from_call
from hsmsign.client.messages import Call
from hsmsign.client.remote import RemoteSigner, remote_signer
from hsmsign.client.values import (
    AdoptedObject,
    ApprovalInfo,
    BackendInfo,
    Health,
    KeyInfo,
    LogCheckpoint,
    PublicKeyInfo,
    Signature,
    SignedBatch,
    Verdict,
    VersionInfo,
    VersionState,
)
from hsmsign.model.algorithms import InputKind, KeyAlgorithm, Scheme, SignatureFormat
from hsmsign.model.attestation import Challenge
from hsmsign.model.dual_control import DualControl
from hsmsign.model.errors import HsmsignError
from hsmsign.model.purpose import Purpose, PurposeKind
from hsmsign.v1 import audit_pb2, signing_pb2

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


class Client:
    """A connection to a daemon. Safe to use from many threads; make it after a fork, not before.

    Every method raises HsmsignError's subclasses. Names may be short: `web-1` means `keys/web-1`.
    `deadline` (seconds) is that of the client where a call names none.
    """

    def __init__(self, endpoint: Endpoint, *, deadline: float = 30.0) -> None:
        self.endpoint = endpoint
        self.deadline = deadline
        self._own_key = own_key.find(endpoint.tls.key if endpoint.tls else None)
        try:
            self._channel = open_channel(endpoint, self._own_key)
        except BaseException:
            self._let_go()
            raise
        self._methods: dict[str, Any] = {}
        self.ca = Authorities(self._call, self._receive)
        """Certificate authorities, and what they issue."""

    def close(self) -> None:
        """Let go of the connection; calls under way end with an error."""
        self._channel.close()
        self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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

    def sign(
        self,
        name: str,
        *,
        message: bytes | None = None,
        digest: bytes | None = None,
        scheme: Scheme | None = None,
        format: SignatureFormat = SignatureFormat.DER,
        deadline: float | None = None,
    ) -> Signature:
        """Sign a message, or a digest of it. `scheme` is wanted for RSA keys, which have several."""
        return self._call(signatures.sign(name, message, digest, scheme, format), deadline)

    def verify(
        self,
        name: str,
        signature: bytes,
        *,
        message: bytes | None = None,
        digest: bytes | None = None,
        scheme: Scheme | None = None,
        format: SignatureFormat = SignatureFormat.DER,
        deadline: float | None = None,
    ) -> Verdict:
        """Let the daemon check a signature; the answer is true where it is valid."""
        return self._call(signatures.verify(name, signature, message, digest, scheme, format), deadline)

    def sign_batch(
        self,
        name: str,
        inputs: Sequence[bytes],
        *,
        kind: InputKind = InputKind.DIGEST,
        scheme: Scheme | None = None,
        format: SignatureFormat = SignatureFormat.DER,
        on_progress: Progress | None = None,
        deadline: float | None = None,
    ) -> SignedBatch:
        """Sign many inputs with one key: a list with, for each, the signature or that item's HsmsignError.

        An error of the whole call is raised. Any number of inputs will do: they go out in calls that the
        daemon takes, a few at a time, `deadline` for each. All are signed by one version, also when the
        key is rotated meanwhile. `on_progress` is called with the number of inputs that are done.
        """
        full, pieces = messages.key_name(name), signatures.split(inputs)
        done = SignedBatch((), full, scheme)
        for piece in pieces:  # the first by itself: it says which version signs the rest
            done = self._call(signatures.sign_batch(signatures.group(full, piece, kind, scheme, format)), deadline)
            if on_progress:
                on_progress(len(done))
            break
        ahead: deque[tuple[Any, Call[SignedBatch]]] = deque()
        try:
            for piece in pieces:
                group = signatures.group(done.key_version, piece, kind, done.scheme, format)
                ahead.append(self._begin(signatures.sign_batch(group), deadline))
                if len(ahead) >= signatures.CALLS_AHEAD:
                    batch = self._finish(*ahead.popleft())
                    done.extend(batch)
                    if on_progress:
                        on_progress(len(done))
            while ahead:
                batch = self._finish(*ahead.popleft())
                done.extend(batch)
                if on_progress:
                    on_progress(len(done))
        finally:
            for future, _ in ahead:
                future.cancel()
        return done

    def sign_stream(
        self,
        name: str,
        inputs: Iterable[bytes],
        *,
        kind: InputKind = InputKind.DIGEST,
        scheme: Scheme | None = None,
        format: SignatureFormat = SignatureFormat.DER,
        group_size: int = 64,
        deadline: float | None = None,
    ) -> Iterator[bytes | HsmsignError]:
        """Sign what an iterator gives, over one stream: for each, in order, the signature or its error.

        `group_size` inputs are gathered before they are sent; 1 sends each at once. `inputs` is read from
        another thread. There is no deadline unless you give one: it is that of the whole stream. Each
        group is signed by the version that is primary then, unless you name one.
        """
        book = stream.StreamBook(name, kind, scheme, format)
        room, over, failure = threading.Semaphore(stream.GROUPS_AHEAD), threading.Event(), list[Exception]()
        take = stream.groups(inputs, group_size)

        def requests() -> Iterator[signing_pb2.SignStreamRequest]:
            try:
                while room.acquire() and not over.is_set() and (piece := take()):
                    yield book.request(piece)
            except Exception as error:  # noqa: BLE001 - the caller's iterator may raise anything; it is raised again there
                failure.append(error)

        call = self._stream()(requests(), timeout=deadline)
        try:
            for answer in call:
                room.release()
                for batch in book.answered(answer):
                    yield from batch
        except grpc.RpcError as error:
            raise self._failed(error) from None
        finally:
            over.set()
            room.release()
            call.cancel()
        book.ended(failure)

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

    def _receive(self, path: str, request: Message, response: type[Message], deadline: float | None) -> Iterator[Any]:
        """What a call with many answers gives. No deadline by default."""
        method: Any = self._channel.unary_stream(path, request.__class__.SerializeToString, response.FromString)
        call = method(request, timeout=deadline)
        try:
            yield from call
        except grpc.RpcError as error:
            raise self._failed(error) from None
        finally:
            call.cancel()

    def _failed(self, error: Any) -> HsmsignError:
        found = from_call(error, self.endpoint)
        return self._own_key.explain(found) if self._own_key else found

    def _let_go(self) -> None:
        if self._own_key is not None:
            self._own_key.close()

    def _method(self, call: Call[T]) -> Any:
        method = self._methods.get(call.path)
        if method is None:
            method = self._methods[call.path] = self._channel.unary_unary(
                call.path, call.request.__class__.SerializeToString, call.response.FromString
            )
        return method

    def _stream(self) -> Any:
        return self._channel.stream_stream(
            stream.PATH,
            signing_pb2.SignStreamRequest.SerializeToString,
            signing_pb2.SignStreamResponse.FromString,
        )

    def _timeout(self, deadline: float | None) -> float:
        return self.deadline if deadline is None else deadline

    def _call(self, call: Call[T], deadline: float | None) -> T:
        try:
            answer = self._method(call)(call.request, timeout=self._timeout(deadline))
        except grpc.RpcError as error:
            raise self._failed(error) from None
        return call.read(answer)

    def _begin(self, call: Call[T], deadline: float | None) -> tuple[Any, Call[T]]:
        return self._method(call).future(call.request, timeout=self._timeout(deadline)), call

    def _finish(self, future: Any, call: Call[T]) -> T:
        try:
            answer = future.result()
        except grpc.RpcError as error:
            raise self._failed(error) from None
        return call.read(answer)

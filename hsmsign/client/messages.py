"""Every call, once: the request's message and how its answer is read. Both kinds of client send these."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf import duration_pb2
from google.protobuf.message import Message

from hsmsign.client import answers, values
from hsmsign.model import attestation, names
from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.dual_control import DualControl
from hsmsign.model.errors import InvalidArgumentError
from hsmsign.model.purpose import Purpose, PurposeKind
from hsmsign.v1 import approvals_pb2, audit_pb2, backends_pb2, keys_pb2

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One unary call: where it goes, what is sent, how the answer is read."""

    path: str
    request: Message
    response: type[Message]
    read: Callable[[Any], T]


def key_name(text: str) -> str:
    """A key or version name of the caller, checked. Raises ResourceNameError."""
    return str(names.parse(names.expand(text)))


def create_key(
    name: str,
    algorithm: KeyAlgorithm | str | None,
    backend: str | None,
    labels: Mapping[str, str] | None,
    adopt: str | None,
    pcrs: str | None,
    purpose: Purpose | PurposeKind | str | None,
    dual_control: DualControl | None,
    request_id: str | None,
) -> Call[values.KeyInfo]:
    """CreateKey. Without a request id it gets one, so that the channel may repeat it."""
    if algorithm is None and adopt is None:
        raise InvalidArgumentError("a new key needs an algorithm", hint=f"one of: {_words()}")
    request = keys_pb2.CreateKeyRequest(
        key_id=names.parse_key(names.expand(name)).id,
        algorithm=algorithm_of(algorithm).number if algorithm is not None else 0,  # type: ignore[arg-type]
        backend=_bare(backend),
        labels=dict(labels or {}),
        request_id=request_id or str(uuid.uuid4()),
        adopt_uri=adopt or "",
        pcrs=pcrs or "",
        purpose=_purpose(purpose) if purpose is not None else None,
        dual_control=_control(dual_control) if dual_control is not None else None,
    )
    return Call("/hsmsign.v1.KeyService/CreateKey", request, keys_pb2.Key, answers.key_info)


def get_key(name: str) -> Call[values.KeyInfo]:
    """GetKey."""
    request = keys_pb2.GetKeyRequest(name=str(names.parse_key(names.expand(name))))
    return Call("/hsmsign.v1.KeyService/GetKey", request, keys_pb2.Key, answers.key_info)


def list_keys(
    labels: Mapping[str, str] | None, backend: str | None, page_size: int, page_token: str
) -> Call[tuple[list[values.KeyInfo], str]]:
    """One page of ListKeys, and the token of the next."""
    request = keys_pb2.ListKeysRequest(
        page_size=page_size, page_token=page_token, labels=dict(labels or {}), backend=_bare(backend)
    )
    return Call(
        "/hsmsign.v1.KeyService/ListKeys",
        request,
        keys_pb2.ListKeysResponse,
        lambda answer: ([answers.key_info(key) for key in answer.keys], answer.next_page_token),
    )


def update_key(
    name: str,
    etag: str | None,
    *,
    labels: Mapping[str, str] | None = None,
    primary: int | str | None = None,
    purpose: Purpose | PurposeKind | str | None = None,
    dual_control: DualControl | None = None,
) -> Call[values.KeyInfo]:
    """UpdateKey: all labels are replaced where `labels` is given."""
    key = names.parse_key(names.expand(name))
    request = keys_pb2.UpdateKeyRequest(key=keys_pb2.Key(name=str(key), etag=etag or ""))
    if labels is not None:
        request.key.labels.update(labels)
        request.update_mask.paths.append("labels")
    if primary is not None:
        wanted = str(key.version(primary)) if isinstance(primary, int) else key_name(primary)
        request.key.primary_version = wanted
        request.update_mask.paths.append("primary_version")
    if purpose is not None:
        request.key.purpose.CopyFrom(_purpose(purpose))
        request.update_mask.paths.append("purpose")
    if dual_control is not None:
        request.key.dual_control.CopyFrom(_control(dual_control))
        request.update_mask.paths.append("dual_control")
    return Call("/hsmsign.v1.KeyService/UpdateKey", request, keys_pb2.Key, answers.key_info)


def set_version_state(name: str, state: values.VersionState) -> Call[values.VersionInfo]:
    """UpdateKeyVersion."""
    parsed = names.parse(names.expand(name))
    if not isinstance(parsed, names.VersionName):
        raise InvalidArgumentError(f"{name!r} names a key where a version is wanted", hint=f"say {parsed}/versions/N")
    request = keys_pb2.UpdateKeyVersionRequest()
    request.key_version.name = str(parsed)
    request.key_version.state = state.value  # type: ignore[assignment]
    request.update_mask.paths.append("state")
    return Call("/hsmsign.v1.KeyService/UpdateKeyVersion", request, keys_pb2.KeyVersion, answers.version_info)


def rotate_key(name: str, request_id: str | None) -> Call[values.KeyInfo]:
    """RotateKey. Without a request id it gets one."""
    key = str(names.parse_key(names.expand(name)))
    request = keys_pb2.RotateKeyRequest(name=key, request_id=request_id or str(uuid.uuid4()))
    return Call("/hsmsign.v1.KeyService/RotateKey", request, keys_pb2.Key, answers.key_info)


def destroy_key(
    name: str, adopted: values.AdoptedObject | None, validate_only: bool, etag: str | None
) -> Call[values.KeyInfo]:
    """DestroyKey, of a key or of one version."""
    request = keys_pb2.DestroyKeyRequest(
        name=key_name(name),
        etag=etag or "",
        adopted_object=adopted.value if adopted else 0,  # type: ignore[arg-type]
        validate_only=validate_only,
    )
    return Call("/hsmsign.v1.KeyService/DestroyKey", request, keys_pb2.Key, answers.key_info)


def add_replica(name: str, backend: str, uri: str | None) -> Call[values.VersionInfo]:
    """AddReplica."""
    request = keys_pb2.AddReplicaRequest(name=key_name(name), backend=_bare(backend), object_uri=uri or "")
    return Call("/hsmsign.v1.KeyService/AddReplica", request, keys_pb2.KeyVersion, answers.version_info)


def remove_replica(name: str, backend: str) -> Call[values.VersionInfo]:
    """RemoveReplica."""
    request = keys_pb2.RemoveReplicaRequest(name=key_name(name), backend=_bare(backend))
    return Call("/hsmsign.v1.KeyService/RemoveReplica", request, keys_pb2.KeyVersion, answers.version_info)


def get_public_key(name: str) -> Call[values.PublicKeyInfo]:
    """GetPublicKey."""
    request = keys_pb2.GetPublicKeyRequest(name=key_name(name))
    return Call("/hsmsign.v1.KeyService/GetPublicKey", request, keys_pb2.PublicKey, answers.public_key)


def attest_key(name: str, nonce: bytes, challenge: attestation.Challenge | None) -> Call[bytes]:
    """AttestKey."""
    request = keys_pb2.AttestKeyRequest(name=key_name(name), nonce=nonce)
    if challenge is not None:
        request.credential_blob, request.encrypted_secret = challenge.credential, challenge.encrypted_secret
    return Call("/hsmsign.v1.KeyService/AttestKey", request, keys_pb2.KeyAttestation, _document)


def _document(answer: keys_pb2.KeyAttestation) -> bytes:
    return attestation.encode(
        attestation.Attestation(
            answer.statement,
            answer.tpm_attest,
            answer.tpm_signature,
            answer.tpm_key_public,
            answer.possession_signature,
        )
    )


def list_approvals(key: str | None, everything: bool, page_token: str) -> Call[tuple[list[values.ApprovalInfo], str]]:
    """One page of ListApprovals, and the token of the next."""
    name = str(names.parse_key(names.expand(key))) if key else ""
    return Call(
        "/hsmsign.v1.ApprovalService/ListApprovals",
        approvals_pb2.ListApprovalsRequest(key=name, show_all=everything, page_token=page_token),
        approvals_pb2.ListApprovalsResponse,
        lambda answer: ([answers.approval(one) for one in answer.approvals], answer.next_page_token),
    )


def get_approval(name: str) -> Call[values.ApprovalInfo]:
    """GetApproval."""
    request = approvals_pb2.GetApprovalRequest(name=approval_name(name))
    return Call("/hsmsign.v1.ApprovalService/GetApproval", request, approvals_pb2.Approval, answers.approval)


def decide_approval(name: str, *, grant: bool) -> Call[values.ApprovalInfo]:
    """GrantApproval or DenyApproval."""
    full = approval_name(name)
    if grant:
        given = approvals_pb2.GrantApprovalRequest(name=full)
        return Call("/hsmsign.v1.ApprovalService/GrantApproval", given, approvals_pb2.Approval, answers.approval)
    denied = approvals_pb2.DenyApprovalRequest(name=full)
    return Call("/hsmsign.v1.ApprovalService/DenyApproval", denied, approvals_pb2.Approval, answers.approval)


def approval_name(text: str) -> str:
    """`approvals/ID` for an ID, too."""
    return text if text.startswith("approvals/") else f"approvals/{text}"


def get_checkpoint() -> Call[values.LogCheckpoint]:
    """GetCheckpoint."""
    return Call(
        "/hsmsign.v1.AuditService/GetCheckpoint",
        audit_pb2.GetCheckpointRequest(),
        audit_pb2.GetCheckpointResponse,
        lambda answer: values.LogCheckpoint(answer.checkpoint, answer.verifier_key),
    )


def prove_record(id: str) -> Call[bytes]:
    """ProveRecord."""
    request = audit_pb2.ProveRecordRequest(id=id)
    return Call(
        "/hsmsign.v1.AuditService/ProveRecord", request, audit_pb2.ProveRecordResponse, lambda answer: answer.proof
    )


TAIL = "/hsmsign.v1.AuditService/TailRecords"


def tail_records(last: int, follow: bool) -> audit_pb2.TailRecordsRequest:
    """The `last` records; with `follow`, also those that come."""
    return audit_pb2.TailRecordsRequest(last=last, follow=follow)


def list_backends() -> Call[tuple[tuple[values.BackendInfo, ...], str]]:
    """ListBackends: the backends, and the daemon's version."""
    return Call(
        "/hsmsign.v1.BackendService/ListBackends",
        backends_pb2.ListBackendsRequest(),
        backends_pb2.ListBackendsResponse,
        lambda answer: (tuple(answers.backend(one) for one in answer.backends), answer.daemon_version),
    )


def health(service: str) -> Call[values.Health]:
    """grpc.health.v1: of the daemon (empty) or of `backends/NAME`."""
    from grpc_health.v1 import health_pb2  # wanted by few callers

    return Call(
        "/grpc.health.v1.Health/Check",
        health_pb2.HealthCheckRequest(service=service),
        health_pb2.HealthCheckResponse,
        lambda answer: values.Health(answer.status) if answer.status in (1, 2) else values.Health.UNKNOWN,
    )


def algorithm_of(word: KeyAlgorithm | str) -> KeyAlgorithm:
    """An algorithm from its word (`ecdsa-p256`). Raises InvalidArgumentError, naming those there are."""
    if isinstance(word, KeyAlgorithm):
        return word
    try:
        return KeyAlgorithm(word)
    except ValueError:
        raise InvalidArgumentError(f"{word!r} is not an algorithm", hint=f"one of: {_words()}") from None


def _purpose(given: Purpose | PurposeKind | str) -> keys_pb2.KeyPurpose:
    if isinstance(given, str):
        try:
            given = PurposeKind(given)
        except ValueError:
            words = ", ".join(kind.value for kind in PurposeKind if kind is not PurposeKind.AUDIT)
            raise InvalidArgumentError(f"{given!r} is no purpose", hint=f"one of: {words}") from None
    purpose = Purpose(given) if isinstance(given, PurposeKind) else given
    return keys_pb2.KeyPurpose(**purpose.check().fields())


def _control(given: DualControl) -> keys_pb2.DualControl:
    given.check()
    within = duration_pb2.Duration(seconds=given.within)
    return keys_pb2.DualControl(approvals=given.approvals, signing=given.signing, within=within)


def _words() -> str:
    return ", ".join(algorithm.value for algorithm in KeyAlgorithm)


def _bare(backend: str | None) -> str:
    return (backend or "").removeprefix("backends/")

"""What the daemon answers, as values: the one place that reads its messages."""

from __future__ import annotations

import datetime as dt
from typing import Any

from google.protobuf import timestamp_pb2
from google.protobuf.message import Message

from hsmsign.client import values
from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.device import DeviceFacts, Protection
from hsmsign.model.dual_control import ApprovalState, DualControl, Operation
from hsmsign.model.errors import HsmsignError
from hsmsign.model.purpose import Purpose
from hsmsign.v1 import approvals_pb2, backends_pb2, keys_pb2

_ALGORITHMS = dict(enumerate(KeyAlgorithm, start=1))
_OPERATIONS: dict[int, Operation] = {one.number: one for one in Operation}
_APPROVAL_STATES: dict[int, ApprovalState] = {one.number: one for one in ApprovalState}


def key_info(key: keys_pb2.Key) -> values.KeyInfo:
    """A key of the wire."""
    return values.KeyInfo(
        name=key.name,
        algorithm=_algorithm(key.algorithm),
        backend=key.backend,
        labels=dict(key.labels),
        created=time_of(key, "create_time"),
        updated=time_of(key, "update_time"),
        primary_version=key.primary_version,
        versions=tuple(version_info(version) for version in key.versions),
        etag=key.etag,
        purpose=_purpose_of(key.purpose),
        dual_control=_control_of(key.dual_control),
    )


def version_info(version: keys_pb2.KeyVersion) -> values.VersionInfo:
    """A key version of the wire."""
    return values.VersionInfo(
        name=version.name,
        state=_state(version.state),
        algorithm=_algorithm(version.algorithm),
        protection=_protection(version.protection_level),
        created=time_of(version, "create_time"),
        destroyed=time_of(version, "destroy_time"),
        public_key=version.public_key,
        pkcs11_uri=version.pkcs11_uri,
        facts=_facts(version.facts),
        adopted=version.adopted,
        replicas=tuple(_replica(one) for one in version.replicas),
    )


def public_key(key: keys_pb2.PublicKey) -> values.PublicKeyInfo:
    """The public part of a version."""
    return values.PublicKeyInfo(key.name, _algorithm(key.algorithm), key.der, key.pem, key.jwk)


def backend(one: backends_pb2.Backend) -> values.BackendInfo:
    """A token behind the daemon."""
    return values.BackendInfo(
        name=one.name,
        kind=one.kind,
        default=one.default,
        state=one.state,
        message=one.message,
        hint=one.hint,
        protection=_protection(one.protection_level),
        module_path=one.module_path,
        library=one.library,
        library_version=one.library_version,
        cryptoki_version=one.cryptoki_version,
        token_label=one.token_label,
        token_serial=one.token_serial,
        token_model=one.token_model,
        firmware_version=one.firmware_version,
        algorithms=tuple(_ALGORITHMS[number] for number in one.algorithms if number in _ALGORITHMS),
        sessions=one.sessions,
        in_flight=one.in_flight,
    )


def _purpose_of(message: keys_pb2.KeyPurpose) -> Purpose:
    try:
        return Purpose.of(message)
    except IndexError:
        raise HsmsignError(
            f"the daemon knows a purpose of keys that this client does not (number {message.kind})",
            hint="install the hsmsign version that the daemon has",
        ) from None


def _control_of(message: keys_pb2.DualControl) -> DualControl:
    if not message.approvals:
        return DualControl()
    return DualControl(message.approvals, message.signing, message.within.seconds)


def approval(one: approvals_pb2.Approval) -> values.ApprovalInfo:
    """A request for approvals."""
    if one.operation not in _OPERATIONS or one.state not in _APPROVAL_STATES:
        raise HsmsignError(
            f"the daemon knows something about {one.name} that this client does not",
            hint="install the hsmsign version that the daemon has",
        )
    decided = [values.ApprovalDecision(said.principal, said.granted, time_of(said, "time")) for said in one.decisions]
    return values.ApprovalInfo(
        name=one.name,
        key=one.key,
        operation=_OPERATIONS[one.operation],
        requester=one.requester,
        summary=one.summary,
        message=one.message,
        required=one.required,
        state=_APPROVAL_STATES[one.state],
        decisions=tuple(decided),
        created=time_of(one, "create_time"),
        expires=time_of(one, "expire_time"),
    )


def _algorithm(number: int) -> KeyAlgorithm:
    if number not in _ALGORITHMS:
        raise HsmsignError(
            f"the daemon knows an algorithm that this client does not (number {number})",
            hint="install the hsmsign version that the daemon has",
        )
    return _ALGORITHMS[number]


def _state(number: int) -> values.VersionState:
    if number not in (1, 2, 3):
        raise HsmsignError(
            f"the daemon knows a state of key versions that this client does not (number {number})",
            hint="install the hsmsign version that the daemon has",
        )
    return values.VersionState(number)


def _protection(number: int) -> Protection | None:
    return Protection(number) if number in (1, 2, 3) else None


def time_of(message: Message, name: str) -> dt.datetime | None:
    """A moment of the wire, or None where there is none."""
    if not message.HasField(name):
        return None
    stamp: timestamp_pb2.Timestamp = getattr(message, name)
    return stamp.ToDatetime(tzinfo=dt.UTC)


def _replica(one: keys_pb2.Replica) -> values.ReplicaInfo:
    return values.ReplicaInfo(one.backend, one.pkcs11_uri, _facts(one.facts), time_of(one, "create_time"))


def _facts(facts: keys_pb2.DeviceFacts) -> DeviceFacts:
    said: dict[str, Any] = {
        name: getattr(facts, name) if facts.HasField(name) else None
        for name in ("sensitive", "extractable", "local", "always_sensitive", "never_extractable")
    }
    return DeviceFacts(**said, unique_id=facts.unique_id, pcrs=facts.pcrs)

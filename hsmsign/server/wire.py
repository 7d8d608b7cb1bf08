"""Keys and backends on the wire, both ways."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from hsmsign.devices.base import Device
from hsmsign.keyring import Key, ResolvedKey
from hsmsign.keyring.values import version_name
from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.device import DeviceFacts, DeviceState
from hsmsign.model.dual_control import ApprovalState, DualControl
from hsmsign.model.errors import InvalidArgumentError
from hsmsign.model.purpose import Purpose, PurposeKind
from hsmsign.server import public
from hsmsign.server.numbers import ALGORITHM_NUMBERS, ALGORITHMS, PURPOSES, STATE_NUMBERS, read
from hsmsign.store import ApprovalRow, VersionRow
from hsmsign.v1 import approvals_pb2, backends_pb2, keys_pb2


def algorithm(number: int) -> KeyAlgorithm | None:
    """The algorithm that a request names, None where it names none."""
    return read(ALGORITHMS, number, "algorithm") if number else None


def backend_name(text: str) -> str:
    """`backends/NAME` or `NAME`, as `NAME`."""
    return text.removeprefix("backends/")


def purpose(message: keys_pb2.KeyPurpose) -> Purpose:
    """What a request says that a key is for. Raises InvalidArgumentError."""
    kind = read(PURPOSES, message.kind, "purpose.kind")
    if kind is PurposeKind.AUDIT:
        raise InvalidArgumentError(
            "a key for the audit log's checkpoints is made by the daemon alone", metadata={"field": "purpose.kind"}
        )
    return Purpose.of(message)


def dual_control(message: keys_pb2.DualControl) -> DualControl:
    """What a request says of approvals."""
    within = message.within.seconds if message.HasField("within") else DualControl().within
    return DualControl(message.approvals, message.signing, within)


def mask(paths: Sequence[str], allowed: frozenset[str]) -> frozenset[str]:
    """The fields that an update is about. Raises InvalidArgumentError for none and for others."""
    wanted = frozenset(paths)
    if not wanted or wanted - allowed:
        other = ", ".join(sorted(wanted - allowed))[:200]
        raise InvalidArgumentError(
            f"update_mask names {other}, which cannot be changed" if other else "update_mask is empty",
            hint=f"it may name: {', '.join(sorted(allowed))}",
            metadata={"field": "update_mask"},
        )
    return wanted


def key(value: Key) -> keys_pb2.Key:
    """A key with the versions that it has."""
    row = value.row
    return keys_pb2.Key(
        name=value.name,
        algorithm=ALGORITHM_NUMBERS[row.algorithm],  # type: ignore[arg-type]
        backend=row.backend,
        labels=row.labels,
        create_time=_time(row.created),
        update_time=_time(row.updated),
        primary_version=value.primary,
        versions=[key_version(one, row.algorithm) for one in value.versions],
        etag=value.etag,
        purpose=keys_pb2.KeyPurpose(**row.purpose.fields()),
        dual_control=_control(row.control),
    )


def approval(row: ApprovalRow, state: ApprovalState) -> approvals_pb2.Approval:
    """A request for approvals, in the state that it is in now."""
    return approvals_pb2.Approval(
        name=f"approvals/{row.id}",
        key=f"keys/{row.key}",
        operation=row.operation.number,  # type: ignore[arg-type]
        requester=row.requester,
        summary=row.summary,
        message=row.message,
        required=row.required,
        state=state.number,  # type: ignore[arg-type]
        decisions=[
            approvals_pb2.Approval.Decision(principal=one.principal, granted=one.granted, time=_time(one.at))
            for one in row.decisions
        ],
        create_time=_time(row.created),
        expire_time=_time(row.expires),
    )


def key_version(row: VersionRow, algorithm: KeyAlgorithm) -> keys_pb2.KeyVersion:
    """One version."""
    return keys_pb2.KeyVersion(
        name=version_name(row.key, row.number),
        state=STATE_NUMBERS[row.state],  # type: ignore[arg-type]
        protection_level=row.protection.value,  # type: ignore[arg-type]
        algorithm=ALGORITHM_NUMBERS[algorithm],  # type: ignore[arg-type]
        create_time=_time(row.created),
        destroy_time=None if row.destroyed is None else _time(row.destroyed),
        public_key=row.public_key or b"",
        pkcs11_uri=row.uri,
        facts=_facts(row.facts),
        adopted=row.adopted,
        replicas=[
            keys_pb2.Replica(
                backend=one.backend, pkcs11_uri=one.uri, facts=_facts(one.facts), create_time=_time(one.created)
            )
            for one in row.replicas
        ],
    )


def public_key(resolved: ResolvedKey) -> keys_pb2.PublicKey:
    """The public key in its three forms."""
    return keys_pb2.PublicKey(
        name=resolved.name,
        algorithm=ALGORITHM_NUMBERS[resolved.algorithm],  # type: ignore[arg-type]
        der=resolved.public_key,
        pem=public.pem(resolved.public_key),
        jwk=public.jwk(resolved.public_key),
    )


def backend(device: Device, *, default: bool) -> backends_pb2.Backend:
    """How a device is, and who it is if it was ever ready."""
    health, info = device.health(), device.info()
    message = backends_pb2.Backend(
        name=f"backends/{device.name}",
        kind=device.kind,
        default=default,
        state=health.state.value,
        message=health.message,
        hint=health.hint,
        in_flight=device.in_flight(),
    )
    if info is not None:
        message.MergeFrom(
            backends_pb2.Backend(
                protection_level=info.protection.value,  # type: ignore[arg-type]
                module_path=info.module_path,
                library=info.library,
                library_version=info.library_version,
                cryptoki_version=info.cryptoki_version,
                token_label=info.token_label,
                token_serial=info.token_serial,
                token_model=info.token_model,
                firmware_version=info.firmware_version,
                algorithms=[ALGORITHM_NUMBERS[one] for one in info.algorithms],  # type: ignore[misc]
                sessions=info.sessions,
            )
        )
    if health.state is not DeviceState.READY and health.ckr and not message.message:
        message.message = health.ckr
    return message


def _time(microseconds: int) -> Timestamp:
    return Timestamp(seconds=microseconds // 1_000_000, nanos=microseconds % 1_000_000 * 1000)


def _control(control: DualControl) -> keys_pb2.DualControl | None:
    if not control.approvals:
        return None
    within = Duration(seconds=control.within)
    return keys_pb2.DualControl(approvals=control.approvals, signing=control.signing, within=within)


def _facts(facts: DeviceFacts) -> keys_pb2.DeviceFacts:
    return keys_pb2.DeviceFacts(
        sensitive=facts.sensitive,
        extractable=facts.extractable,
        local=facts.local,
        always_sensitive=facts.always_sensitive,
        never_extractable=facts.never_extractable,
        unique_id=facts.unique_id,
        pcrs=facts.pcrs,
    )

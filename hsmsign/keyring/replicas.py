"""Further tokens that hold the key of a version: how they become known, and how not any more.

Nothing here copies a key: a vendor's means did that, or its tokens share their keys. What is entered was proved: the
token has a private key that signs so that the version's public key verifies it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives import serialization
from sqlalchemy import Connection

from hsmsign.devices.base import Device, Lookup
from hsmsign.keyring import approving
from hsmsign.keyring.adopting import must_be_free, same_token
from hsmsign.keyring.attesting import possession
from hsmsign.keyring.desk import Desk, holds, load, no_key, now
from hsmsign.keyring.making import ready
from hsmsign.keyring.values import Key, version_name
from hsmsign.model import object_uri
from hsmsign.model.algorithms import InputKind, KeyAlgorithm, SignatureFormat
from hsmsign.model.caller import NOBODY, Caller
from hsmsign.model.device import DeviceKey
from hsmsign.model.dual_control import ApprovalState, Operation
from hsmsign.model.errors import (
    DeviceError,
    DeviceUnavailableError,
    FailedPreconditionError,
    InvalidArgumentError,
    ObjectAmbiguousError,
    ObjectNotFoundError,
    VersionStateError,
)
from hsmsign.model.names import VersionName
from hsmsign.model.verification import is_good
from hsmsign.store import ApprovalRow, ReplicaRow, VersionRow, VersionState, queries
from hsmsign.store.rows import GONE

_PREFIX = b"hsmsign replica\x00"
"""Before what a replica signs to prove itself: it stands for nothing else."""
_PATIENCE = 10.0
"""Seconds for a token to be found to hold a key. The key's lock is held meanwhile."""


@dataclass(frozen=True, slots=True)
class Replica:
    """A version, and a token that holds its key, too."""

    version: VersionName
    backend: str
    uri: str = ""
    """Which object it is there; empty: the one with the same CKA_ID."""
    by: Caller = NOBODY
    """Who asks for it, where others have to approve it."""


async def add(desk: Desk, wanted: Replica) -> tuple[Key, VersionRow]:
    """Let a token sign for a version, too. What is entered already stays so: a repeat is no error.

    Raises ObjectNotFoundError, ObjectAmbiguousError, DeviceError where it is not the same key, KeyExistsError where
    the object has a name of its own, FailedPreconditionError for a token that protects keys otherwise, and
    DeviceUnavailableError for one that does not answer: it is not waited for.
    """
    key, row = await desk.store.read(lambda connection: _version(connection, wanted))
    if _known(key, row, wanted.backend):
        return key, row
    device = desk.device(wanted.backend)
    if (protection := ready(device, key.row.algorithm)) is not row.protection:
        raise FailedPreconditionError(
            f"backend {wanted.backend!r} keeps keys as {protection.name}, and {wanted.version} is said to be in"
            f" {row.protection.name}",
            hint="a replica must be protected as the key itself is",
        )
    if not device.answering():
        raise _away(device, "does not answer")
    try:
        async with asyncio.timeout(_PATIENCE):
            found = await _find(device, row, wanted)
            await _prove(device, found, key.row.algorithm, row)
    except TimeoutError as late:
        raise _away(device, f"did not show within {_PATIENCE:g} seconds that it holds {wanted.version}") from late
    changed = await desk.store.write(lambda connection: _enter(connection, wanted, found))
    desk.cache.forget(key.row.id)
    return changed


async def remove(desk: Desk, wanted: Replica) -> tuple[Key, VersionRow]:
    """Let a token no longer sign for a version; its object stays where it is. Raises InvalidArgumentError, and
    ApprovalRequiredError for a key under dual control: the object will not be destroyed with the version."""
    changed = await desk.store.write(lambda connection: _remove(connection, wanted))
    if isinstance(changed, ApprovalRow):
        raise approving.refusal(changed)
    desk.cache.forget(wanted.version.key.id)
    return changed


def _version(connection: Connection, wanted: Replica) -> tuple[Key, VersionRow]:
    key = load(connection, wanted.version.key.id)
    for row in key.versions:
        if row.number == wanted.version.number:
            return key, row
    raise no_key(str(wanted.version))


def _known(key: Key, row: VersionRow, backend: str) -> bool:
    """Whether the backend is a replica of the version already. Raises where it cannot become one."""
    if row.state in GONE:
        raise VersionStateError(f"{version_name(row.key, row.number)} is destroyed", hint="name another version")
    if backend == key.row.backend:
        raise InvalidArgumentError(
            f"{version_name(row.key, row.number)} was made on backend {backend!r} itself", hint="name another backend"
        )
    return any(one.backend == backend for one in row.replicas)


def _away(device: Device, what: str) -> DeviceUnavailableError:
    return DeviceUnavailableError(
        f"the device of backend {device.name!r} {what}",
        hint="look at it: hsmsign backend list; send the same request again when it is ready",
        metadata={"backend": device.name},
        retry_after=1.0,
    )


async def _find(device: Device, row: VersionRow, wanted: Replica) -> DeviceKey:
    text = wanted.uri or row.uri
    if not text:
        raise InvalidArgumentError(
            f"the device of {wanted.version} does not say which object it is",
            hint="say which it is on the other token: --uri pkcs11:…",
        )
    uri = object_uri.parse(text)
    label = uri.object
    if wanted.uri:
        same_token(uri, device)
    elif uri.id:
        label = None  # a copy has the same CKA_ID, but labels may be told by their tokens
    return _same(await device.find(Lookup(id=uri.id or None, label=label or None)), device, row, wanted)


def _same(found: Sequence[DeviceKey], device: Device, row: VersionRow, wanted: Replica) -> DeviceKey:
    same = [one for one in found if one.public_key == row.public_key]
    if len(same) > 1:
        raise ObjectAmbiguousError(
            f"{len(same)} key pairs on the token of backend {device.name!r} are that of {wanted.version}",
            hint="name one: --uri with id= and object=",
            metadata={"backend": device.name, "found": str(len(same))},
        )
    if not same:
        other = "; what fits is another key" if found else ""
        raise ObjectNotFoundError(
            f"the token of backend {device.name!r} does not hold the key of {wanted.version}{other}",
            hint="copy it with the means of the tokens' vendor (its public key object, too), or say where: --uri",
            metadata={"backend": device.name},
        )
    return same[0]


async def _prove(device: Device, found: DeviceKey, algorithm: KeyAlgorithm, row: VersionRow) -> None:
    """That the private key is there, too, and not only a public one that looks right."""
    message = _PREFIX + os.urandom(32)
    signature = await possession(device, found.locator, algorithm, message)
    public = serialization.load_der_public_key(row.public_key or b"")
    how = (algorithm.schemes[0], signature, message, InputKind.MESSAGE, SignatureFormat.DER)
    if not is_good(public, *how):
        raise DeviceError(
            f"the private key on backend {device.name!r} is not that of {version_name(row.key, row.number)}, though"
            " the public key beside it is",
            hint="copy the key again with the means of the tokens' vendor",
            metadata={"backend": device.name},
        )


def _enter(connection: Connection, wanted: Replica, found: DeviceKey) -> tuple[Key, VersionRow]:
    key, row = _version(connection, wanted)
    if _known(key, row, wanted.backend):
        return key, row
    must_be_free(connection, wanted.backend, found, str(wanted.version))
    at = now()
    held = holds(wanted.backend, found.public_key)
    queries.add_replica(
        connection,
        ReplicaRow(row.key, row.number, wanted.backend, found.locator, found.facts, found.uri, held, at),
    )
    queries.touch_key(connection, row.key, at)
    return _version(connection, wanted)


def _remove(connection: Connection, wanted: Replica) -> tuple[Key, VersionRow] | ApprovalRow:
    key, row = _version(connection, wanted)
    one = next((one for one in row.replicas if one.backend == wanted.backend), None)
    if one is None:
        has = ", ".join(one.backend for one in row.replicas) or "none"
        raise InvalidArgumentError(
            f"{wanted.version} has no replica on backend {wanted.backend!r}", hint=f"it has them on: {has}"
        )
    approval = ""
    if key.row.control.approvals:
        summary = f"take the replica of {wanted.version} on backend {wanted.backend} off, whose object stays there"
        what = ("replica", row.number, wanted.backend)
        asked = approving.Wanted(row.key, Operation.CHANGE, wanted.by, what, summary)
        spent = approving.spend(connection, key.row.control, asked, now())
        if spent.state is not ApprovalState.USED:
            return spent
        approval = approving.name_of(spent)
    queries.remove_replica(connection, one)
    at = now()
    if row.state is VersionState.DESTROYING and row.holds is None and len(row.replicas) == 1:
        # it was the last that the version waited for
        queries.save_version(connection, dataclasses.replace(row, state=VersionState.DESTROYED, destroyed=at))
    queries.touch_key(connection, row.key, at)
    key, row = _version(connection, wanted)
    return dataclasses.replace(key, approval=approval), row

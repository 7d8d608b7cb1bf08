"""Giving a name to a key pair that is on a device already."""

from __future__ import annotations

import dataclasses

from sqlalchemy import Connection

from hsmsign.devices.base import Device, Lookup
from hsmsign.keyring.desk import Desk, holds, load, now
from hsmsign.keyring.making import NewKey, Wanted, establish, exists, new_key, ready, repeated
from hsmsign.keyring.values import Key, version_name
from hsmsign.model import errors, object_uri
from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.device import DeviceInfo, DeviceKey, Protection
from hsmsign.model.dual_control import DualControl
from hsmsign.model.errors import (
    AlgorithmMismatchError,
    KeyExistsError,
    ObjectAmbiguousError,
    ObjectNotFoundError,
    UnavailableError,
)
from hsmsign.model.pkcs11_uri import ObjectUri
from hsmsign.model.purpose import Purpose
from hsmsign.store import VersionRow, VersionState, queries
from hsmsign.store.rows import GONE, RequestRow


@dataclasses.dataclass(frozen=True, slots=True)
class Adoption(Wanted):
    """A request to adopt what `uri` points to."""

    backend: str
    labels: dict[str, str]
    purpose: Purpose
    control: DualControl
    uri: str
    algorithm: KeyAlgorithm | None


async def adopt(desk: Desk, wanted: Adoption) -> Key:
    """Adopt. Raises UriError, ObjectNotFoundError, ObjectAmbiguousError, KeyExistsError."""
    uri = object_uri.parse(wanted.uri)
    if await desk.store.read(lambda connection: repeated(connection, wanted)) is not None:
        return await desk.store.read(lambda connection: load(connection, wanted.id))
    device = desk.device(wanted.backend)
    protection = ready(device, None)
    same_token(uri, device)
    found = await _one(device, uri)
    if wanted.algorithm is not None and wanted.algorithm is not found.algorithm:
        raise errors.rebuild(
            AlgorithmMismatchError.reason,
            f"the object is a key of algorithm {found.algorithm.value}, not {wanted.algorithm.value}",
            hint="leave the algorithm out; or is it another object that is meant?",
        )
    await desk.store.write(lambda connection: _enter(connection, wanted, protection, found))
    desk.cache.forget(wanted.id)
    return await desk.store.read(lambda connection: load(connection, wanted.id))


def same_token(uri: ObjectUri, device: Device) -> None:
    """Raise ObjectNotFoundError where the URI is about another token than this device."""
    info = device.info()
    for attribute, is_ in _token_attributes(info).items() if info is not None else ():
        said = getattr(uri, attribute)
        if said is not None and said.rstrip() != is_.rstrip():
            raise ObjectNotFoundError(
                f"the pkcs11: URI is about a token with another {attribute} than the one of backend {device.name!r},"
                f" which is {is_.rstrip()!r}",
                hint="name the backend of that token; see: hsmsign backend list",
                metadata={"backend": device.name, "attribute": attribute},
            )


def _token_attributes(info: DeviceInfo) -> dict[str, str]:
    return {
        "token": info.token_label,
        "manufacturer": info.token_manufacturer,
        "serial": info.token_serial,
        "model": info.token_model,
    }


async def _one(device: Device, uri: ObjectUri) -> DeviceKey:
    found = await device.find(Lookup(id=uri.id or None, label=uri.object or None))
    if not found:
        raise ObjectNotFoundError(
            f"no key pair on the device of backend {device.name!r} fits the URI",
            hint="look with: pkcs11-tool --list-objects --login (its public key must be there, too), or tpm2_getcap"
            " handles-persistent",
            metadata={"backend": device.name},
        )
    if len(found) > 1:
        raise ObjectAmbiguousError(
            f"{len(found)} key pairs on the token of backend {device.name!r} fit the pkcs11: URI",
            hint="give both id= and object=",
            metadata={"backend": device.name, "found": str(len(found))},
        )
    return found[0]


def must_be_free(connection: Connection, backend: str, found: DeviceKey, of: str = "") -> None:
    """Raise KeyExistsError where a version stands for this object already, or has it for a replica; or where it is a
    copy of a key that has, or had, a name (but `of`): under another name its purpose and approvals would not hold."""
    holder = queries.holder(connection, holds(backend, found.public_key))
    if holder is not None:
        name = version_name(holder.key, holder.number)
        raise KeyExistsError(
            f"the object has a name already: {name}", hint="use that one, or release it first", metadata={"name": name}
        )
    for row in queries.same_key(connection, found.public_key):
        name = version_name(row.key, row.number)
        if name != of and not _released(row):
            raise KeyExistsError(
                f"the object is a copy of {name}" + (", which was destroyed" if row.state in GONE else ""),
                hint=f"let its token sign for that name: hsmsign replica add {row.key} --backend {backend}",
                metadata={"name": name},
            )


def _released(row: VersionRow) -> bool:
    """Whether a name let its object go, for others to name."""
    return row.keep_object and row.state in GONE


def _enter(connection: Connection, wanted: Adoption, protection: Protection, found: DeviceKey) -> None:
    before = repeated(connection, wanted)
    if before is not None:
        if before.state is VersionState.CREATING:
            raise UnavailableError(f"keys/{wanted.id} is being made", retry_after=1.0)
        return
    must_be_free(connection, wanted.backend, found)
    if queries.key(connection, wanted.id) is not None:
        raise exists(wanted.id)
    at = now()
    asked = (wanted.id, wanted.request_id, wanted.fingerprint)
    key = NewKey(*asked, found.algorithm, wanted.backend, wanted.labels, wanted.purpose, wanted.control)
    queries.add_key(connection, new_key(key, at))
    row = VersionRow(wanted.id, 1, VersionState.ENABLED, protection, at, adopted=True)
    queries.add_version(connection, row)
    establish(connection, row, wanted.backend, found)
    if wanted.request_id:
        queries.add_request(connection, RequestRow(wanted.request_id, wanted.fingerprint, wanted.id, 1))

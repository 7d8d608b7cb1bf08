"""Making versions: a reservation in the store, a key pair on the device, then the version for all to see.

Whatever ends the process in between leaves a row that says CREATING and with which CKA_ID, so that the
rest can be taken away later, and the name is never given to two key pairs.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy import Connection

from hsmsign.devices.base import Device
from hsmsign.devices.health import refusal
from hsmsign.keyring.desk import Desk, established, holds, load, now
from hsmsign.keyring.values import Key, version_name
from hsmsign.model import locators
from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.device import DeviceKey, Protection
from hsmsign.model.dual_control import DualControl
from hsmsign.model.errors import (
    DeviceUnavailableError,
    FailedPreconditionError,
    HsmsignError,
    KeyExistsError,
    UnavailableError,
)
from hsmsign.model.purpose import Purpose
from hsmsign.store import KeyRow, VersionRow, VersionState, queries
from hsmsign.store.rows import GONE, RequestRow

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request that makes a version of the key `id`."""

    id: str
    request_id: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class NewKey(Wanted):
    """A request for a new key."""

    algorithm: KeyAlgorithm
    backend: str
    labels: dict[str, str]
    purpose: Purpose
    control: DualControl
    pcrs: str = ""


@dataclass(frozen=True, slots=True)
class Rest:
    """A version that was never finished, and stands in the way."""

    row: VersionRow


Reserve = Callable[[Connection], "VersionRow | Rest | None"]
"""Answers with the version to make, with what stands in the way, or with None: it is made already."""


async def create(desk: Desk, wanted: NewKey) -> Key:
    """Make a new key. Raises KeyExistsError and whatever the device and the store raise."""
    device = desk.device(wanted.backend)
    protection = ready(device, wanted.algorithm)
    shape = _Shape(wanted.algorithm, wanted.pcrs)
    return await _make(desk, device, wanted, shape, lambda c: _reserve_key(c, wanted, protection))


async def rotate(desk: Desk, wanted: Wanted) -> Key:
    """Make a new version of a key, which becomes the primary one. It is bound to the same registers as that."""
    key = await desk.store.read(lambda connection: established(connection, wanted.id))
    rows = await desk.store.read(lambda connection: queries.versions_of(connection, wanted.id))
    pcrs = next((row.facts.pcrs for row in rows if row.number == key.primary_version), "")
    device = desk.device(key.backend)
    protection = ready(device, key.algorithm)
    shape = _Shape(key.algorithm, pcrs)
    return await _make(desk, device, wanted, shape, lambda c: _reserve_version(c, wanted, protection))


def ready(device: Device, algorithm: KeyAlgorithm | None) -> Protection:
    """Where the device keeps keys. Raises CapabilityMissingError where it lacks the algorithm."""
    info = device.info()
    if info is None:
        health = device.health()
        raise refusal(device.name, health) or DeviceUnavailableError(
            f"backend {device.name!r} was not ready yet: {health.message or health.state.value}",
            hint=health.hint or "look at it: hsmsign backend list",
            metadata={"backend": device.name, "state": health.state.value},
            retry_after=1.0,
        )
    if algorithm is not None:
        info.must_make(algorithm, f"backend {device.name!r}", backend=device.name)
    return info.protection


def repeated(connection: Connection, wanted: Wanted) -> VersionRow | None:
    """The version that this very request made, or was making, before. Raises where the id was another's."""
    if not wanted.request_id:
        return None
    before = queries.request(connection, wanted.request_id)
    if before is None:
        return None
    if before.fingerprint != wanted.fingerprint:
        raise FailedPreconditionError(
            f"request_id {wanted.request_id} was used for another request",
            hint="a new request needs a new id; the same id repeats the same request",
        )
    return queries.version(connection, before.key, before.number)


def new_key(wanted: NewKey, at: int) -> KeyRow:
    """The row that takes the name; nobody sees it yet."""
    return KeyRow(
        wanted.id,
        wanted.algorithm,
        wanted.backend,
        wanted.labels,
        primary_version=None,
        created=at,
        updated=at,
        revision=1,
        established=False,
        purpose=wanted.purpose,
        control=wanted.control,
    )


def exists(id: str) -> KeyExistsError:
    """The error for a name that is taken."""
    return KeyExistsError(
        f"keys/{id} exists, or did: names are not given twice",
        hint="choose another name; or make a new version of it: hsmsign key rotate",
        metadata={"name": f"keys/{id}"},
    )


def _reserve_key(connection: Connection, wanted: NewKey, protection: Protection) -> VersionRow | Rest | None:
    before = repeated(connection, wanted)
    if before is not None:
        return Rest(before) if before.state is VersionState.CREATING else None
    there = queries.key(connection, wanted.id)
    if there is not None:
        rows = queries.versions_of(connection, wanted.id)
        if there.established or not rows:
            raise exists(wanted.id)
        return Rest(rows[0])
    at = now()
    queries.add_key(connection, new_key(wanted, at))
    return _reserve(connection, wanted, 1, protection, at)


def _reserve_version(connection: Connection, wanted: Wanted, protection: Protection) -> VersionRow | Rest | None:
    before = repeated(connection, wanted)
    if before is not None:
        return Rest(before) if before.state is VersionState.CREATING else None
    established(connection, wanted.id)
    rows = queries.versions_of(connection, wanted.id)
    if all(row.state in GONE for row in rows if row.state is not VersionState.CREATING):
        raise FailedPreconditionError(
            f"every version of keys/{wanted.id} is destroyed, and a destroyed key stays so",
            hint="create a key with another name",
        )
    return _reserve(connection, wanted, rows[-1].number + 1, protection, now())


def _reserve(connection: Connection, wanted: Wanted, number: int, protection: Protection, at: int) -> VersionRow:
    row = VersionRow(wanted.id, number, VersionState.CREATING, protection, at, object_id=os.urandom(16))
    queries.add_version(connection, row)
    if wanted.request_id:
        queries.add_request(connection, RequestRow(wanted.request_id, wanted.fingerprint, wanted.id, number))
    return row


@dataclass(frozen=True, slots=True)
class _Shape:
    """What the device is asked to make."""

    algorithm: KeyAlgorithm
    pcrs: str


async def _make(desk: Desk, device: Device, wanted: Wanted, shape: _Shape, reserve: Reserve) -> Key:
    row = await desk.store.write(reserve)
    if isinstance(row, Rest):
        await mend(desk, device, row.row)
        row = await desk.store.write(reserve)
        if isinstance(row, Rest):
            raise UnavailableError(f"keys/{wanted.id} is being made by another daemon", retry_after=1.0)
    if row is None:
        return await desk.store.read(lambda connection: load(connection, wanted.id))
    try:
        return await _fill(desk, device, row, shape)
    except Exception:
        await _undo(desk, device, row)
        raise


async def _fill(desk: Desk, device: Device, row: VersionRow, shape: _Shape) -> Key:
    name = version_name(row.key, row.number)
    made = await device.generate(shape.algorithm, row.object_id or b"", name, shape.pcrs)
    await desk.store.write(lambda connection: establish(connection, row, device.name, made))
    desk.cache.forget(row.key)
    return await desk.store.read(lambda connection: load(connection, row.key))


def establish(connection: Connection, row: VersionRow, backend: str, made: DeviceKey) -> None:
    """The version is there: let it be seen, and sign by default."""
    done = dataclasses.replace(
        row,
        state=VersionState.ENABLED,
        locator=made.locator,
        public_key=made.public_key,
        facts=made.facts,
        uri=made.uri,
        holds=holds(backend, made.public_key),
    )
    queries.save_version(connection, done)
    queries.touch_key(connection, row.key, now(), primary_version=row.number, established=True)


async def _undo(desk: Desk, device: Device, row: VersionRow) -> None:
    """Leave nothing behind; what cannot be taken away now is taken away when the device is back."""
    try:
        there = await desk.store.read(lambda connection: queries.version(connection, row.key, row.number))
        if there is not None and there.state is VersionState.CREATING:
            await mend(desk, device, there)
    except HsmsignError as error:
        name = version_name(row.key, row.number)
        _log.warning("making a key failed, its rest is taken away later", version=name, error=error.message)


async def mend(desk: Desk, device: Device, row: VersionRow) -> None:
    """Take away a version that was never finished: first what the device has of it, then its row."""
    if row.object_id:
        await device.destroy(locators.by_id(row.object_id))
    await desk.store.write(lambda connection: queries.remove_version(connection, row.key, row.number))

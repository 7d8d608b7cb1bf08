"""Destroying versions: first nobody signs with them any more, then the device lets go of them."""

from __future__ import annotations

import dataclasses

from sqlalchemy import Connection

from hsmsign.devices.base import Device
from hsmsign.keyring import approving
from hsmsign.keyring.checks import same_etag
from hsmsign.keyring.desk import Desk, load, no_key, now
from hsmsign.keyring.values import AdoptedObject, Key, version_name
from hsmsign.model.caller import Caller
from hsmsign.model.dual_control import ApprovalState, Operation
from hsmsign.model.errors import AdoptedKeyError, InvalidArgumentError
from hsmsign.store import ApprovalRow, VersionRow, VersionState, queries
from hsmsign.store.rows import GONE


@dataclasses.dataclass(frozen=True, slots=True)
class Doom:
    """A request to destroy a key (`number` is None) or one version."""

    id: str
    number: int | None
    etag: str
    adopted: AdoptedObject | None
    by: Caller


async def destroy(desk: Desk, doom: Doom, *, validate_only: bool) -> Key:
    """Destroy. What is destroyed already stays so, and what was begun is finished: a repeat is no error.

    Raises ApprovalRequiredError for a key under dual control, until it is approved."""
    if validate_only:
        return await desk.store.read(lambda connection: _plan(load(connection, doom.id), doom))
    planned = await desk.store.write(lambda connection: _begin(connection, doom))
    if isinstance(planned, ApprovalRow):
        raise approving.refusal(planned)
    desk.cache.forget(doom.id)
    unfinished = [row for row in planned.versions if row.state is VersionState.DESTROYING]
    for row in unfinished:
        if doom.number in (None, row.number):
            await finish(desk, desk.device(planned.row.backend), row)
    done = await desk.store.read(lambda connection: load(connection, doom.id))
    return dataclasses.replace(done, approval=planned.approval)


async def finish(desk: Desk, device: Device, row: VersionRow) -> None:
    """Let the device destroy the object (unless it stays), then say that it is done."""
    if row.locator and not row.keep_object:
        await device.destroy(row.locator)
    done = dataclasses.replace(row, state=VersionState.DESTROYED, locator=None, holds=None, destroyed=now())

    def end(connection: Connection) -> None:
        queries.save_version(connection, done)
        queries.touch_key(connection, row.key, now())

    await desk.store.write(end)


def _begin(connection: Connection, doom: Doom) -> Key | ApprovalRow:
    key = load(connection, doom.id)
    planned = _plan(key, doom)
    changed = [new for old, new in zip(key.versions, planned.versions, strict=True) if new is not old]
    if changed and key.row.control.approvals:
        approval = approving.spend(connection, key.row.control, _wanted(key, doom, changed), now())
        if approval.state is not ApprovalState.USED:
            return approval
        planned = dataclasses.replace(planned, approval=approving.name_of(approval))
    for row in changed:
        queries.save_version(connection, row)
    if changed:
        queries.touch_key(connection, doom.id, now(), primary_version=planned.row.primary_version)
    return planned


def _wanted(key: Key, doom: Doom, changed: list[VersionRow]) -> approving.Wanted:
    numbers = [row.number for row in changed]
    adopted = doom.adopted.name if doom.adopted else ""
    word = "release" if doom.adopted is AdoptedObject.RELEASE else "destroy"
    summary = f"{word} {', '.join(version_name(key.row.id, number) for number in numbers)}"
    return approving.Wanted(key.row.id, Operation.DESTROY, doom.by, (numbers, adopted), summary)


def _plan(key: Key, doom: Doom) -> Key:
    """The key as it will be. Raises where it may not be destroyed like that."""
    if doom.number is not None and all(row.number != doom.number for row in key.versions):
        raise no_key(version_name(doom.id, doom.number))
    same_etag(key.row, doom.etag)
    targets = [row for row in key.versions if doom.number in (None, row.number) and row.state not in GONE]
    _check_adopted(doom, targets)
    doomed = {row.number: _doomed(row, doom) for row in targets}
    versions = tuple(doomed.get(row.number, row) for row in key.versions)
    primary = key.row.primary_version
    if primary in doomed:
        primary = max((row.number for row in versions if row.state is VersionState.ENABLED), default=None)
    return Key(dataclasses.replace(key.row, primary_version=primary), versions)


def _doomed(row: VersionRow, doom: Doom) -> VersionRow:
    keep = row.adopted and doom.adopted is AdoptedObject.RELEASE
    return dataclasses.replace(row, state=VersionState.DESTROYING, keep_object=keep)


def _check_adopted(doom: Doom, targets: list[VersionRow]) -> None:
    adopted = [version_name(row.key, row.number) for row in targets if row.adopted]
    if adopted and doom.adopted is None:
        raise AdoptedKeyError(
            f"{adopted[0]} was on the device before it had a name here, and the request does not say what becomes of"
            " the object",
            hint="say RELEASE (the object stays) or DESTROY (it goes too)",
            metadata={"name": adopted[0]},
        )
    if targets and not adopted and doom.adopted is AdoptedObject.RELEASE:
        raise InvalidArgumentError(
            f"keys/{doom.id} was made here: there is no adopted object to release",
            hint="leave adopted_object out; that destroys the private key, for good",
        )

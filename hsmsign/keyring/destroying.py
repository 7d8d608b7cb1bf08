"""Destroying versions: first nobody signs with them any more, then the device lets go of them."""

from __future__ import annotations

import asyncio
import dataclasses
import functools

from sqlalchemy import Connection

from hsmsign.keyring import approving
from hsmsign.keyring.checks import same_etag
from hsmsign.keyring.desk import Desk, load, no_key, now
from hsmsign.keyring.values import AdoptedObject, Key, version_name
from hsmsign.model.caller import Caller
from hsmsign.model.dual_control import ApprovalState, Operation
from hsmsign.model.errors import AdoptedKeyError, DeviceUnavailableError, HsmsignError, InvalidArgumentError
from hsmsign.store import ApprovalRow, VersionRow, VersionState, queries
from hsmsign.store.rows import GONE

_PATIENCE = 5.0
"""Seconds for a device to let go of an object. The key's lock is held meanwhile, and one that is being brought back
may never be: mending does the rest when it is."""


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
            await finish(desk, planned.row.backend, row)
    done = await desk.store.read(lambda connection: load(connection, doom.id))
    return dataclasses.replace(done, approval=planned.approval)


async def finish(desk: Desk, home: str, row: VersionRow, only: str = "") -> bool:
    """Let each device, or `only` that one, destroy its object (unless it stays), and say so of the version when none
    is left: the answer. `home` is the backend on which it was made.

    One device that is away does not keep the others; its error is raised after they are done, and
    DeviceUnavailableError where it does not answer within `_PATIENCE`."""
    places = [*((one.backend, one.locator) for one in row.replicas), (home, row.locator)]
    chosen = [(backend, locator) for backend, locator in places if only in ("", backend)]
    objects = [None if row.keep_object else locator for _, locator in chosen]
    work = [_let_go(desk, backend, locator) for (backend, _), locator in zip(chosen, objects, strict=True)]
    outcomes = await asyncio.gather(*work, return_exceptions=True)
    errors = [outcome for outcome in outcomes if outcome is not None]
    done = False
    for (backend, _), outcome in zip(chosen, outcomes, strict=True):
        if outcome is not None:
            continue
        try:
            done = await desk.store.write(functools.partial(_gone, row=row, home=home, backend=backend))
        except HsmsignError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return done


async def _let_go(desk: Desk, backend: str, locator: bytes | None) -> None:
    """Have one device destroy its object, where there is one that is to go."""
    if not locator:
        return
    device = desk.device(backend)
    try:
        async with asyncio.timeout(_PATIENCE):
            await device.destroy(locator)
    except TimeoutError as late:
        raise DeviceUnavailableError(
            f"backend {backend!r} did not destroy its object within {_PATIENCE:g} seconds",
            hint="nothing signs with it any more, and it is destroyed when the device is ready again; to hear of that,"
            " send the same request again",
            metadata={"backend": backend},
            retry_after=1.0,
        ) from late


def _gone(connection: Connection, row: VersionRow, home: str, backend: str) -> bool:
    """This object is gone. True where it was the last."""
    there = queries.version(connection, row.key, row.number)
    if there is None or there.state is not VersionState.DESTROYING:
        return True  # another daemon was faster
    if backend == home:
        there = dataclasses.replace(there, locator=None, holds=None)
    for replica in there.replicas:
        if replica.backend == backend:
            queries.remove_replica(connection, replica)
    left = [one for one in there.replicas if one.backend != backend]
    done = there.holds is None and not left
    if done:
        there = dataclasses.replace(there, state=VersionState.DESTROYED, destroyed=now())
    queries.save_version(connection, there)
    queries.touch_key(connection, row.key, now())
    return done


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

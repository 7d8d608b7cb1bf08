"""Changes that only the store knows of: labels, the primary version, enabled or disabled."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlalchemy import Connection

from hsmsign.keyring.checks import same_etag
from hsmsign.keyring.desk import Desk, load, no_key, now
from hsmsign.keyring.values import Key, version_name
from hsmsign.model.errors import FailedPreconditionError, InvalidArgumentError, VersionStateError
from hsmsign.model.names import VersionName
from hsmsign.model.purpose import Purpose, PurposeKind
from hsmsign.store import VersionRow, VersionState, queries
from hsmsign.store.rows import GONE


@dataclass(frozen=True, slots=True)
class KeyChange:
    """What of a key is to become what; None: it stays."""

    id: str
    labels: dict[str, str] | None
    primary: int | None
    purpose: Purpose | None
    etag: str


async def change_key(desk: Desk, change: KeyChange) -> Key:
    """Change labels, primary version, purpose, or several. Raises EtagError, VersionStateError."""
    key = await desk.store.write(lambda connection: _change_key(connection, change))
    desk.cache.forget(change.id)
    return key


async def change_state(desk: Desk, name: VersionName, state: VersionState) -> tuple[Key, VersionRow]:
    """Enable or disable a version. Raises VersionStateError for one that is destroyed."""
    if state not in (VersionState.ENABLED, VersionState.DISABLED):
        raise InvalidArgumentError("a version's state can be set to ENABLED or DISABLED", hint="DestroyKey destroys")
    changed = await desk.store.write(lambda connection: _change_state(connection, name, state))
    desk.cache.forget(name.key.id)
    return changed


def _change_key(connection: Connection, change: KeyChange) -> Key:
    key = load(connection, change.id)
    same_etag(key.row, change.etag)
    changes: dict[str, object] = {}
    if change.labels is not None:
        changes["labels"] = change.labels
    if change.primary is not None:
        row = _one(key, change.primary)
        if row.state is not VersionState.ENABLED:
            raise VersionStateError(
                f"{version_name(row.key, row.number)} is not enabled and cannot be the primary version",
                hint="enable it first, or choose another",
            )
        changes["primary_version"] = change.primary
    if change.purpose is not None:
        if key.row.purpose.kind is PurposeKind.AUDIT:
            raise FailedPreconditionError(
                f"{key.name} signs the audit log's checkpoints, and nothing else ever", hint="make another key"
            )
        changes["purpose"] = change.purpose.plain()
    if changes:
        queries.touch_key(connection, change.id, now(), **changes)
    return load(connection, change.id)


def _change_state(connection: Connection, name: VersionName, state: VersionState) -> tuple[Key, VersionRow]:
    row = _one(load(connection, name.key.id), name.number)
    if row.state in GONE:
        raise VersionStateError(f"{name} is destroyed, and stays so", hint="make a new version: hsmsign key rotate")
    if row.state is not state:
        row = replace(row, state=state)
        queries.save_version(connection, row)
        queries.touch_key(connection, name.key.id, now())
    return load(connection, name.key.id), row


def _one(key: Key, number: int) -> VersionRow:
    for row in key.versions:
        if row.number == number:
            return row
    raise no_key(version_name(key.row.id, number))

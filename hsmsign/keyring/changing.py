"""Changes that only the store knows of: labels, the primary version, the purpose, dual control, enabled or disabled."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from hsmsign.keyring import approving
from hsmsign.keyring.checks import same_etag
from hsmsign.keyring.desk import Desk, load, no_key, now
from hsmsign.keyring.values import Key, version_name
from hsmsign.model.caller import Caller
from hsmsign.model.dual_control import ApprovalState, DualControl, Operation
from hsmsign.model.errors import FailedPreconditionError, InvalidArgumentError, VersionStateError
from hsmsign.model.names import VersionName
from hsmsign.model.purpose import Purpose, PurposeKind
from hsmsign.store import ApprovalRow, VersionRow, VersionState, queries
from hsmsign.store.rows import GONE


@dataclass(frozen=True, slots=True)
class KeyChange:
    """What of a key is to become what; None: it stays."""

    id: str
    labels: dict[str, str] | None
    primary: int | None
    purpose: Purpose | None
    control: DualControl | None
    etag: str
    by: Caller


async def change_key(desk: Desk, change: KeyChange) -> Key:
    """Change labels, primary version, purpose, dual control, or several. Raises EtagError, VersionStateError, and
    ApprovalRequiredError for the last two of a key under dual control, until they are approved."""
    key = await desk.store.write(lambda connection: _change_key(connection, change))
    if isinstance(key, ApprovalRow):
        raise approving.refusal(key)
    desk.cache.forget(change.id)
    return key


async def change_state(desk: Desk, name: VersionName, state: VersionState) -> tuple[Key, VersionRow]:
    """Enable or disable a version. Raises VersionStateError for one that is destroyed."""
    if state not in (VersionState.ENABLED, VersionState.DISABLED):
        raise InvalidArgumentError("a version's state can be set to ENABLED or DISABLED", hint="DestroyKey destroys")
    changed = await desk.store.write(lambda connection: _change_state(connection, name, state))
    desk.cache.forget(name.key.id)
    return changed


def _change_key(connection: Connection, change: KeyChange) -> Key | ApprovalRow:
    key = load(connection, change.id)
    same_etag(key.row, change.etag)
    changes = _changes(key, change)
    approval = ""
    if key.row.control.approvals and (wanted := _wanted(key, change)):
        row = approving.spend(connection, key.row.control, wanted, now())
        if row.state is not ApprovalState.USED:
            return row
        approval = approving.name_of(row)
    if changes:
        queries.touch_key(connection, change.id, now(), **changes)
    return replace(load(connection, change.id), approval=approval)


def _changes(key: Key, change: KeyChange) -> dict[str, object]:
    """The columns that change. Raises where they may not."""
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
    if change.control is not None:
        changes["control"] = change.control.plain()
    return changes


def _wanted(key: Key, change: KeyChange) -> approving.Wanted | None:
    """What others have to approve of it: not what stays as it is."""
    words, old = [], key.row
    if change.purpose not in (None, old.purpose):
        words.append(f"purpose {_text(old.purpose.plain())} -> {_text(change.purpose.plain())}")
    if change.control not in (None, old.control):
        words.append(f"dual control {_text(old.control.plain())} -> {_text(change.control.plain())}")
    if not words:
        return None
    summary = f"change {key.name}: {'; '.join(words)}"
    # labels and the primary version belong to what was approved, where they come with it
    what = (words, change.labels, change.primary)
    return approving.Wanted(old.id, Operation.CHANGE, change.by, what, summary)


def _text(plain: dict[str, object]) -> str:
    """ASCII: what is approved must not look like something else."""
    return json.dumps(plain, sort_keys=True)


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

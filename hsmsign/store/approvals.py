"""Statements about requests for approvals. Each takes a connection that is in a transaction."""

from __future__ import annotations

import dataclasses
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from hsmsign.model.dual_control import OPEN, ApprovalState, Operation
from hsmsign.store.rows import ApprovalRow, Decision
from hsmsign.store.tables import approvals

_WEIGHT = (ApprovalState.DENIED, ApprovalState.GRANTED, ApprovalState.PENDING)
_OPEN = tuple(state.value for state in OPEN)


def approval(connection: Connection, id: str) -> ApprovalRow | None:
    """One request."""
    row = connection.execute(select(approvals).where(approvals.c.id == id)).first()
    return None if row is None else _approval(row)


def same(connection: Connection, fingerprint: str, now: int) -> ApprovalRow | None:
    """One that asks for the very same, and is neither used nor expired: of several a denied one, else a granted one."""
    statement = (
        select(approvals)
        .where(
            approvals.c.fingerprint == fingerprint,
            approvals.c.expires > now,
            approvals.c.state != ApprovalState.USED.value,
        )
        .order_by(approvals.c.id)
    )
    found = [_approval(row) for row in connection.execute(statement)]
    return min(found, key=lambda row: _WEIGHT.index(row.state), default=None)


def page(connection: Connection, after: str, size: int, key: str, open_at: int | None) -> list[ApprovalRow]:
    """At most `size` requests with ids greater than `after`, the oldest first; about one `key` where it is said; only
    those that are open at that time where it is said."""
    statement = select(approvals).where(approvals.c.id > after)
    if key:
        statement = statement.where(approvals.c.key == key)
    if open_at is not None:
        statement = statement.where(approvals.c.expires > open_at, approvals.c.state.in_(_OPEN))
    return [_approval(row) for row in connection.execute(statement.order_by(approvals.c.id).limit(size))]


def open_of(connection: Connection, requester: str, now: int) -> int:
    """How many of a caller are open."""
    statement = select(func.count()).where(
        approvals.c.requester == requester, approvals.c.expires > now, approvals.c.state.in_(_OPEN)
    )
    return connection.execute(statement).scalar_one()


def add(connection: Connection, row: ApprovalRow) -> None:
    """A new request."""
    connection.execute(insert(approvals).values(_values(row)))


def save(connection: Connection, row: ApprovalRow) -> None:
    """Put the request as it now is."""
    connection.execute(update(approvals).where(approvals.c.id == row.id).values(_values(row)))


def forget(connection: Connection, before: int) -> None:
    """Take away what expired before that time: it stands in the audit log."""
    connection.execute(delete(approvals).where(approvals.c.expires < before))


def _values(row: ApprovalRow) -> dict[str, Any]:
    plain = {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    decisions = [dataclasses.asdict(one) for one in row.decisions]
    names = list(row.names)
    return {**plain, "names": names, "decisions": decisions, "operation": row.operation.value, "state": row.state.value}


def _approval(row: Row[Any]) -> ApprovalRow:
    values = dict(row._mapping)
    values["names"] = tuple(values["names"])
    values["operation"] = Operation(values["operation"])
    values["state"] = ApprovalState(values["state"])
    values["decisions"] = tuple(Decision(**{**one, "names": tuple(one["names"])}) for one in values["decisions"])
    return ApprovalRow(**values)

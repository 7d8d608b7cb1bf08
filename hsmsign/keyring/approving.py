"""Dual control: what waits for others, who said what of it, and that an approval is used once.

Each function runs in a transaction, so that an approval is used up together with what it was given for.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from hsmsign.keyring.checks import fingerprint
from hsmsign.model.caller import Caller
from hsmsign.model.dual_control import OPEN, ApprovalState, DualControl, Operation
from hsmsign.model.errors import (
    ApprovalDeniedError,
    ApprovalNotFoundError,
    ApprovalRequiredError,
    CallerLimitError,
    FailedPreconditionError,
    HsmsignError,
    OwnRequestError,
)
from hsmsign.store import ApprovalRow, approvals
from hsmsign.store.rows import Decision

OPEN_MAX = 100
"""Requests of one caller that may be open."""
MESSAGE_KEPT = 64 << 10
_SECOND = 1_000_000
_KEPT = 30 * 86_400 * _SECOND
"""After a request expired."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Something that others have to approve."""

    key: str
    """Its id."""
    operation: Operation
    by: Caller
    what: tuple[Any, ...]
    """Everything that is asked for, as JSON has it: an approval is for exactly that."""
    summary: str
    message: bytes = dataclasses.field(default=b"", repr=False)


def spend(connection: Connection, control: DualControl, wanted: Wanted, at: int) -> ApprovalRow:
    """Use up the approval for exactly that: the answer is USED. Where there is none, the request for it, which is made
    if it was not there yet; the transaction must then do nothing else. Raises CallerLimitError."""
    asked = fingerprint("approval", wanted.key, wanted.operation.value, wanted.by.name, control.plain(), wanted.what)
    found = approvals.same(connection, asked, at)
    if found is None:
        return _ask(connection, control, wanted, asked, at)
    if found.state is ApprovalState.GRANTED:
        found = dataclasses.replace(found, state=ApprovalState.USED)
        approvals.save(connection, found)
    return found


def give_back(connection: Connection, id: str) -> None:
    """What it was used for did not come about: it can be used again, as long as it is valid."""
    row = load(connection, id)
    if row.state is ApprovalState.USED:
        approvals.save(connection, dataclasses.replace(row, state=ApprovalState.GRANTED))


def decide(connection: Connection, id: str, by: Caller, at: int, *, grant: bool) -> ApprovalRow:
    """Grant or deny. The same said again is no error. Raises OwnRequestError, FailedPreconditionError for what nothing
    can come of any more."""
    row = load(connection, id)
    state = state_at(row, at)
    if state not in OPEN:
        raise FailedPreconditionError(f"{name_of(row)} is {state.value}: nothing can be said of it any more")
    if grant and any(one.principal == by.name and one.granted for one in row.decisions):
        return row
    if grant:
        _check_other(row, by)
    decisions = (*row.decisions, Decision(by.name, by.names, grant, at))
    enough = sum(one.granted for one in decisions) >= row.required
    said = ApprovalState.DENIED if not grant else ApprovalState.GRANTED if enough else ApprovalState.PENDING
    decided = dataclasses.replace(row, decisions=decisions, state=said)
    approvals.save(connection, decided)
    return decided


def load(connection: Connection, id: str) -> ApprovalRow:
    """One request. Raises ApprovalNotFoundError."""
    row = approvals.approval(connection, id)
    if row is None:
        raise ApprovalNotFoundError(f"there is no approvals/{id}", hint="see what waits: hsmsign approvals list")
    return row


def state_at(row: ApprovalRow, at: int) -> ApprovalState:
    """Its state, with the time in mind."""
    return ApprovalState.EXPIRED if row.state in OPEN and row.expires <= at else row.state


def name_of(row: ApprovalRow) -> str:
    """approvals/ID"""
    return f"approvals/{row.id}"


def refusal(row: ApprovalRow) -> HsmsignError:
    """The error for what is not approved."""
    metadata = {"approval": name_of(row), "operation": row.operation.value, "name": f"keys/{row.key}"}
    if row.state is ApprovalState.DENIED:
        said = next(one.principal for one in row.decisions if not one.granted)
        return ApprovalDeniedError(
            f"{said} said no to {row.summary}",
            hint=f"it can be asked for again when this request has expired: hsmsign approvals show {row.id}",
            metadata=metadata,
        )
    given = sum(one.granted for one in row.decisions)
    return ApprovalRequiredError(
        f"{row.summary}: {row.required} others must approve it, {given} did",
        hint=f"they say: hsmsign approvals grant {row.id}; then send the same again (--wait does)",
        metadata={**metadata, "required": str(row.required), "granted": str(given)},
    )


def _ask(connection: Connection, control: DualControl, wanted: Wanted, asked: str, at: int) -> ApprovalRow:
    approvals.forget(connection, at - _KEPT)
    if approvals.open_of(connection, wanted.by.name, at) >= OPEN_MAX:
        raise CallerLimitError(
            f"{wanted.by.name} has {OPEN_MAX} requests that wait for approvals, and may have no more",
            hint="have some granted, or withdraw them: hsmsign approvals deny",
            metadata={"principal": wanted.by.name},
            retry_after=60.0,
        )
    row = ApprovalRow(
        id=f"{at // _SECOND:08x}{os.urandom(4).hex()}",
        key=wanted.key,
        operation=wanted.operation,
        requester=wanted.by.name,
        names=wanted.by.names,
        fingerprint=asked,
        summary=wanted.summary,
        message=wanted.message if len(wanted.message) <= MESSAGE_KEPT else b"",
        required=control.approvals,
        state=ApprovalState.PENDING,
        decisions=(),
        created=at,
        expires=at + control.within * _SECOND,
    )
    approvals.add(connection, row)
    return row


def _check_other(row: ApprovalRow, by: Caller) -> None:
    """One who is known by the same key or name as another is no other; a group may have many members."""
    own = {name for name in by.names if not name.startswith("unix-group:")}
    if own & set(row.names):
        raise OwnRequestError(
            f"{by.name} asked for it, and cannot approve it as well", hint="somebody else has to look at it"
        )
    for one in row.decisions:
        if own & set(one.names):
            raise OwnRequestError(f"{by.name} is {one.principal}, who approved it already", hint="one more is wanted")

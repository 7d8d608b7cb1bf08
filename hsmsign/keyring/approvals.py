"""Requests for approvals, as those see them who decide."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from hsmsign.keyring import approving, paging
from hsmsign.keyring.desk import now
from hsmsign.model.caller import Caller
from hsmsign.model.dual_control import ApprovalState, DualControl
from hsmsign.model.errors import ResourceNameError
from hsmsign.store import ApprovalRow, Store, approvals

_NAME = re.compile(r"approvals/([0-9a-f]{16})")


class Approvals:
    """What waits, and what was said of it."""

    def __init__(self, store: Store, *, clock: Callable[[], int] = now) -> None:
        """`clock` tells the time in microseconds since 1970."""
        self._store = store
        self._clock = clock

    async def get(self, name: str) -> ApprovalRow:
        """One of them. Raises ApprovalNotFoundError, ResourceNameError."""
        id = _id(name)
        return await self._store.read(lambda connection: approving.load(connection, id))

    async def list(
        self, *, key: str = "", everything: bool = False, page_size: int = 0, page_token: str = ""
    ) -> tuple[list[ApprovalRow], str]:
        """A page of those that something can still come of, or of all; and the token of the next page."""
        size, filters = paging.size(page_size), {"key": key, "everything": str(everything)}
        after = paging.after(page_token, filters, "")
        at = None if everything else self._clock()
        rows = await self._store.read(
            lambda connection: approvals.page(connection, after, size + 1, key.removeprefix("keys/"), at)
        )
        return rows[:size], paging.token(rows[size - 1].id, filters, "") if len(rows) > size else ""

    async def decide(self, name: str, by: Caller, *, grant: bool) -> ApprovalRow:
        """Grant or deny."""
        return await self._store.write(partial(approving.decide, id=_id(name), by=by, at=self._clock(), grant=grant))

    async def spend(self, control: DualControl, wanted: approving.Wanted) -> str:
        """Use up the approval for exactly that; its name. Raises ApprovalRequiredError, ApprovalDeniedError."""
        at = self._clock()
        row = await self._store.write(lambda connection: approving.spend(connection, control, wanted, at))
        if row.state is not ApprovalState.USED:
            raise approving.refusal(row)
        return approving.name_of(row)

    async def give_back(self, name: str) -> None:
        """What it was used for did not come about."""
        await self._store.write(lambda connection: approving.give_back(connection, _id(name)))

    def state(self, row: ApprovalRow) -> ApprovalState:
        """Its state now."""
        return approving.state_at(row, self._clock())


def _id(name: str) -> str:
    found = _NAME.fullmatch(name)
    if found is None:
        raise ResourceNameError(f"{name[:80]!r} names no request for approvals", hint="say approvals/ID")
    return found[1]

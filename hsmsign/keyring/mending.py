"""Finishing, or undoing, what was under way when a process or a device went away."""

from __future__ import annotations

import structlog

from hsmsign.keyring import destroying, making
from hsmsign.keyring.desk import Desk
from hsmsign.keyring.values import version_name
from hsmsign.model.errors import HsmsignError, UnavailableError
from hsmsign.store import VersionRow, VersionState, queries

_log = structlog.get_logger(__name__)


async def recover(desk: Desk, backend: str) -> int:
    """Take away what was never finished, destroy what was to be destroyed. Answers with how many were.

    Raises UnavailableError where the device or the store is away again; what else goes wrong with one
    version is logged, and does not keep the others.
    """
    desk.device(backend)
    mended = 0
    for row in await desk.store.read(lambda connection: queries.unfinished(connection, backend)):
        try:
            mended += await _one(desk, backend, row)
        except UnavailableError:
            raise
        except HsmsignError as error:
            _log.error(
                "a version could not be mended",
                version=version_name(row.key, row.number),
                state=row.state.value,
                error=error.message,
                hint=error.hint,
            )
    return mended


async def _one(desk: Desk, backend: str, row: VersionRow) -> int:
    async with desk.locks.hold(row.key):
        there = await desk.store.read(lambda connection: queries.version(connection, row.key, row.number))
        key = await desk.store.read(lambda connection: queries.key(connection, row.key))
        if there is None or key is None or there.state is not row.state:
            return 0  # its own request, for which the lock was waited, has finished it
        if there.state is VersionState.CREATING:
            await making.mend(desk, desk.device(backend), there)
        else:
            done = await destroying.finish(desk, key.backend, there, only=backend)
            if not done:
                return 0  # another token still has it
        desk.cache.forget(row.key)
    name = version_name(row.key, row.number)
    _log.info("mended a version", version=name, was=row.state.value, backend=backend)
    return 1

"""What all parts of the keyring work with."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection

from hsmsign.devices.base import Device
from hsmsign.keyring.cache import ResolvedCache
from hsmsign.keyring.locks import KeyLocks
from hsmsign.keyring.values import Key
from hsmsign.model.errors import BackendNotFoundError, KeyNotFoundError
from hsmsign.store import KeyRow, Store, VersionRow, VersionState, queries

T = TypeVar("T")


@dataclass(slots=True)
class Desk:
    """The store, the devices, and what is under way in this process."""

    store: Store
    devices: Mapping[str, Device]
    cache: ResolvedCache = field(default_factory=ResolvedCache)
    locks: KeyLocks = field(default_factory=KeyLocks)
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def device(self, name: str) -> Device:
        """The device of a backend. Raises BackendNotFoundError."""
        device = self.devices.get(name)
        if device is None:
            raise BackendNotFoundError(
                f"this daemon has no backend {name[:80]!r}", hint=f"it has: {', '.join(sorted(self.devices)) or 'none'}"
            )
        return device

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work` to its end, also where the caller goes away meanwhile: half a change helps nobody."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled():
            task.exception()  # where the caller has gone nobody else asks, and asyncio would complain


def now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


def holds(backend: str, public_key: bytes) -> str:
    """The name of an object for `VersionRow.holds`: there is one key pair for one public key."""
    return f"{backend}/{hashlib.sha256(public_key).hexdigest()}"


def no_key(name: str) -> KeyNotFoundError:
    """The error for a name that stands for nothing."""
    return KeyNotFoundError(f"{name!r} does not exist on this daemon", hint="see what does: hsmsign key list")


def established(connection: Connection, id: str) -> KeyRow:
    """The row of a key that others may see. Raises KeyNotFoundError."""
    row = queries.key(connection, id)
    if row is None or not row.established:
        raise no_key(f"keys/{id}")
    return row


def seen(rows: list[VersionRow]) -> tuple[VersionRow, ...]:
    """The versions that others may see."""
    return tuple(row for row in rows if row.state is not VersionState.CREATING)


def load(connection: Connection, id: str) -> Key:
    """A key with its versions, as others may see it. Raises KeyNotFoundError."""
    return Key(established(connection, id), seen(queries.versions_of(connection, id)))

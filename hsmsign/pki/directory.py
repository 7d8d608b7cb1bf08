"""Which authorities there are. Kept in memory for a moment: another daemon may change them. What another worker changes
is known at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from sqlalchemy import Connection

from hsmsign.ledger import Bell, Ledger
from hsmsign.model.ca_names import AuthorityName
from hsmsign.model.errors import AuthorityNotFoundError
from hsmsign.pki.authority import Authority, Version
from hsmsign.store import Store, authorities
from hsmsign.store.pki_rows import AuthorityVersionRow

_FRESH = 1.0
"""Seconds for which what was read holds."""


class Directory:
    """The authorities of a store. Belongs to one event loop."""

    def __init__(self, store: Store, ledger: Ledger | None = None) -> None:
        self._store = store
        self._ledger = ledger or Ledger.alone()
        self._known: Mapping[str, Authority] = {}
        self._read_at = -_FRESH
        self._seen = -1
        self._reading: asyncio.Task[None] | None = None

    def changed(self) -> None:
        """Forget what was read, and have others forget."""
        self._ledger.ring(Bell.AUTHORITIES)

    async def everything(self) -> Mapping[str, Authority]:
        """All of them, by their ids."""
        changed = self._seen != self._ledger.rung(Bell.AUTHORITIES)
        if changed or time.monotonic() - self._read_at >= _FRESH:
            if self._reading is None:
                self._reading = asyncio.get_running_loop().create_task(self._read_anew())
            await asyncio.shield(self._reading)
        return self._known

    async def _read_anew(self) -> None:
        """Once for all who ask meanwhile; what changes while it is read is read again."""
        try:
            while True:
                changes, started = self._ledger.rung(Bell.AUTHORITIES), time.monotonic()
                self._known = await self._store.read(self._read)
                if changes == self._ledger.rung(Bell.AUTHORITIES):
                    break
            self._read_at, self._seen = started, changes
        finally:
            self._reading = None

    async def authority(self, id: str) -> Authority:
        """One of them. Raises AuthorityNotFoundError."""
        found = (await self.everything()).get(id)
        if found is None:
            raise AuthorityNotFoundError(
                f"there is no authority cas/{id} on this daemon", hint="see which there are: hsmsign ca list"
            )
        return found

    async def version(self, name: AuthorityName) -> Version:
        """A version; of an authority's name, the one that issues. Raises AuthorityNotFoundError,
        AuthorityStateError."""
        authority = await self.authority(name.id)
        if name.number is None:
            return authority.primary
        found = next((one for one in authority.versions if one.row.number == name.number), None)
        if found is None:
            raise AuthorityNotFoundError(f"{authority.name} has no version {name.number}")
        return found

    async def versions(self) -> list[Version]:
        """All versions of all of them that have a certificate."""
        found = [version for authority in (await self.everything()).values() for version in authority.versions]
        return [version for version in found if version.maybe_certificate is not None]

    def _read(self, connection: Connection) -> Mapping[str, Authority]:
        known = {(one.row.authority, one.row.number): one for one in self.known()}
        return {
            row.id: Authority(row, tuple(self._same(known, version) for version in versions))
            for row, versions in authorities.everything(connection)
        }

    def known(self) -> list[Version]:
        """All versions as they were read last."""
        return [version for authority in self._known.values() for version in authority.versions]

    @staticmethod
    def _same(known: Mapping[tuple[str, int], Version], row: AuthorityVersionRow) -> Version:
        """The one that is there already, with what was read of it, where nothing changed."""
        before = known.get((row.authority, row.number))
        return before if before is not None and before.row == row else Version(row)

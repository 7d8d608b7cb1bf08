"""CRLs on a schedule, after revocations, and early enough to survive an outage."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import structlog

from hsmsign.model.errors import ApprovalRequiredError, HsmsignError
from hsmsign.pki.authority import Version
from hsmsign.pki.crl_writing import CrlWriter, Kind, Unsigned
from hsmsign.pki.directory import Directory
from hsmsign.pki.settings import CrlTimes
from hsmsign.store import Store, authorities, certificates, crls
from hsmsign.store.pki_rows import CertificateRow, CrlRow

_LOOK_EVERY = 30.0
_TIDY_EVERY = 3600.0
_CLAIM = 900
"""Seconds for which one daemon makes the CRLs of a version, unless it is done before."""
_READ = 4
"""Numbers of CRLs that are kept behind the newest: somebody may be reading them."""
_PATIENCE = 60.0
"""Seconds until something that went wrong is tried again."""
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Due:
    """What is known of one kind of CRL of one version."""

    revoked: bool = False
    """Something was revoked since it was made."""
    not_before: float = 0.0
    """`time.monotonic()`: not again before."""
    waits: Unsigned | None = None
    """It waits for approvals."""
    said: str = ""


class Publisher:
    """Makes the CRLs of all authorities. Belongs to one event loop."""

    def __init__(self, store: Store, directory: Directory, writer: CrlWriter, times: CrlTimes) -> None:
        self._store = store
        self._directory = directory
        self._writer = writer
        self._times = times
        self._due: dict[tuple[str, int, Kind], _Due] = {}
        self._wake = asyncio.Event()
        self._tidied = -_TIDY_EVERY
        self.next_updates: dict[str, int] = {}
        """When the first of its CRLs ends (seconds since 1970), by the version's name."""

    def revoked(self, row: CertificateRow) -> None:
        """A certificate was revoked: its CRL is made soon."""
        self._of(row.authority, row.version, Kind(row.shard, self._deltas)).revoked = True
        self._wake.set()

    def wake(self) -> None:
        """Something may be due: look at once."""
        self._wake.set()

    async def run(self) -> None:
        """Look what is due, for ever."""
        while True:
            soonest = await self.look()
            try:
                await asyncio.wait_for(self._wake.wait(), soonest)
            except TimeoutError:
                continue
            self._wake.clear()

    async def look(self) -> float:
        """Make what is due; in how many seconds to look again. What stands in the way is logged, once."""
        soonest = _LOOK_EVERY
        try:
            versions = await self._directory.versions()
        except HsmsignError as error:
            _log.warning("CRLs cannot be looked at", error=error.message)
            return _PATIENCE
        await self._tidy()
        for version in versions:
            if version.certificate.not_valid_after_utc.timestamp() > time.time():
                soonest = min(soonest, await self._look_at(version))
        return soonest

    async def _tidy(self) -> None:
        """Now and then, what nobody needs any more goes."""
        if self._tidied + _TIDY_EVERY > time.monotonic():
            return
        self._tidied = time.monotonic()
        now = int(time.time())
        try:
            await self._store.write(lambda connection: certificates.tidy(connection, now), crossed=8)
        except HsmsignError as error:
            _log.warning("the store cannot be tidied", error=error.message)

    async def publish(self, version: Version) -> list[CrlRow]:
        """Make all CRLs of a version now. Raises what making one raises."""
        made = [await self._make(version, Kind(shard)) for shard in range(version.row.shards)]
        if self._deltas:
            made += [await self._make(version, Kind(shard, True)) for shard in range(version.row.shards)]
        return made

    @property
    def _deltas(self) -> bool:
        return self._times.delta_every > 0

    def _of(self, authority: str, number: int, kind: Kind) -> _Due:
        return self._due.setdefault((authority, number, kind), _Due())

    async def _look_at(self, version: Version) -> float:
        row, soonest = version.row, _LOOK_EVERY
        there = {
            Kind(one.shard, one.delta): one
            for one in await self._store.read(lambda c: crls.crls_of(c, row.authority, row.number))
        }
        if there:
            self.next_updates[version.name] = min(one.next_update for one in there.values())
        for delta in (False, True) if self._deltas else (False,):
            for shard in range(row.shards):
                kind = Kind(shard, delta)
                due = self._of(row.authority, row.number, kind)
                left = self._left(due, there.get(kind), self._times.delta_every if delta else self._times.every)
                if left <= 0:
                    await self._try(version, kind, due)
                else:
                    soonest = min(soonest, left)
        return soonest

    def _left(self, due: _Due, newest: CrlRow | None, every: float) -> float:
        """Seconds until it is to be made."""
        wait = due.not_before - time.monotonic()
        if newest is None or due.revoked or due.waits is not None:
            return wait
        age = time.time() - newest.this_update
        # a lifetime that is shorter than the schedule, or a clock that was wrong
        early = newest.next_update - (newest.next_update - newest.this_update) / 2 - time.time()
        return max(wait, min(every - age, early))

    async def _try(self, version: Version, kind: Kind, due: _Due) -> None:
        row, now = version.row, int(time.time())
        started = time.monotonic()
        due.not_before = started + _PATIENCE
        try:
            claim = await self._store.write(
                lambda c: authorities.claim_crls(c, row.authority, row.number, now, now + _CLAIM), crossed=8
            )
            if not claim:
                due.not_before = started + 5.0
                return
            try:
                due.revoked = False
                await self._make(version, kind)
            finally:
                await self._store.write(lambda c: authorities.release_crls(c, row.authority, row.number), crossed=8)
        except HsmsignError as error:
            due.revoked = True
            if error.message != due.said:
                _log.warning("a CRL was not made", authority=version.name, error=error.message, hint=error.hint)
            due.said = error.message
            return
        due.said = ""
        # a large one takes its time: not more than a part of it goes into CRLs
        due.not_before = time.monotonic() + max(self._times.settle, 10 * (time.monotonic() - started))

    async def _make(self, version: Version, kind: Kind) -> CrlRow:
        row = version.row
        due = self._of(row.authority, row.number, kind)
        lifetime = self._times.lifetime
        if kind.delta:
            lifetime = min(lifetime, 4 * self._times.delta_every)
        if due.waits is not None and due.waits.facts.next_update.timestamp() - time.time() < lifetime / 2:
            await self._writer.drop(due.waits)
            due.waits = None  # nobody approved it in time
        made = due.waits or await self._writer.gather(version, kind, lifetime, deltas=self._deltas)
        try:
            done = await self._writer.finish(made)
        except ApprovalRequiredError:
            due.waits = made  # the same bytes: another CRL would be another request
            raise
        except BaseException:
            due.waits = None
            await self._writer.drop(made)
            raise
        due.waits = None
        kept = min([done.number, *self._waiting(row.authority, row.number)]) - _READ
        await self._store.write(lambda c: crls.clean(c, row.authority, row.number, kept), crossed=8)
        _log.info("a CRL was made", authority=version.name, number=done.number, bytes=done.size, delta=kind.delta)
        return done

    def _waiting(self, authority: str, number: int) -> list[int]:
        """The numbers of those of a version that wait for approvals."""
        return [
            due.waits.facts.number
            for (id, version, _), due in self._due.items()
            if (id, version) == (authority, number) and due.waits is not None
        ]

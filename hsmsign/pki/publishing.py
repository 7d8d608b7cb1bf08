"""CRLs on a schedule, after revocations, and early enough to survive an outage.

What is due is read from the store, not remembered: who revoked, and which daemon lived then, makes no difference.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import structlog

from hsmsign.model.errors import (
    ApprovalRequiredError,
    DeviceError,
    HsmsignError,
    ResourceExhaustedError,
    UnavailableError,
)
from hsmsign.pki.authority import Version
from hsmsign.pki.crl_writing import CrlWriter, Kind, Unsigned
from hsmsign.pki.directory import Directory
from hsmsign.pki.settings import CrlTimes
from hsmsign.store import Store, authorities, certificates, crls
from hsmsign.store.certificates import Change
from hsmsign.store.pki_rows import CrlRow

T = TypeVar("T")
_LOOK_EVERY = 30.0
_TIDY_EVERY = 3600.0
_CLAIM = 900
"""Seconds for which one daemon makes the CRLs of a version, unless it is done before."""
_READ = 300
"""Seconds for which a CRL that is no longer the newest is kept: somebody may be reading it."""
_TURN = 120.0
"""Seconds for which whoever wants CRLs now waits for others who make them."""
_PATIENCE = 60.0
"""Seconds until something that went wrong is tried again."""
_CROSSED = 30
"""Seconds: what was revoked so shortly before a CRL was made may not be in it."""
_CHANGES_MAX = 10_000
_PASSING = (UnavailableError, ResourceExhaustedError, DeviceError)
"""What another try may not meet."""
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Due:
    """What is known of one kind of CRL of one version."""

    not_before: float = 0.0
    """`time.monotonic()`: not again before."""
    waits: Unsigned | None = None
    """It waits for approvals."""
    gathered: frozenset[Change] = frozenset()
    """What had changed shortly before entries were gathered, and is therefore among them."""
    covered: frozenset[Change] = frozenset()
    """The same of the one that was published."""


class Publisher:
    """Makes the CRLs of all authorities. Belongs to one event loop."""

    def __init__(self, store: Store, directory: Directory, writer: CrlWriter, times: CrlTimes) -> None:
        self._store = store
        self._directory = directory
        self._writer = writer
        self._times = times
        self._due: dict[tuple[str, Kind], _Due] = {}
        self._wake = asyncio.Event()
        self._tidied = -_TIDY_EVERY
        self._said: dict[str, str] = {}
        self.next_updates: dict[str, int] = {}
        """When the first of its CRLs ends (seconds since 1970), by the version's name."""

    def wake(self) -> None:
        """Something may be due: look at once."""
        self._wake.set()

    async def run(self) -> None:
        """Look what is due, for ever."""
        while True:
            soonest = await self.look()
            try:
                await asyncio.wait_for(self._wake.wait(), max(0.05, soonest))
            except TimeoutError:
                continue
            self._wake.clear()

    async def look(self) -> float:
        """Make what is due; in how many seconds to look again. What stands in the way is logged, once."""
        soonest = _LOOK_EVERY
        await self._guarded("the store", self._tidy)
        versions = await self._guarded("the authorities", self._directory.versions)
        for version in versions or ():
            if version.certificate.not_valid_after_utc.timestamp() > time.time():
                left = await self._guarded(version.name, lambda one=version: self._look_at(one))  # type: ignore[misc]
                soonest = min(soonest, _PATIENCE if left is None else left)
        return soonest

    async def publish(self, version: Version) -> list[CrlRow]:
        """Make all CRLs of a version now, when those that are being made are done. Raises what making one raises, and
        UnavailableError where others take too long."""
        end = time.monotonic() + _TURN
        while not await self._claim(version):
            if time.monotonic() > end:
                raise UnavailableError(
                    f"the CRLs of {version.name} are being made already", hint="try again in a moment", retry_after=2.0
                )
            await asyncio.sleep(0.1)
        try:
            return [await self._make(version, kind) for kind in self._kinds(version)]
        finally:
            await self._release(version)

    # ---- the steps ----

    async def _guarded(self, what: str, work: Callable[[], Awaitable[T]]) -> T | None:
        """What goes wrong with one authority ends nothing for the others, nor for good."""
        try:
            answer = await work()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next look comes
            said = error.message if isinstance(error, HsmsignError) else repr(error)
            if self._said.get(what) != said:
                hint = error.hint if isinstance(error, HsmsignError) else ""
                _log.warning("CRLs are not made", of=what, error=said, hint=hint)
            self._said[what] = said
            return None
        self._said.pop(what, None)
        return answer

    async def _tidy(self) -> None:
        """Now and then, what nobody needs any more goes."""
        if self._tidied + _TIDY_EVERY > time.monotonic():
            return
        self._tidied = time.monotonic()
        now = int(time.time())
        await self._store.write(lambda connection: certificates.tidy(connection, now), crossed=8)

    def _kinds(self, version: Version) -> list[Kind]:
        """The full ones first: deltas add to them."""
        which = (False, True) if self._times.delta_every > 0 else (False,)
        return [Kind(shard, delta) for delta in which for shard in range(version.row.shards)]

    async def _look_at(self, version: Version) -> float:
        row, soonest = version.row, _LOOK_EVERY
        rows = await self._store.read(lambda c: crls.crls_of(c, row.authority, row.number))
        there = {Kind(one.shard, one.delta): one for one in rows}
        if there:
            self.next_updates[version.name] = min(one.next_update for one in there.values())
        for kind in self._kinds(version):
            left = await self._left(version, kind, there.get(kind))
            if left <= 0:
                left = await self._try(version, kind)
            soonest = min(soonest, left)
        return soonest

    async def _left(self, version: Version, kind: Kind, newest: CrlRow | None) -> float:
        """Seconds until it is to be made."""
        due = self._of(version, kind)
        wait = due.not_before - time.monotonic()
        if newest is None or due.waits is not None:
            return wait
        deltas = self._times.delta_every > 0
        if kind.delta or not deltas:  # where there are deltas, these tell what was revoked since
            changed = await self._changes(version, kind, newest.this_update - _CROSSED)
            if changed - due.covered or len(changed) == _CHANGES_MAX:
                return wait
        every = self._times.delta_every if kind.delta else self._times.every
        age = time.time() - newest.this_update
        # a lifetime that is shorter than the schedule, or a clock that was wrong
        early = newest.next_update - (newest.next_update - newest.this_update) / 2 - time.time()
        return max(wait, min(every - age, early))

    async def _changes(self, version: Version, kind: Kind, since: int) -> frozenset[Change]:
        row = version.row
        found = await self._store.read(
            lambda c: certificates.changed_of(c, row.authority, row.number, kind.shard, since, _CHANGES_MAX)
        )
        return frozenset(found)

    async def _try(self, version: Version, kind: Kind) -> float:
        """Make one that is due; in how many seconds to look at it again."""
        due, started = self._of(version, kind), time.monotonic()
        if not await self._claim(version):
            due.not_before = started + 5.0
            return 5.0
        due.not_before = started + _PATIENCE
        try:
            await self._make(version, kind)
        finally:
            await self._release(version)
        # a large one takes its time: not more than a part of it goes into CRLs
        due.not_before = time.monotonic() + max(self._times.settle, 10 * (time.monotonic() - started))
        return due.not_before - time.monotonic()

    async def _claim(self, version: Version) -> bool:
        row, now = version.row, int(time.time())
        return await self._store.write(
            lambda c: authorities.claim_crls(c, row.authority, row.number, now, now + _CLAIM), crossed=8
        )

    async def _release(self, version: Version) -> None:
        row = version.row
        await self._store.write(lambda c: authorities.release_crls(c, row.authority, row.number), crossed=8)

    async def _make(self, version: Version, kind: Kind) -> CrlRow:
        row, due = version.row, self._of(version, kind)
        lifetime = self._times.lifetime
        if kind.delta:
            lifetime = min(lifetime, 4 * self._times.delta_every)
        if due.waits is not None and due.waits.facts.next_update.timestamp() - time.time() < lifetime / 2:
            await self._writer.drop(due.waits)
            due.waits = None  # nobody approved it in time
        waited = due.waits is not None
        if due.waits is None:
            due.gathered = await self._changes(version, kind, int(time.time()) - 2 * _CROSSED)
        made = due.waits or await self._writer.gather(version, kind, lifetime, deltas=self._times.delta_every > 0)
        try:
            done = await self._writer.finish(made)
        except ApprovalRequiredError:
            due.waits = made  # the same bytes: another CRL would be another request
            raise
        except BaseException as error:
            if not (
                waited and isinstance(error, _PASSING)
            ):  # what was approved is not thrown away for a moment's fault
                due.waits = None
                await self._writer.drop(made)
            raise
        due.waits, due.covered = None, due.gathered
        self.next_updates.pop(version.name, None)
        kept = self._waiting(version)
        before = int(time.time()) - _READ
        await self._store.write(lambda c: crls.clean(c, row.authority, row.number, before, kept), crossed=8)
        _log.info("a CRL was made", authority=version.name, number=done.number, bytes=done.size, delta=kind.delta)
        return done

    def _of(self, version: Version, kind: Kind) -> _Due:
        return self._due.setdefault((version.name, kind), _Due())

    def _waiting(self, version: Version) -> list[int]:
        """The numbers of those of a version that wait for approvals."""
        found = (due.waits for (name, _), due in self._due.items() if name == version.name)
        return [made.facts.number for made in found if made is not None]

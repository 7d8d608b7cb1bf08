"""Makes one CRL: entries from the store, signed, and back into the store, piece by piece, in bounded memory."""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import hashlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.x509 import ReasonFlags
from sqlalchemy import Connection

from hsmsign.model.errors import (
    AuthorityStateError,
    ClockError,
    HsmsignError,
    InvalidArgumentError,
    StoreUnavailableError,
)
from hsmsign.pki import crl
from hsmsign.pki.authority import Urls, Version
from hsmsign.pki.crl import CrlFacts, ShardName
from hsmsign.pki.crl_entries import Entry, encode_entries
from hsmsign.pki.signer import ITSELF, Signer
from hsmsign.store import Store, authorities, certificates, crls
from hsmsign.store.pki_rows import CrlRow

_PAGE = 8_192
"""Entries that are read at a time."""
_PART = 1 << 20
_OVERLAP = 600
"""Seconds before its base that a delta looks back: what crossed with the making of that is then in both."""
_SLACK = 60


@dataclass(frozen=True, slots=True)
class Kind:
    """Which of the CRLs of a version."""

    shard: int = 0
    delta: bool = False


@dataclass(frozen=True, slots=True)
class Unsigned:
    """A CRL whose entries are in the store, but for its signature."""

    version: Version
    kind: Kind
    facts: CrlFacts
    parts: int
    """Numbers 1 to this one are entries."""
    size: int
    """Bytes of the entries."""


class CrlWriter:
    """Makes CRLs of one store."""

    def __init__(self, store: Store, signer: Signer, urls: Urls) -> None:
        self._store = store
        self._signer = signer
        self._urls = urls

    async def gather(self, version: Version, kind: Kind, lifetime: float, *, deltas: bool) -> Unsigned:
        """Write the entries down under a new number. Raises ClockError, and AuthorityStateError where a delta has no
        base."""
        row, now = version.row, int(time.time())
        if now + _SLACK < row.latest:
            raise ClockError(
                f"the clock went back: {version.name} signed something that is from later",
                hint="set the clock right (NTP); no CRL is made until then",
            )
        now = max(now, row.latest)
        base = await self._store.read(lambda c: crls.crl(c, row.authority, row.number, kind.shard, delta=False))
        if kind.delta and base is None:
            raise AuthorityStateError(f"{version.name} has no full CRL yet that a delta could add to")
        number = await self._store.write(lambda c: authorities.next_crl_number(c, row.authority, row.number), crossed=8)
        since = base.this_update - _OVERLAP if kind.delta and base is not None else 0
        # what ended after the last full CRL is in one more: RFC 5280, section 3.3
        ends_after = base.this_update if base is not None else 0
        parts = size = 0
        async for data in self._entries(version, kind, since, ends_after):
            parts, size = parts + 1, size + len(data)
            await self._put(version, number, parts, data)
        facts = self._facts(version, kind, number, now, lifetime, base if kind.delta else None, deltas=deltas)
        return Unsigned(version, kind, facts, parts, size)

    async def finish(self, made: Unsigned) -> CrlRow:
        """Have it signed, and let it be the newest of its kind, unless there is a newer one by now: the answer is what
        is the newest then. Raises ApprovalRequiredError, and what the device is reported with."""
        version, row = made.version, made.version.row
        before, after = crl.frame(made.facts, made.size)
        size = len(before) + made.size + len(after)
        if self._signer.takes(size):
            body = [part async for part in self._parts(made)]
            answer = (await self._signer.sign(ITSELF, version, [b"".join((before, *body, after))]))[0]
            if isinstance(answer, HsmsignError):
                raise answer
            signature = answer
        else:
            signature = await self._signer.sign_digest(version, await self._digest(made, before, after))
        opening, closing = crl.close(version.scheme, size, signature)
        first, last = opening + before, after + closing
        await self._put(version, made.facts.number, 0, first)
        await self._put(version, made.facts.number, made.parts + 1, last)
        whole = hashlib.sha256(first)
        async for part in self._parts(made):
            whole.update(part)
        whole.update(last)
        done = CrlRow(
            row.authority,
            row.number,
            made.kind.shard,
            made.kind.delta,
            made.facts.number,
            int(made.facts.this_update.timestamp()),
            int(made.facts.next_update.timestamp()),
            len(first) + made.size + len(last),
            whole.hexdigest(),
        )

        def publish(connection: Connection) -> CrlRow:
            newest = crls.publish(connection, done)
            authorities.seen(connection, row.authority, row.number, done.this_update)
            return newest

        newest = await self._store.write(publish, crossed=8)
        if newest.number != done.number:
            await self.drop(made)
        return newest

    async def read(self, row: CrlRow) -> AsyncIterator[bytes]:
        """A CRL as it was published, in pieces. Raises StoreUnavailableError where it was taken away meanwhile."""
        at = size = 0
        while size < row.size:
            data = await self._store.read(functools.partial(_part, row.authority, row.version, row.number, at))
            if data is None:
                raise StoreUnavailableError("a newer CRL took the place of this one", retry_after=1.0)
            yield data
            at, size = at + 1, size + len(data)

    async def drop(self, made: Unsigned) -> None:
        """Forget one that is not published."""
        row = made.version.row
        await self._store.write(lambda c: crls.drop(c, row.authority, row.number, made.facts.number), crossed=8)

    # ---- the steps ----

    async def _entries(self, version: Version, kind: Kind, since: int, ends_after: int) -> AsyncIterator[bytes]:
        """DER of entries, about a part at a time."""
        row, after, gathered = version.row, "", bytearray()
        while True:

            def page(connection: Connection, last: str = after) -> list[Any]:
                where = (row.authority, row.number, kind.shard, last, _PAGE)
                return certificates.revoked(connection, *where, ends_after=ends_after, since=since)

            found = await self._store.read(page)
            gathered += await asyncio.to_thread(_encode, found)
            if len(gathered) >= _PART:
                yield bytes(gathered)
                gathered.clear()
            if len(found) < _PAGE:
                break
            after = found[-1][0]
        if gathered:
            yield bytes(gathered)

    def _facts(
        self, version: Version, kind: Kind, number: int, now: int, lifetime: float, base: CrlRow | None, *, deltas: bool
    ) -> CrlFacts:
        this_update = dt.datetime.fromtimestamp(now, dt.UTC)
        sharded = version.row.shards > 1
        return CrlFacts(
            issuer=version.subject,
            key_identifier=version.key_identifier,
            scheme=version.scheme,
            number=number,
            this_update=this_update,
            next_update=this_update + dt.timedelta(seconds=int(lifetime)),
            base=base.number if base is not None else None,
            shard=ShardName(self._urls.crl(version, kind.shard)) if sharded else None,
            freshest=self._urls.delta(version, kind.shard) if deltas and not kind.delta else (),
        )

    async def _digest(self, made: Unsigned, before: bytes, after: bytes) -> bytes:
        hash = made.version.scheme.hash
        if hash is None:
            raise InvalidArgumentError(
                f"a CRL of {made.size} bytes cannot be signed with Ed25519, which wants it whole",
                hint="split the CRLs: make the authority anew with --crl-shards, or with an ECDSA key",
            )
        digest = hashlib.new(hash.value, before)
        async for part in self._parts(made):
            digest.update(part)
        digest.update(after)
        return digest.digest()

    async def _parts(self, made: Unsigned) -> AsyncIterator[bytes]:
        """The entries. Raises StoreUnavailableError where they are not all there."""
        row, size = made.version.row, 0
        for part in range(1, made.parts + 1):
            where = functools.partial(_part, row.authority, row.number, made.facts.number, part)
            data: bytes | None = await self._store.read(where)
            if data is not None:
                size += len(data)
                yield data
        if size != made.size:
            raise StoreUnavailableError(
                f"entries of CRL {made.facts.number} of {made.version.name} are missing in the store", retry_after=1.0
            )

    async def _put(self, version: Version, number: int, part: int, data: bytes) -> None:
        row, now = version.row, int(time.time())
        await self._store.write(
            lambda c: crls.add_part(c, row.authority, row.number, number, part, data, now), crossed=8
        )


def _encode(found: Sequence[Any]) -> bytes:
    return encode_entries(_entry(*one) for one in found)


def _part(authority: str, version: int, number: int, part: int, connection: Connection) -> bytes | None:
    return crls.part(connection, authority, version, number, part)


def _entry(serial: str, revoked: int, reason: str | None, invalidity: int | None) -> Entry:
    return Entry(
        int(serial, 16),
        dt.datetime.fromtimestamp(revoked, dt.UTC),
        ReasonFlags[reason] if reason else None,
        dt.datetime.fromtimestamp(invalidity, dt.UTC) if invalidity is not None else None,
    )

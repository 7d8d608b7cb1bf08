"""Statements about certificates that were issued. Each takes a connection that is in a transaction."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Text, and_, bindparam, cast, delete, insert, or_, select, update

from hsmsign.store.pki_rows import CertificateRow, CertificateState, SpentToken
from hsmsign.store.pki_tables import certificates, spent_tokens

WAITS_MAX = 31 * 86_400
"""Seconds for which something may wait for its signature: longer than approvals are waited for."""
_AT_ONCE = 500
"""Serial numbers of one statement."""
_PENDING, _ISSUED = CertificateState.PENDING.value, CertificateState.ISSUED.value


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which certificates a list shows; nothing said: all."""

    authority: str = ""
    state: str = ""
    """PENDING, ISSUED (and not revoked) or REVOKED."""
    profile: str = ""
    text: str = ""
    ends_before: int | None = None


def certificate(connection: Connection, serial: str) -> CertificateRow | None:
    """One certificate."""
    row = connection.execute(select(certificates).where(certificates.c.serial == serial)).first()
    return None if row is None else _row(row)


def rows(connection: Connection, serials: Collection[str]) -> dict[str, CertificateRow]:
    """Those with these serial numbers."""
    statement = select(certificates).where(certificates.c.serial.in_(serials))
    return {row.serial: row for row in map(_row, connection.execute(statement))}


def by_request(connection: Connection, request_ids: Collection[str]) -> dict[str, CertificateRow]:
    """Those that were made for these requests, by the ids of the requests."""
    if not request_ids:
        return {}
    statement = select(certificates).where(certificates.c.request_id.in_(request_ids))
    return {row.request_id: row for row in map(_row, connection.execute(statement)) if row.request_id is not None}


def pending(connection: Connection, fingerprints: Collection[str]) -> dict[str, CertificateRow]:
    """Those that wait to be signed, by what was asked for."""
    statement = select(certificates).where(
        certificates.c.state == _PENDING, certificates.c.fingerprint.in_(fingerprints)
    )
    return {row.fingerprint: row for row in map(_row, connection.execute(statement))}


def add(connection: Connection, rows: Sequence[CertificateRow]) -> None:
    """New ones."""
    if rows:
        connection.execute(insert(certificates), [_values(row) for row in rows])


def issued(connection: Connection, signed: Sequence[tuple[str, bytes]]) -> None:
    """They are signed: serial numbers and certificates."""
    statement = (
        update(certificates)
        .where(certificates.c.serial == bindparam("which"), certificates.c.state == _PENDING)
        .values(state=_ISSUED, content=bindparam("made"))
    )
    if signed:
        connection.execute(statement, [{"which": serial, "made": content} for serial, content in signed])


def forget(connection: Connection, serials: Collection[str]) -> None:
    """Take away what was never signed, and the tokens that were used for it."""
    waiting = and_(certificates.c.serial.in_(serials), certificates.c.state == _PENDING)
    gone = list(connection.execute(select(certificates.c.serial).where(waiting)).scalars())
    connection.execute(delete(certificates).where(certificates.c.serial.in_(gone)))
    connection.execute(delete(spent_tokens).where(spent_tokens.c.serial.in_(gone)))


def revoke(connection: Connection, row: CertificateRow) -> None:
    """Put how, when and by whom it was revoked."""
    values = {name: getattr(row, name) for name in ("revoked", "reason", "invalidity", "revoked_by", "changed")}
    connection.execute(update(certificates).where(certificates.c.serial == row.serial).values(values))


def page(
    connection: Connection, wanted: Wanted, before: tuple[int, str] | None, size: int, allowed: Collection[str]
) -> list[CertificateRow]:
    """At most `size` certificates of the `allowed` authorities, the newest first; those after one that was created at
    that time with that serial number."""
    table = certificates.c
    statement = select(certificates).where(table.authority.in_(allowed), *_conditions(wanted))
    if before is not None:
        created, serial = before
        statement = statement.where(or_(table.created < created, and_(table.created == created, table.serial < serial)))
    return [
        _row(row)
        for row in connection.execute(statement.order_by(table.created.desc(), table.serial.desc()).limit(size))
    ]


def revoked(
    connection: Connection,
    authority: str,
    version: int,
    shard: int,
    after: str,
    size: int,
    *,
    ends_after: int,
    since: int,
) -> list[Any]:
    """serial, revoked, reason, invalidity of at most `size` certificates with serial numbers (as text) greater than
    `after`, that end after a time and were revoked, or changed, since another."""
    table = certificates.c
    statement = (
        select(table.serial, table.revoked, table.reason, table.invalidity)
        .where(
            table.authority == authority,
            table.version == version,
            table.shard == shard,
            table.serial > after,
            table.revoked.is_not(None),
            # for all of them the index by serial number is the right one, and SQLite would take that by time
            *((table.changed >= since,) if since else ()),
            table.not_after > ends_after,
        )
        .order_by(table.serial)
        .limit(size)
    )
    return list(connection.execute(statement))


def statuses(connection: Connection, serials: Collection[str]) -> dict[str, Any]:
    """authority, version, state, revoked and reason, by serial number."""
    table = certificates.c
    columns = table.serial, table.authority, table.version, table.state, table.revoked, table.reason
    return {row.serial: row for row in connection.execute(select(*columns).where(table.serial.in_(serials)))}


Change = tuple[str, int]
"""The serial number of a certificate that was revoked, or whose reason changed, and when (seconds since 1970)."""


def changed_among(connection: Connection, serials: Sequence[str], moment: int) -> list[Change]:
    """Those of these serial numbers since a time."""
    table = certificates.c
    found: list[Change] = []
    for at in range(0, len(serials), _AT_ONCE):
        some = table.serial.in_(serials[at : at + _AT_ONCE])
        statement = select(table.serial, table.changed).where(some, table.changed >= moment)
        found += [(row.serial, row.changed) for row in connection.execute(statement)]
    return found


def changed_of(
    connection: Connection, authority: str, version: int, shard: int, moment: int, size: int
) -> list[Change]:
    """At most `size` of one shard since a time."""
    table = certificates.c
    where = table.authority == authority, table.version == version, table.shard == shard
    statement = select(table.serial, table.changed).where(*where, table.changed.is_not(None), table.changed >= moment)
    return [(row.serial, row.changed) for row in connection.execute(statement.limit(size))]


def spent(connection: Connection, fingerprints: Collection[str]) -> dict[str, str]:
    """For each of these tokens that was used: the serial number of what was made of it."""
    if not fingerprints:
        return {}
    statement = select(spent_tokens).where(spent_tokens.c.fingerprint.in_(fingerprints))
    return {row.fingerprint: row.serial for row in connection.execute(statement)}


def spend(connection: Connection, tokens: Sequence[SpentToken]) -> None:
    """They are used now."""
    if tokens:
        connection.execute(insert(spent_tokens), [dataclasses.asdict(token) for token in tokens])


def tidy(connection: Connection, now: int) -> None:
    """Take away used tokens that nobody takes any more, and what waited for its signature for longer than approvals
    are waited for. `now` is in seconds since 1970."""
    connection.execute(delete(spent_tokens).where(spent_tokens.c.expires < now))
    stale = certificates.c.created < (now - WAITS_MAX) * 1_000_000
    connection.execute(delete(certificates).where(certificates.c.state == _PENDING, stale))


def _conditions(wanted: Wanted) -> list[Any]:
    table = certificates.c
    found: list[Any] = []
    if wanted.authority:
        found.append(table.authority == wanted.authority)
    if wanted.state == _PENDING:
        found.append(table.state == _PENDING)
    elif wanted.state == _ISSUED:
        found += [table.state == _ISSUED, table.revoked.is_(None)]
    elif wanted.state:
        found.append(table.revoked.is_not(None))
    if wanted.profile:
        found.append(table.profile == wanted.profile)
    if wanted.text:
        names = cast(table.names, Text)
        found.append(or_(*(one.icontains(wanted.text, autoescape=True) for one in (table.subject, names))))
    if wanted.ends_before is not None:
        found.append(table.not_after < wanted.ends_before)
    return found


def _values(row: CertificateRow) -> dict[str, Any]:
    plain = {one.name: getattr(row, one.name) for one in dataclasses.fields(row)}
    return {**plain, "state": row.state.value, "names": list(row.names)}


def _row(row: Row[Any]) -> CertificateRow:
    values = dict(row._mapping)
    values["state"] = CertificateState(values["state"])
    values["names"] = tuple(values["names"])
    return CertificateRow(**values)

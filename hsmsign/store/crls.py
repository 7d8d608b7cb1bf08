"""Statements about CRLs. Each takes a connection that is in a transaction. A CRL lies in parts of about a mebibyte."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, and_, delete, insert, select

from hsmsign.store.pki_rows import CrlRow
from hsmsign.store.pki_tables import crl_parts, crls


def crl(connection: Connection, authority: str, version: int, shard: int, *, delta: bool) -> CrlRow | None:
    """The newest one of a kind."""
    row = connection.execute(select(crls).where(_is(authority, version, shard, delta))).first()
    return None if row is None else CrlRow(**row._mapping)


def crls_of(connection: Connection, authority: str, version: int) -> list[CrlRow]:
    """The newest of each kind."""
    statement = select(crls).where(crls.c.authority == authority, crls.c.version == version)
    return [CrlRow(**row._mapping) for row in connection.execute(statement.order_by(crls.c.shard, crls.c.delta))]


def add_part(
    connection: Connection, authority: str, version: int, number: int, part: int, data: bytes, now: int
) -> None:
    """A part of a CRL that is being made."""
    values = {"authority": authority, "version": version, "number": number, "part": part, "data": data, "created": now}
    connection.execute(insert(crl_parts).values(values))


def part(connection: Connection, authority: str, version: int, number: int, part: int) -> bytes | None:
    """A part of a CRL by its number; None behind the last."""
    same = and_(_of(authority, version, number), crl_parts.c.part == part)
    found = connection.execute(select(crl_parts.c.data).where(same)).scalar()
    return None if found is None else bytes(found)


def publish(connection: Connection, row: CrlRow) -> CrlRow:
    """Let it be the newest of its kind, unless there is a newer one: the answer is what is the newest then. What was
    stays until `clean`: somebody may be reading it."""
    there = crl(connection, row.authority, row.version, row.shard, delta=row.delta)
    if there is not None and there.number > row.number:
        return there
    connection.execute(delete(crls).where(_is(row.authority, row.version, row.shard, row.delta)))
    connection.execute(insert(crls).values(dataclasses.asdict(row)))
    return row


def drop(connection: Connection, authority: str, version: int, number: int) -> None:
    """Take away the parts of one that is not published."""
    connection.execute(delete(crl_parts).where(_of(authority, version, number), _not_newest(authority, version)))


def clean(connection: Connection, authority: str, version: int, before: int, kept: Collection[int]) -> None:
    """Take away the parts, written before a time, of CRLs that are not the newest of their kind, nor among `kept`."""
    old = and_(
        crl_parts.c.authority == authority,
        crl_parts.c.version == version,
        crl_parts.c.created < before,
        crl_parts.c.number.not_in(kept),
    )
    connection.execute(delete(crl_parts).where(old, _not_newest(authority, version)))


def _not_newest(authority: str, version: int) -> Any:
    newest = select(crls.c.number).where(crls.c.authority == authority, crls.c.version == version)
    return crl_parts.c.number.not_in(newest)


def _is(authority: str, version: int, shard: int, delta: bool) -> Any:
    return and_(
        crls.c.authority == authority, crls.c.version == version, crls.c.shard == shard, crls.c.delta.is_(delta)
    )


def _of(authority: str, version: int, number: int) -> Any:
    return and_(crl_parts.c.authority == authority, crl_parts.c.version == version, crl_parts.c.number == number)

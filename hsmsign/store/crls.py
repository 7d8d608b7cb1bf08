"""Statements about CRLs. Each takes a connection that is in a transaction. A CRL lies in parts of about a mebibyte."""

from __future__ import annotations

import dataclasses
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


def add_part(connection: Connection, authority: str, version: int, number: int, part: int, data: bytes) -> None:
    """A part of a CRL that is being made, or was."""
    values = {"authority": authority, "version": version, "number": number, "part": part, "data": data}
    connection.execute(insert(crl_parts).values(values))


def part(connection: Connection, authority: str, version: int, number: int, part: int) -> bytes | None:
    """A part of a CRL by its number; None behind the last."""
    same = and_(_of(authority, version, number), crl_parts.c.part == part)
    found = connection.execute(select(crl_parts.c.data).where(same)).scalar()
    return None if found is None else bytes(found)


def publish(connection: Connection, row: CrlRow) -> None:
    """Let it be the newest of its kind. What was stays until `clean`: somebody may be reading it."""
    connection.execute(delete(crls).where(_is(row.authority, row.version, row.shard, row.delta)))
    connection.execute(insert(crls).values(dataclasses.asdict(row)))


def drop(connection: Connection, authority: str, version: int, number: int) -> None:
    """Take away the parts of one that will not be published."""
    connection.execute(delete(crl_parts).where(_of(authority, version, number)))


def clean(connection: Connection, authority: str, version: int, before: int) -> None:
    """Take away the parts of CRLs with numbers less than `before` that are not the newest of their kind."""
    kept = select(crls.c.number).where(crls.c.authority == authority, crls.c.version == version)
    connection.execute(
        delete(crl_parts).where(
            crl_parts.c.authority == authority,
            crl_parts.c.version == version,
            crl_parts.c.number < before,
            crl_parts.c.number.not_in(kept),
        )
    )


def _is(authority: str, version: int, shard: int, delta: bool) -> Any:
    return and_(
        crls.c.authority == authority, crls.c.version == version, crls.c.shard == shard, crls.c.delta.is_(delta)
    )


def _of(authority: str, version: int, number: int) -> Any:
    return and_(crl_parts.c.authority == authority, crl_parts.c.version == version, crl_parts.c.number == number)

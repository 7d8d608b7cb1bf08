"""Statements about certificate authorities. Each takes a connection that is in a transaction."""

from __future__ import annotations

import dataclasses
from typing import Any

from sqlalchemy import Connection, Row, and_, insert, select, update

from hsmsign.store.pki_rows import AuthorityRow, AuthorityState, AuthorityVersionRow
from hsmsign.store.pki_tables import authorities, authority_versions, counters

TRUST = "trust"
"""The counter that grows whenever the certificates to trust change."""


def authority(connection: Connection, id: str) -> AuthorityRow | None:
    """One authority."""
    row = connection.execute(select(authorities).where(authorities.c.id == id)).first()
    return None if row is None else AuthorityRow(**row._mapping)


def everything(connection: Connection) -> list[tuple[AuthorityRow, list[AuthorityVersionRow]]]:
    """All authorities by name, each with its versions, the oldest first. There are few."""
    found = [AuthorityRow(**row._mapping) for row in connection.execute(select(authorities).order_by(authorities.c.id))]
    order = authority_versions.c.authority, authority_versions.c.number
    versions = [_version(row) for row in connection.execute(select(authority_versions).order_by(*order))]
    return [(one, [version for version in versions if version.authority == one.id]) for one in found]


def version(connection: Connection, id: str, number: int) -> AuthorityVersionRow | None:
    """One version."""
    row = connection.execute(select(authority_versions).where(_is(id, number))).first()
    return None if row is None else _version(row)


def versions_of(connection: Connection, id: str) -> list[AuthorityVersionRow]:
    """All versions of an authority, the oldest first."""
    statement = select(authority_versions).where(authority_versions.c.authority == id)
    return [_version(row) for row in connection.execute(statement.order_by(authority_versions.c.number))]


def add(connection: Connection, row: AuthorityRow) -> None:
    """A new authority."""
    connection.execute(insert(authorities).values(dataclasses.asdict(row)))


def save(connection: Connection, row: AuthorityRow) -> None:
    """Put the authority as it now is."""
    connection.execute(update(authorities).where(authorities.c.id == row.id).values(dataclasses.asdict(row)))


def add_version(connection: Connection, row: AuthorityVersionRow) -> None:
    """A new version."""
    connection.execute(insert(authority_versions).values(_values(row)))


def save_version(connection: Connection, row: AuthorityVersionRow) -> None:
    """Put the version as it now is."""
    connection.execute(update(authority_versions).where(_is(row.authority, row.number)).values(_values(row)))


def next_crl_number(connection: Connection, id: str, number: int) -> int:
    """A CRL number that was never given before, and is greater than all that were."""
    column = authority_versions.c.crl_number
    connection.execute(update(authority_versions).where(_is(id, number)).values(crl_number=column + 1))
    return int(connection.execute(select(column).where(_is(id, number))).scalar_one())


def claim_crls(connection: Connection, id: str, number: int, now: int, until: int) -> bool:
    """Take the making of a version's CRLs until a time (seconds since 1970), where nobody has it."""
    free = and_(_is(id, number), authority_versions.c.crl_claimed <= now)
    return connection.execute(update(authority_versions).where(free).values(crl_claimed=until)).rowcount == 1


def release_crls(connection: Connection, id: str, number: int) -> None:
    """Give it back."""
    connection.execute(update(authority_versions).where(_is(id, number)).values(crl_claimed=0))


def seen(connection: Connection, id: str, number: int, moment: int) -> None:
    """Something is signed to be from that time (seconds since 1970)."""
    later = and_(_is(id, number), authority_versions.c.latest < moment)
    connection.execute(update(authority_versions).where(later).values(latest=moment))


def holder(connection: Connection, public_key: bytes, subject: bytes) -> AuthorityVersionRow | None:
    """The version with this key and name."""
    same = and_(authority_versions.c.public_key == public_key, authority_versions.c.subject == subject)
    row = connection.execute(select(authority_versions).where(same)).first()
    return None if row is None else _version(row)


def trust_sequence(connection: Connection) -> int:
    """How often the certificates to trust changed."""
    return connection.execute(select(counters.c.value).where(counters.c.name == TRUST)).scalar() or 0


def trust_changed(connection: Connection) -> None:
    """They changed."""
    changed = update(counters).where(counters.c.name == TRUST).values(value=counters.c.value + 1)
    if connection.execute(changed).rowcount == 0:
        connection.execute(insert(counters).values(name=TRUST, value=1))


def _is(id: str, number: int) -> Any:
    return and_(authority_versions.c.authority == id, authority_versions.c.number == number)


def _values(row: AuthorityVersionRow) -> dict[str, Any]:
    return {**{one.name: getattr(row, one.name) for one in dataclasses.fields(row)}, "state": row.state.value}


def _version(row: Row[Any]) -> AuthorityVersionRow:
    values = dict(row._mapping)
    values["state"] = AuthorityState(values["state"])
    return AuthorityVersionRow(**values)

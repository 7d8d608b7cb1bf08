"""Every statement that the program sends. Each takes a connection that is in a transaction."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, delete, insert, or_, select, update

from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.device import DeviceFacts, Protection
from hsmsign.model.dual_control import DualControl
from hsmsign.model.purpose import Purpose
from hsmsign.store.rows import KeyRow, ReplicaRow, RequestRow, VersionRow, VersionState
from hsmsign.store.tables import keys, replicas, requests, versions

_IN = 500
"""Keys in one statement: SQLite may be built for 999 variables, PostgreSQL takes 65535."""


def key(connection: Connection, id: str) -> KeyRow | None:
    """One key, whether it is established or not."""
    row = connection.execute(select(keys).where(keys.c.id == id)).first()
    return None if row is None else _key(row)


def versions_of(connection: Connection, id: str) -> list[VersionRow]:
    """All versions of a key, whatever their state, the oldest first."""
    return _versions(connection, select(versions).where(versions.c.key == id).order_by(versions.c.number))


def version(connection: Connection, id: str, number: int) -> VersionRow | None:
    """One version of a key, whatever its state."""
    found = _versions(connection, select(versions).where(versions.c.key == id, versions.c.number == number))
    return found[0] if found else None


def holder(connection: Connection, holds: str) -> VersionRow | None:
    """The version that stands for this object of this backend, or has it for a replica."""
    replica = select(replicas.c.key).where(
        replicas.c.key == versions.c.key, replicas.c.number == versions.c.number, replicas.c.holds == holds
    )
    found = _versions(connection, select(versions).where(or_(versions.c.holds == holds, replica.exists())))
    return found[0] if found else None


def same_key(connection: Connection, public_key: bytes) -> list[VersionRow]:
    """All versions that stand, or stood, for this key pair (SPKI, DER), wherever it lies."""
    return _versions(connection, select(versions).where(versions.c.public_key == public_key))


def unfinished(connection: Connection, backend: str) -> list[VersionRow]:
    """The versions on a backend, replicas too, whose making or destroying was not finished."""
    states = (VersionState.CREATING.value, VersionState.DESTROYING.value)
    replica = select(replicas.c.key).where(
        replicas.c.key == versions.c.key, replicas.c.number == versions.c.number, replicas.c.backend == backend
    )
    statement = (
        select(versions)
        .join(keys)
        .where(versions.c.state.in_(states), or_(keys.c.backend == backend, replica.exists()))
        .order_by(versions.c.key, versions.c.number)
    )
    return _versions(connection, statement)


def page(
    connection: Connection, after: str, size: int, labels: Mapping[str, str], backend: str
) -> list[tuple[KeyRow, VersionRow | None]]:
    """At most `size` established keys with ids greater than `after`, in order, with their primary versions."""
    primary = and_(versions.c.key == keys.c.id, versions.c.number == keys.c.primary_version)
    statement = select(keys).where(keys.c.established, keys.c.id > after)
    if backend:
        statement = statement.where(keys.c.backend == backend)
    for name, value in labels.items():
        statement = statement.where(keys.c.labels[name].as_string() == value)
    found = [_key(row) for row in connection.execute(statement.order_by(keys.c.id).limit(size))]
    if not found:
        return []
    wanted = select(versions).join(keys, primary)
    primaries = {
        row.key: row
        for ids in _chunks(row.id for row in found)
        for row in _versions(connection, wanted.where(keys.c.id.in_(ids)))
    }
    return [(row, primaries.get(row.id)) for row in found]


def request(connection: Connection, id: str) -> RequestRow | None:
    """A request that was sent before."""
    row = connection.execute(select(requests).where(requests.c.id == id)).first()
    return None if row is None else RequestRow(**row._mapping)


def add_key(connection: Connection, row: KeyRow) -> None:
    """A new key."""
    values = {
        **_fields(row),
        "algorithm": row.algorithm.name,
        "purpose": row.purpose.plain(),
        "control": row.control.plain(),
    }
    connection.execute(insert(keys).values(values))


def add_version(connection: Connection, row: VersionRow) -> None:
    """A new version of a key that is there."""
    connection.execute(insert(versions).values(_version_values(row)))


def add_request(connection: Connection, row: RequestRow) -> None:
    """Remember a request with the version that it makes."""
    connection.execute(insert(requests).values(_fields(row)))


def save_version(connection: Connection, row: VersionRow) -> None:
    """Put the version as it now is."""
    where = and_(versions.c.key == row.key, versions.c.number == row.number)
    connection.execute(update(versions).where(where).values(_version_values(row)))


def add_replica(connection: Connection, row: ReplicaRow) -> None:
    """A further token that holds the key of a version."""
    connection.execute(insert(replicas).values({**_fields(row), "facts": dataclasses.asdict(row.facts)}))


def remove_replica(connection: Connection, row: ReplicaRow) -> None:
    """The token is no longer known to hold it, or does not."""
    where = and_(replicas.c.key == row.key, replicas.c.number == row.number, replicas.c.backend == row.backend)
    connection.execute(delete(replicas).where(where))


def touch_key(connection: Connection, id: str, now: int, **changes: Any) -> None:
    """Change columns of a key; its revision goes up."""
    values = {**changes, "updated": now, "revision": keys.c.revision + 1}
    connection.execute(update(keys).where(keys.c.id == id).values(values))


def remove_version(connection: Connection, id: str, number: int) -> None:
    """Take away a version that never was, the request that wanted it, and the key if it never was either."""
    connection.execute(delete(versions).where(versions.c.key == id, versions.c.number == number))
    connection.execute(delete(keys).where(keys.c.id == id, ~keys.c.established))


def _fields(row: KeyRow | VersionRow | ReplicaRow | RequestRow) -> dict[str, Any]:
    return {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}


def _version_values(row: VersionRow) -> dict[str, Any]:
    facts = dataclasses.asdict(row.facts)
    values = {**_fields(row), "state": row.state.value, "protection": row.protection.name, "facts": facts}
    del values["replicas"]  # rows of their own
    return values


def _key(row: Row[Any]) -> KeyRow:
    values = dict(row._mapping)
    values["algorithm"] = KeyAlgorithm[values["algorithm"]]
    values["purpose"] = Purpose.read(values["purpose"] or {})
    values["control"] = DualControl.read(values["control"] or {})
    return KeyRow(**values)


def _versions(connection: Connection, statement: Select[Any]) -> list[VersionRow]:
    """The versions that a statement finds, with their replicas."""
    found = [_version(row) for row in connection.execute(statement)]
    of: dict[tuple[str, int], list[ReplicaRow]] = {}
    for ids in _chunks(dict.fromkeys(row.key for row in found)):
        wanted = select(replicas).where(replicas.c.key.in_(ids)).order_by(replicas.c.backend)
        for row in connection.execute(wanted):
            of.setdefault((row.key, row.number), []).append(_replica(row))
    return [dataclasses.replace(row, replicas=tuple(of.get((row.key, row.number), ()))) for row in found]


def _chunks(ids: Iterable[str]) -> Iterator[list[str]]:
    """As many at a time as a statement may name."""
    left = iter(ids)
    while chunk := list(itertools.islice(left, _IN)):
        yield chunk


def _replica(row: Row[Any]) -> ReplicaRow:
    values = dict(row._mapping)
    values["facts"] = DeviceFacts(**values["facts"])
    return ReplicaRow(**values)


def _version(row: Row[Any]) -> VersionRow:
    values = dict(row._mapping)
    values["state"] = VersionState(values["state"])
    values["protection"] = Protection[values["protection"]]
    values["facts"] = DeviceFacts(**values["facts"])
    return VersionRow(**values)

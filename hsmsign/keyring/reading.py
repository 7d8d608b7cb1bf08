"""Finding out what a name stands for."""

from __future__ import annotations

from sqlalchemy import Connection

from hsmsign.keyring.desk import Desk, established, no_key
from hsmsign.keyring.values import Place, ResolvedKey, version_name
from hsmsign.model.errors import VersionStateError
from hsmsign.model.key_facts import KeyFacts
from hsmsign.model.names import KeyName, VersionName, parse
from hsmsign.store import VersionState, queries


async def resolve(desk: Desk, name: str) -> ResolvedKey:
    """Ask the store, and remember the answer."""
    parsed = parse(name)
    generation = desk.cache.generation
    found = await desk.store.read(lambda connection: _find(connection, parsed))
    desk.cache.put(name, found, generation)
    return found


def _find(connection: Connection, name: KeyName | VersionName) -> ResolvedKey:
    key = established(connection, name.key.id if isinstance(name, VersionName) else name.id)
    number = name.number if isinstance(name, VersionName) else key.primary_version
    if number is None:
        raise VersionStateError(
            f"{name} has no version that can sign: all are destroyed or disabled",
            hint=f"look at it: hsmsign key show {key.id}; a version can be named: {name}/versions/1",
        )
    row = queries.version(connection, key.id, number)
    if row is None or row.state is VersionState.CREATING:
        raise no_key(str(name))
    return ResolvedKey(
        name=version_name(key.id, number),
        device=key.backend,
        locator=row.locator or b"",
        algorithm=key.algorithm,
        state=row.state,
        public_key=row.public_key or b"",
        facts=KeyFacts.of(key.id, key.labels, key.algorithm, key.purpose.kind),
        purpose=key.purpose,
        control=key.control,
        replicas=tuple(Place(one.backend, one.locator) for one in row.replicas),
    )

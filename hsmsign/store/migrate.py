"""Bringing a database to the tables that this program knows."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Connection

from hsmsign.model.errors import ConfigurationError
from hsmsign.store import migrations

_LOCK = 0x68736D7369676E
"""Of PostgreSQL: one daemon migrates at a time."""


def upgrade(connection: Connection) -> None:
    """Run, in the transaction that `connection` has begun, the steps that are missing.

    Raises ConfigurationError where the database was made by a newer program.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    current = revision(connection)
    if current != migrations.HEAD:
        _run(connection, current)


def revision(connection: Connection) -> str | None:
    """The revision that the database is at; None for an empty one."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def _run(connection: Connection, current: str | None) -> None:
    # imported here: most starts need none of it, and it is not small
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(Path(migrations.__file__).parent))
    if current is not None and current not in {known.revision for known in script.walk_revisions()}:
        raise ConfigurationError(
            f"the store is at revision {current!r}, which this program does not know; it knows up to"
            f" {migrations.HEAD!r}",
            hint="a newer hsmsign has used this database: run that one, or restore a backup made before",
            metadata={"revision": current, "known": migrations.HEAD},
        )
    with EnvironmentContext(Config(), script, fn=lambda rev, _context: script._upgrade_revs("head", rev)) as steps:
        steps.configure(connection=connection)
        steps.run_migrations()

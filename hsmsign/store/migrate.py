"""Bringing a database to the tables that this program knows."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Connection

from hsmsign.model.errors import ConfigurationError
from hsmsign.store import migrations, pki_tables

_LOCK = 0x68736D7369676E
"""Of PostgreSQL: one daemon migrates at a time."""


def upgrade(connection: Connection) -> None:
    """Bring the tables up to date, in the transaction that `connection` has begun.

    Raises ConfigurationError where the database was made by a newer program, or is another program's.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    current = revision(connection)
    if current is None:
        create(connection)
    elif current != migrations.HEAD:
        step_up(connection, current)


def create(connection: Connection) -> None:
    """Make all tables of an empty database as they are now: there is nothing to migrate, and the tool for
    that is not small."""
    inspector = sa.inspect(connection)
    foreign = [name for name in pki_tables.metadata.tables if inspector.has_table(name)]
    if foreign:
        raise ConfigurationError(
            f"the store's database has a table {foreign[0]!r} that is not of this program",
            hint="give hsmsign a database, or a file, of its own",
        )
    pki_tables.metadata.create_all(connection)
    stamp = sa.Table("alembic_version", sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True))
    stamp.create(connection)
    connection.execute(stamp.insert().values(version_num=migrations.HEAD))


def revision(connection: Connection) -> str | None:
    """The revision that the database is at; None for an empty one."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def step_up(connection: Connection, current: str | None, to: str = "head") -> None:
    """Run the steps that are missing, one after the other, up to a revision."""
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
    with EnvironmentContext(Config(), script, fn=lambda rev, _context: script._upgrade_revs(to, rev)) as steps:
        steps.configure(connection=connection)
        steps.run_migrations()

"""The engine: how SQLite and PostgreSQL are spoken to, and what their errors mean."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError

from hsmsign.model.errors import ConfigurationError, CrossedError, HsmsignError, StoreFullError, StoreUnavailableError

WRITING = "hsmsign_writing"
"""The execution option of a connection that will write."""

_BUSY_TIMEOUT_MS = 5_000
_SQLITE_FULL = frozenset({sqlite3.SQLITE_FULL})
_SQLITE_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_OPTIONS: dict[str, dict[str, Any]] = {
    # Several daemons may share it: two changes that cross must not both believe what they read.
    "postgresql": {"isolation_level": "SERIALIZABLE", "pool_pre_ping": True},
}
NO_OPTIONS: Mapping[str, str] = MappingProxyType({})
_CROSSED = frozenset({"40001", "40P01"})
"""PostgreSQL: serialization_failure, deadlock_detected."""
_EXAMPLE = "for example sqlite:////var/lib/hsmsign/store.db or postgresql+psycopg://user@host/hsmsign"


def connect(url: str) -> Engine:
    """An engine for `url`; nothing is opened yet. Raises ConfigurationError."""
    try:
        parsed = make_url(url)
        engine = sa.create_engine(parsed, **_OPTIONS.get(parsed.get_backend_name(), {}))
    except (ArgumentError, NoSuchModuleError) as error:
        raise ConfigurationError("the store's URL cannot be read", hint=_EXAMPLE) from error
    except ImportError as error:
        raise ConfigurationError(
            f"the store's URL wants a driver that is not installed: {error.name}", hint="pip install psycopg[binary]"
        ) from error
    if engine.dialect.name == "sqlite":
        _keep_private(parsed)
        _tame_sqlite(engine)
    elif engine.dialect.name != "postgresql":
        raise ConfigurationError(f"no store can be kept in {engine.dialect.name}", hint=_EXAMPLE)
    return engine


def migrating(engine: Engine) -> Mapping[str, str]:
    """Execution options for a connection that migrates. On PostgreSQL it waits for a lock, and must see what the
    lock's last holder did, not what was there when it began to wait."""
    return {"isolation_level": "READ COMMITTED"} if engine.dialect.name == "postgresql" else NO_OPTIONS


def _keep_private(url: URL) -> None:
    """Make the file, so that only its owner may read it; SQLite gives the files beside it the same mode."""
    if url.database and url.database != ":memory:" and not url.database.startswith("file:"):
        with contextlib.suppress(OSError):  # SQLite says it better
            os.close(os.open(url.database, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _tame_sqlite(engine: Engine) -> None:
    """WAL, foreign keys, every commit on the disk, and transactions that begin when we say so."""

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        # The driver's own idea of when a transaction begins is not ours (it leaves out reads and DDL).
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA temp_store = MEMORY")  # a worker can write nowhere else
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # IMMEDIATE: a read that later wants to write could only fail with SQLITE_BUSY_SNAPSHOT
        writing = connection.get_execution_options().get(WRITING, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def translate(error: DBAPIError, url: URL) -> HsmsignError:
    """What the driver said, as an error of ours. It never shows the URL, which may hold a password."""
    where = url.database if url.drivername.startswith("sqlite") else f"database {url.database!r} on {url.host}"
    cause = error.orig
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
    if code in _SQLITE_FULL or getattr(cause, "sqlstate", None) == "53100":
        return StoreFullError(
            f"the disk under the store is full ({where}); nothing was changed",
            hint="make room on that disk, then send the same request again; signatures go on meanwhile",
            retry_after=30.0,
        )
    if isinstance(error, IntegrityError) or getattr(cause, "sqlstate", None) in _CROSSED:
        # two daemons did it at once, and the database let one of them win: the next try sees what the other did
        return CrossedError("another request changed the same thing at the same time", retry_after=0.1)
    if code in _SQLITE_DAMAGED:
        return ConfigurationError(
            f"the store is no database, or damaged: {where}",
            hint="restore it from a backup; check it with: sqlite3 FILE 'PRAGMA integrity_check'",
        )
    name = getattr(cause, "sqlite_errorname", "") or getattr(cause, "sqlstate", "") or type(cause).__name__
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR):
        hint = f"can the daemon's user write to {where} and its folder, and is the disk sound?"
    elif code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        hint = "another process holds the database: is a backup or a second daemon running?"
    else:
        hint = "is the database server up, and does it take this user?"
    return StoreUnavailableError(
        f"the store cannot be used ({where}): {name}", hint=hint, metadata={"cause": str(name)}, retry_after=1.0
    )

"""The store over real SQLite files."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from hsmsign.keyring.paging import PAGE_MAX
from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.device import DeviceFacts, Protection
from hsmsign.model.dual_control import DualControl
from hsmsign.model.errors import ConfigurationError, StoreFullError, StoreUnavailableError
from hsmsign.model.purpose import Purpose
from hsmsign.store import KeyRow, Store, VersionRow, VersionState, migrate, migrations, queries
from hsmsign.store.rows import ReplicaRow, RequestRow
from hsmsign.store.tables import metadata
from tests.support.rows import KEY, VERSION


def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def store(path: Path):
    opened = Store.open(url(path))
    yield opened
    opened.close()


async def put(store: Store, key: KeyRow = KEY, version: VersionRow | None = VERSION) -> None:
    def work(connection: sa.Connection) -> None:
        queries.add_key(connection, key)
        if version is not None:
            queries.add_version(connection, version)

    await store.write(work)


def migrated(path: Path) -> sa.Engine:
    """A database that went through every step there ever was."""
    engine = sa.create_engine(url(path))
    with engine.begin() as connection:
        migrate.step_up(connection, None)
    return engine


def test_the_tables_are_what_the_migrations_make(path: Path) -> None:
    with migrated(path).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_a_new_database_is_as_one_that_went_through_every_step(tmp_path: Path) -> None:
    migrated(tmp_path / "old.db").dispose()
    Store.open(url(tmp_path / "new.db")).close()

    def index(found: dict[str, object]) -> str:
        options = {option: str(value) for option, value in found.get("dialect_options", {}).items()}
        return str({**found, "dialect_options": options})

    def shape(file: Path) -> dict[str, object]:
        inspector = sa.inspect(sa.create_engine(url(file)))
        return {
            name: (
                [(c["name"], str(c["type"]), c["nullable"]) for c in inspector.get_columns(name)],
                inspector.get_pk_constraint(name)["constrained_columns"],
                sorted(map(index, inspector.get_indexes(name))),
                sorted(map(str, inspector.get_foreign_keys(name))),
                sorted(map(str, inspector.get_unique_constraints(name))),
            )
            for name in inspector.get_table_names()
        }

    assert shape(tmp_path / "new.db") == shape(tmp_path / "old.db")
    Store.open(url(tmp_path / "old.db")).close()


async def test_keys_of_before_are_for_anything_and_for_anyone_alone_and_keep_their_versions(path: Path) -> None:
    before = sa.create_engine(url(path))
    with before.begin() as connection:
        migrate.step_up(connection, None, "0001")
        connection.execute(
            sa.text(
                "INSERT INTO keys (id, algorithm, backend, labels, created, updated, revision, established)"
                " VALUES ('old', 'EC_P256', 'soft', '{}', 1, 1, 1, 1)"
            )
        )
        connection.execute(
            sa.text(
                "INSERT INTO versions (key, number, state, protection, created, facts, uri, adopted, keep_object)"
                " VALUES ('old', 1, 'enabled', 'SOFTWARE', 1, '{}', '', 0, 0)"
            )
        )
    before.dispose()
    store = Store.open(url(path))
    row = await store.read(lambda c: queries.key(c, "old"))
    assert row is not None
    assert row.purpose == Purpose()
    assert row.control == DualControl()
    assert [one.number for one in await store.read(lambda c: queries.versions_of(c, "old"))] == [1]
    store.close()


def test_a_database_of_another_program_is_refused_and_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE keys (other INTEGER)")
    with pytest.raises(ConfigurationError, match="not of this program"):
        Store.open(url(path))
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("keys",)]


def test_the_newest_migration_is_the_one_that_the_program_thinks_is() -> None:
    script = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert script.get_heads() == [migrations.HEAD]


def test_a_database_of_a_newer_program_is_refused_and_left_alone(path: Path) -> None:
    Store.open(url(path)).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigurationError, match="9999") as caught:
        Store.open(url(path))
    assert "newer" in caught.value.hint
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("9999",)


@pytest.mark.parametrize("new", [True, False])
def test_a_start_without_migrations_does_not_load_the_tool_for_them(path: Path, new: bool) -> None:
    if not new:
        Store.open(url(path)).close()
    program = "import sys; from hsmsign.store import Store; Store.open({!r}).close(); print('alembic' in sys.modules)"
    code = program.format(url(path))
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize("bad", ["no url at all", "mysql://localhost/x", "sqlite+nothing:///x"])
def test_a_url_of_no_store_is_a_configuration_error(bad: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Store.open(bad)
    assert caught.value.hint


def test_a_file_that_is_no_database_is_a_configuration_error(path: Path) -> None:
    path.write_bytes(b"certainly not a database" * 100)
    with pytest.raises(ConfigurationError, match="no database"):
        Store.open(url(path))


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="nowhere") as caught:
        Store.open(url(tmp_path / "nowhere" / "store.db"))
    assert "folder" in caught.value.hint


async def test_what_is_put_in_comes_out_again(store: Store) -> None:
    await put(store)
    assert await store.read(lambda c: queries.key(c, "web-1")) == KEY
    assert await store.read(lambda c: queries.versions_of(c, "web-1")) == [VERSION]


async def test_a_transaction_that_fails_changes_nothing(store: Store) -> None:
    def work(connection: sa.Connection) -> None:
        queries.add_key(connection, KEY)
        raise KeyError

    with pytest.raises(KeyError):
        await store.write(work)
    assert await store.read(lambda c: queries.key(c, "web-1")) is None


async def test_every_commit_is_on_the_disk_and_foreign_keys_hold(store: Store) -> None:
    def pragma(name: str):
        return lambda connection: connection.execute(sa.text(f"PRAGMA {name}")).scalar()

    assert await store.read(pragma("journal_mode")) == "wal"
    assert await store.read(pragma("synchronous")) == 2
    assert await store.read(pragma("foreign_keys")) == 1


async def test_only_its_owner_reads_the_files(store: Store, path: Path) -> None:
    await put(store)
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in path.parent.glob("store.db*")} == {
        "store.db": "0o600",
        "store.db-shm": "0o600",
        "store.db-wal": "0o600",
    }


async def test_two_versions_cannot_stand_for_one_object(store: Store) -> None:
    await put(store)
    other = VersionRow("web-1", 2, VersionState.ENABLED, Protection.HSM, 5, holds="soft/1")
    with pytest.raises(StoreUnavailableError):
        await store.write(lambda c: queries.add_version(c, other))


async def test_a_version_that_never_was_takes_its_key_and_its_request_with_it(store: Store) -> None:
    await put(store, KeyRow("new", KeyAlgorithm.ED25519, "soft", {}, None, 1, 1, 1, False), None)
    await store.write(
        lambda c: queries.add_version(c, VersionRow("new", 1, VersionState.CREATING, Protection.HSM, 5, b"i"))
    )
    await store.write(lambda c: queries.add_request(c, RequestRow("r", "f", "new", 1)))
    await store.write(lambda c: queries.remove_version(c, "new", 1))
    assert await store.read(lambda c: queries.key(c, "new")) is None
    assert await store.read(lambda c: queries.request(c, "r")) is None


async def test_a_database_that_another_holds_is_unavailable(store: Store, path: Path) -> None:
    def impatient(connection: sa.Connection) -> None:
        connection.execute(sa.text("PRAGMA busy_timeout = 1"))

    await store.read(impatient)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(StoreUnavailableError) as caught:
            await put(store)
        assert caught.value.retry_after
        assert "another process" in caught.value.hint
    finally:
        other.close()
    await put(store)


async def test_the_event_loop_runs_while_the_database_is_waited_for(store: Store, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    writing = asyncio.create_task(put(store))
    for _ in range(20):
        await asyncio.sleep(0.005)
    assert not writing.done()
    other.execute("ROLLBACK")
    other.close()
    await writing


def few_variables(connection: sa.Connection) -> None:
    """As small as the limit of any SQLite, and in the proportion of PostgreSQL's: statements with more are refused."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    driver.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)


def many(connection: sa.Connection, names: list[str], backend: str, state: VersionState) -> None:
    for name in names:
        queries.add_key(connection, dataclasses.replace(KEY, id=name, backend=backend))
        row = dataclasses.replace(VERSION, key=name, state=state, holds=f"{backend}/{name}")
        queries.add_version(connection, row)
        queries.add_replica(
            connection, ReplicaRow(name, 1, "other", b"\x01", DeviceFacts(), "pkcs11:id=%01", f"other/{name}", 5)
        )


async def test_a_page_of_a_few_keys_asks_nothing_of_the_many_between_them(store: Store) -> None:
    await store.write(lambda c: many(c, [f"k{number:04}" for number in range(1200)], "soft", VersionState.ENABLED))
    await store.write(lambda c: many(c, ["a", "z"], "hsm", VersionState.ENABLED))

    def work(connection: sa.Connection) -> list[tuple[KeyRow, VersionRow | None]]:
        few_variables(connection)
        return queries.page(connection, "", 10, {}, "hsm")

    found = await store.read(work)
    assert [(key.id, version and len(version.replicas)) for key, version in found] == [("a", 1), ("z", 1)]


async def test_the_largest_page_and_all_that_is_unfinished_are_read_however_few_variables_a_statement_may_have(
    store: Store,
) -> None:
    names = [f"k{number:04}" for number in range(1200)]
    await store.write(lambda c: many(c, names, "soft", VersionState.DESTROYING))

    def work(connection: sa.Connection) -> tuple[list[tuple[KeyRow, VersionRow | None]], list[VersionRow]]:
        few_variables(connection)
        return queries.page(connection, "", PAGE_MAX + 1, {}, ""), queries.unfinished(connection, "other")

    page, unfinished = await store.read(work)
    assert [key.id for key, _ in page] == names[: PAGE_MAX + 1]
    assert all(version is not None and version.key == key.id for key, version in page)
    assert [row.key for row in unfinished] == names
    assert all([one.backend for one in row.replicas] == ["other"] for row in unfinished)


@pytest.fixture
def small_disk(tmp_path: Path):
    """A folder with half a mebibyte of room."""
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(mount)]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip(f"a small disk cannot be made: {made.stderr.strip()}")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=False)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as rest:
        for size in (4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    rest.write(b"\0" * size)


@pytest.mark.needs_root
async def test_a_full_disk_is_said_and_changes_nothing(small_disk: Path) -> None:
    store = Store.open(url(small_disk / "store.db"))
    await put(store)
    fill(small_disk / "rest")

    async def add_many() -> None:
        for number in range(2, 50):
            row = VersionRow("web-1", number, VersionState.ENABLED, Protection.HSM, 5, uri="x" * 20_000)
            await store.write(lambda c, row=row: queries.add_version(c, row))

    with pytest.raises(StoreFullError, match="disk"):
        await add_many()
    there = await store.read(lambda c: queries.versions_of(c, "web-1"))
    assert [row.number for row in there] == list(range(1, len(there) + 1))
    (small_disk / "rest").unlink()
    await store.write(lambda c: queries.touch_key(c, "web-1", 7))
    store.close()

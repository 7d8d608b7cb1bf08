"""The store over a real PostgreSQL server; what holds for both databases is in test_store.py."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from hsmsign.model.device import Protection
from hsmsign.model.errors import ConfigurationError, CrossedError, StoreUnavailableError
from hsmsign.store import Store, VersionRow, VersionState, migrate, queries
from hsmsign.store.tables import metadata
from tests.support.postgresql import PostgreSQL, start_postgresql
from tests.support.rows import KEY, VERSION


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    running = start_postgresql()
    yield running
    running.stop()


@pytest.fixture
def url(server: PostgreSQL) -> str:
    return server.new_database()


def add(connection: sa.Connection) -> None:
    queries.add_key(connection, KEY)
    queries.add_version(connection, VERSION)


async def test_what_is_put_in_comes_out_again_also_after_a_restart(url: str) -> None:
    store = Store.open(url)
    await store.write(add)
    store.close()
    again = Store.open(url)
    assert await again.read(lambda c: queries.key(c, "web-1")) == KEY
    assert await again.read(lambda c: queries.versions_of(c, "web-1")) == [VERSION]
    again.close()


def test_a_new_database_is_what_the_migrations_make(url: str, server: PostgreSQL) -> None:
    Store.open(url).close()
    other = server.new_database()
    with sa.create_engine(other).begin() as connection:
        migrate.step_up(connection, None)
    for made in (url, other):
        with sa.create_engine(made).connect() as connection:
            context = MigrationContext.configure(
                connection, opts={"compare_type": True, "compare_server_default": True}
            )
            assert compare_metadata(context, metadata) == []
    Store.open(other).close()


def test_daemons_that_start_together_on_an_empty_database_all_get_it(url: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        for store in pool.map(Store.open, [url] * 6):
            store.close()


def test_a_database_of_a_newer_program_is_refused(url: str) -> None:
    Store.open(url).close()
    with sa.create_engine(url).begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigurationError, match="9999"):
        Store.open(url)


async def test_of_two_versions_for_one_object_one_wins(url: str) -> None:
    store = Store.open(url)
    await store.write(add)
    other = VersionRow("web-1", 2, VersionState.ENABLED, Protection.HSM, 5, holds="soft/1")
    with pytest.raises(StoreUnavailableError):
        await store.write(lambda c: queries.add_version(c, other))
    assert await store.read(lambda c: queries.versions_of(c, "web-1")) == [VERSION]
    store.close()


async def test_changes_that_cross_are_not_both_believed(url: str) -> None:
    first, second = Store.open(url), Store.open(url)
    await first.write(add)
    together = asyncio.Barrier(2)
    loop = asyncio.get_running_loop()

    def add_version(number: int):
        def work(connection: sa.Connection) -> None:
            there = queries.versions_of(connection, "web-1")
            asyncio.run_coroutine_threadsafe(together.wait(), loop).result(30)
            if len(there) < 2:
                queries.add_version(
                    connection, VersionRow("web-1", number, VersionState.ENABLED, Protection.HSM, 5, holds=str(number))
                )

        return work

    ended = await asyncio.gather(first.write(add_version(2)), second.write(add_version(3)), return_exceptions=True)
    assert sorted(type(end) for end in ended if end is not None) == [CrossedError]
    assert len(await first.read(lambda c: queries.versions_of(c, "web-1"))) == 2
    first.close()
    second.close()


def test_a_server_that_is_away_is_said_without_its_password() -> None:
    with pytest.raises(StoreUnavailableError) as caught:
        Store.open("postgresql+psycopg://me:hunter2@127.0.0.1:1/hsmsign")
    assert caught.value.hint
    assert "hunter2" not in f"{caught.value.message} {caught.value.hint} {caught.value.metadata}"

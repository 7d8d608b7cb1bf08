"""The store: short transactions, one after the other, in a thread of their own."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from hsmsign.model.errors import CrossedError
from hsmsign.store import migrate
from hsmsign.store.engine import NO_OPTIONS, WRITING, connect, migrating, translate

T = TypeVar("T")


class Store:
    """A database with the tables that this program knows.

    Its transactions run in one thread: the event loop never waits for a disk, and two transactions of
    one process never wait for each other's locks.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")

    @classmethod
    def open(cls, url: str) -> Store:
        """Open, and bring to the newest tables, the database at a SQLAlchemy `url`. Blocks.

        Raises ConfigurationError for a URL or a database that cannot be ours, StoreUnavailableError and
        StoreFullError.
        """
        store = cls(connect(url))
        try:
            store._thread.submit(store._transact, migrate.upgrade, True, migrating(store._engine)).result()
        except BaseException:
            store.close()
            raise
        return store

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction that only reads, and give its answer."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transact, work, False)

    async def write(self, work: Callable[[Connection], T], *, crossed: int = 0) -> T:
        """Run `work` in a transaction: all of it is on the disk when this returns, or none of it ever. Where another
        daemon changed the same at the same time it is run again, at most `crossed` times.

        Cancelling the caller does not undo it: what was begun is finished.
        """
        loop = asyncio.get_running_loop()
        for left in range(crossed, -1, -1):
            try:
                return await loop.run_in_executor(self._thread, self._transact, work, True)
            except CrossedError:
                if not left:
                    raise
            await asyncio.sleep(random.uniform(0.001, 0.02))  # noqa: S311 - so that both do not meet again
        raise AssertionError("it returned or raised")

    def close(self) -> None:
        """Finish what is under way and let go of the database. Blocks."""
        self._thread.shutdown(wait=True)
        self._engine.dispose()

    def _transact(self, work: Callable[[Connection], T], writing: bool, options: Mapping[str, str] = NO_OPTIONS) -> T:
        try:
            with self._engine.connect() as connection:
                connection = connection.execution_options(**{WRITING: writing}, **options)
                with connection.begin():
                    return work(connection)
        except DBAPIError as error:
            raise translate(error, self._engine.url) from error

"""A whole daemon whose store is a PostgreSQL database."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.daemon import Daemon
from tests.support.postgresql import PostgreSQL, start_postgresql


@pytest.fixture
def server() -> Iterator[PostgreSQL]:
    running = start_postgresql()
    yield running
    running.stop()


def test_keys_are_kept_in_postgresql(server: PostgreSQL, new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon()
    database = server.new_database()
    daemon.configure(lambda text: text.replace("sqlite:///state/hsmsign.db", database))
    daemon.start()
    with daemon.client() as client:
        client.create_key("keys/web", algorithm="ecdsa-p256")
        client.rotate_key("keys/web")
        before = client.get_key("keys/web")
    for process in daemon.family():
        process.kill()
    assert daemon.process is not None
    daemon.process.wait()
    daemon.start()
    with daemon.client() as client:
        assert client.get_key("keys/web") == before
        client.sign("keys/web", digest=bytes(32))
    assert not list(daemon.folder.rglob("*.db"))

from collections.abc import Iterator

import pytest

from tests.support.daemon import Daemon


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """A daemon of the test's own, which may be killed."""
    running = Daemon().start()
    yield running
    running.remove()


@pytest.fixture(scope="module")
def shared_daemon() -> Iterator[Daemon]:
    """A daemon for tests that leave it as they found it."""
    running = Daemon().start()
    yield running
    running.remove()

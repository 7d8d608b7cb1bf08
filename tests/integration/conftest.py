from collections.abc import Callable, Iterator

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


@pytest.fixture
def new_daemon() -> Iterator[Callable[..., Daemon]]:
    """Makes daemons that are not started yet; whatever becomes of the test, they are gone after it."""
    made: list[Daemon] = []

    def make(**options: Callable[[str], str]) -> Daemon:
        made.append(Daemon(**options))
        return made[-1]

    yield make
    for daemon in made:
        daemon.remove()

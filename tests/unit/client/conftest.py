from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import hsmsign
from tests.support import fake_server


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[tuple[str, fake_server.State]]:
    target = f"unix://{tmp_path}/d.sock"
    server, state, _ = fake_server.serve(target)
    yield target, state
    server.stop(0).wait()


@pytest.fixture
def state(daemon) -> fake_server.State:
    return daemon[1]


@pytest.fixture
def client(daemon) -> Iterator[hsmsign.Client]:
    with hsmsign.connect(daemon[0]) as made:
        yield made

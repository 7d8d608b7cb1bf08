"""Which devices the contract is held against: each a function that makes a configuration in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hsmsign.backends.base import BackendConfig
from tests.support import softhsm
from tests.support.host_process import HostProcess


def soft(folder: Path) -> BackendConfig:
    return softhsm.config_for(softhsm.make_token(folder / "token"))


DEVICES: list[Callable[[Path], BackendConfig]] = [soft]


@pytest.fixture(scope="module", params=DEVICES, ids=lambda make: make.__name__)
def device(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    """A device in its host, ready."""
    folder = tmp_path_factory.mktemp("device")
    host = HostProcess(request.param(folder), folder)
    try:
        host.wait_for_state("READY")
        yield host
    finally:
        host.stop()

"""Which devices the contract is held against: each a function that makes a configuration in a folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hsmsign.backends.base import BackendConfig
from tests.support import softhsm, swtpm
from tests.support.host_process import HostProcess


@contextlib.contextmanager
def soft(folder: Path) -> Iterator[BackendConfig]:
    yield softhsm.config_for(softhsm.make_token(folder / "token"))


@contextlib.contextmanager
def tpm(folder: Path) -> Iterator[BackendConfig]:
    chip = swtpm.Swtpm(folder / "tpm")
    yield swtpm.config_for(chip)
    chip.stop()


DEVICES: list[Callable[[Path], contextlib.AbstractContextManager[BackendConfig]]] = [soft, tpm]


@pytest.fixture(scope="module", params=DEVICES, ids=lambda make: make.__name__)
def device(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    """A device in its host, ready."""
    folder = tmp_path_factory.mktemp("device")
    with request.param(folder) as config:
        host = HostProcess(config, folder)
        try:
            host.wait_for_state("READY")
            yield host
        finally:
            host.stop()

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import softhsm
from tests.support.host_process import HostProcess
from tests.support.softhsm import Faults


@pytest.fixture(scope="session")
def fault_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The module that makes faults, compiled."""
    return softhsm.build_fault_module(tmp_path_factory.mktemp("faultmod"))


@pytest.fixture
def faults(fault_module: Path, tmp_path: Path) -> Faults:
    """Steers the module of this test."""
    made = Faults(fault_module, tmp_path / "faults")
    made.set()
    return made


@pytest.fixture
def host(faults: Faults, tmp_path: Path) -> Iterator[Callable[..., HostProcess]]:
    """Starts a host on a token of its own, with faults on the way: `host(**changes to its configuration)`."""
    import dataclasses

    token = softhsm.make_token(tmp_path / "token")
    config = softhsm.config_for(token, module=faults.module)
    started: list[HostProcess] = []

    def start(*, pin_refused: bool = False, **changes: Any) -> HostProcess:
        changed = dataclasses.replace(config, **changes)
        made = HostProcess(changed, tmp_path, pin_refused=pin_refused, environment=faults.environment())
        started.append(made)
        return made

    yield start
    for made in started:
        made.stop()

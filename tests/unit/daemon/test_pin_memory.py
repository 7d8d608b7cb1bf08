"""Which PIN may be tried again after a device host ended, without ever reading one."""

from pathlib import Path

import pytest

from hsmsign.backends.base import BackendConfig, PinSource
from hsmsign.daemon.pin_memory import PinMemory


@pytest.fixture
def backend(tmp_path: Path) -> BackendConfig:
    (tmp_path / "pin").write_text("1234")
    return BackendConfig(name="b", kind="softhsm", pin=PinSource(file=tmp_path / "pin"))


def logged_in(backend: BackendConfig) -> PinMemory:
    memory = PinMemory()
    memory.host_starts(backend)
    memory.login_begins(backend)
    memory.device_is("READY")
    assert not memory.host_ended()
    return memory


def dies_in_login(memory: PinMemory, backend: BackendConfig) -> bool:
    memory.host_starts(backend)
    memory.login_begins(backend)
    return memory.host_ended()


def test_a_pin_that_was_never_good_rests_after_an_unfinished_login(backend: BackendConfig) -> None:
    memory = PinMemory()
    assert dies_in_login(memory, backend)
    assert memory.refused


def test_a_pin_that_was_good_may_be_tried_by_host_after_host(backend: BackendConfig) -> None:
    memory = logged_in(backend)
    assert not dies_in_login(memory, backend)
    assert not dies_in_login(memory, backend)
    assert not memory.refused


def test_a_pin_written_since_is_another_one(backend: BackendConfig, tmp_path: Path) -> None:
    memory = logged_in(backend)
    (tmp_path / "pin").write_text("4321")
    assert dies_in_login(memory, backend)


def test_a_pin_written_while_the_host_read_it_is_nobodys_proof(backend: BackendConfig, tmp_path: Path) -> None:
    memory = PinMemory()
    memory.host_starts(backend)
    (tmp_path / "pin").write_text("4321")
    memory.login_begins(backend)
    memory.device_is("READY")
    assert dies_in_login(memory, backend)


def test_another_token_by_the_same_pin_is_another_proof(backend: BackendConfig) -> None:
    memory = logged_in(backend)
    assert dies_in_login(memory, BackendConfig(name="b", kind="softhsm", pin=backend.pin, token_label="other"))


def test_a_pin_that_was_refused_has_lost_its_proof(backend: BackendConfig) -> None:
    memory = logged_in(backend)
    memory.device_is("PIN_REFUSED")
    assert memory.refused
    memory.person_reloads()
    assert not memory.refused
    assert dies_in_login(memory, backend)


def test_a_pin_whose_file_is_gone_proves_nothing(backend: BackendConfig, tmp_path: Path) -> None:
    memory = PinMemory()
    (tmp_path / "pin").unlink()
    memory.host_starts(backend)
    memory.login_begins(backend)
    memory.device_is("READY")
    assert dies_in_login(memory, backend)

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from hsmsign.daemon import listeners
from hsmsign.model.errors import ConfigurationError, UnavailableError


def test_a_port_is_reserved_and_can_be_shared_by_workers() -> None:
    reserved, port = listeners.reserve_port("127.0.0.1", 0)
    with reserved, socket.socket() as worker:
        worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        worker.bind(("127.0.0.1", port))
        worker.listen()
        with socket.create_connection(("127.0.0.1", port)):
            pass


def test_a_port_that_somebody_has_is_refused() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ConfigurationError, match="cannot listen"):
            listeners.reserve_port("127.0.0.1", other.getsockname()[1])


def test_a_unix_socket_that_nobody_answers_on_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listeners.open_public_unix(path, "").close()
    with listeners.open_public_unix(path, ""), socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))
        assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_a_unix_socket_that_is_in_use_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with listeners.open_public_unix(path, ""):
        with pytest.raises(ConfigurationError, match="somebody listens"):
            listeners.open_public_unix(path, "")
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(path))


def test_a_file_in_the_sockets_place_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(ConfigurationError, match="is no socket"):
        listeners.open_public_unix(path, "")
    assert path.read_text() == "precious"


def test_a_path_that_no_socket_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="107 bytes"):
        listeners.open_public_unix(tmp_path / ("x" * 120), "")


def test_a_hosts_socket_may_lie_deeper_than_that(tmp_path: Path) -> None:
    from hsmsign.devices.connection import open_connection

    folder = tmp_path / ("x" * 120)
    listening, path = listeners.open_host_socket(folder, "soft")
    with listening, open_connection(path, 1):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_state_folder_and_a_run_folder_have_one_daemon(tmp_path: Path) -> None:
    import os

    for lock_folder, called in ((listeners.lock_state, "state"), (listeners.lock_run, "run")):
        lock = lock_folder(tmp_path)
        with pytest.raises(UnavailableError, match=rf"process {os.getpid()}\) uses the {called} folder"):
            lock_folder(tmp_path)
        os.close(lock)
        os.close(lock_folder(tmp_path))


def test_two_daemons_do_not_share_a_port_by_mistake() -> None:
    reserved, port = listeners.reserve_port("127.0.0.1", 0)
    with reserved, pytest.raises(ConfigurationError, match="cannot listen"):
        listeners.reserve_port("127.0.0.1", port)

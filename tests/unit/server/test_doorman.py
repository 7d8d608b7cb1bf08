from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import grpc
import pytest
import structlog

from hsmsign.model.errors import ConfigurationError
from hsmsign.server.doorman import Doorman, affordable, own_folder


@pytest.fixture
def listen(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "public"))
        listening.listen()
        listening.setblocking(False)
        yield listening


async def test_grpc_sees_who_called_through_the_door(tmp_path: Path, listen: socket.socket) -> None:
    async def who(_: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return context.peer().encode()

    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler("t.T", {"Who": grpc.unary_unary_rpc_method_handler(who)})
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"unix:{tmp_path / 'inner'}")
    await server.start()
    doorman = Doorman(listen, tmp_path / "inner", "hsmsign-test", 8, 4)
    try:
        async with grpc.aio.insecure_channel(f"unix:{tmp_path / 'public'}") as channel:
            peer = unquote((await channel.unary_unary("/t.T/Who")(b"", timeout=20)).decode())
        kind, _, rest = peer.partition(":")
        prefix, uid, gid, pid, number = rest.split("/")
        assert (kind, prefix) == ("unix-abstract", "hsmsign-test")
        assert (int(uid), int(gid), int(pid)) == (os.getuid(), os.getgid(), os.getpid())
        assert number.isdigit()
    finally:
        doorman.close()
        await server.stop(None)


def test_a_closed_door_keeps_what_is_open(tmp_path: Path, listen: socket.socket) -> None:
    with socket.socket(socket.AF_UNIX) as inner:
        inner.bind(str(tmp_path / "inner"))
        inner.listen()
        inner.settimeout(20)
        doorman = Doorman(listen, tmp_path / "inner", "hsmsign-test", 8, 4)
        try:
            with socket.socket(socket.AF_UNIX) as caller:
                caller.connect(str(tmp_path / "public"))
                caller.settimeout(20)
                arrived, _ = inner.accept()
                with arrived:
                    arrived.settimeout(20)
                    doorman.close_door()
                    caller.sendall(b"still")
                    assert arrived.recv(5) == b"still"
                    assert doorman.connections() == 1
        finally:
            doorman.close()


def test_an_inner_path_that_no_socket_can_have_is_refused(tmp_path: Path, listen: socket.socket) -> None:
    with pytest.raises(ConfigurationError, match="too long"):
        Doorman(listen, tmp_path / ("x" * 120), "hsmsign-test", 8, 4)


@pytest.fixture
def descriptors() -> Iterator[Callable[[int], None]]:
    """Sets how many this process may have, for one test."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda count: resource.setrlimit(resource.RLIMIT_NOFILE, (count, before[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    ("limit", "wanted", "found"),
    [
        (16384, (1024, 512), (1024, 512)),
        (1024, (1024, 512), (256, 128)),
        (512, (1024, 512), (128, 64)),
        (512, (100, 20), (100, 20)),
        (512, (100, 80), (100, 50)),
        (512, (1, 1), (1, 1)),
    ],
)
def test_there_are_as_many_connections_as_there_are_descriptors_for_and_half_of_them_for_one_user(
    limit: int, wanted: tuple[int, int], found: tuple[int, int], descriptors: Callable[[int], None]
) -> None:
    descriptors(limit)
    assert affordable(*wanted) == found


def test_a_user_with_all_connections_that_he_gets_leaves_descriptors_for_others(
    tmp_path: Path, listen: socket.socket, descriptors: Callable[[int], None]
) -> None:
    descriptors(640)
    with socket.socket(socket.AF_UNIX) as inner, contextlib.ExitStack() as stack:
        inner.bind(str(tmp_path / "inner"))
        inner.listen(512)
        inner.settimeout(20)
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - it is no folder of files
        with structlog.testing.capture_logs() as logs:
            doorman = Doorman(listen, tmp_path / "inner", "hsmsign-test", 1024, 512)
        stack.callback(doorman.close)
        most = affordable(1024, 512)[1]
        said = [(entry["log_level"], entry["configured"], entry["of_a_user"]) for entry in logs]
        assert said == [("warning", 1024, most)]
        # ours are in another process, as callers are: their descriptors are not the daemon's
        script = "import socket, sys; mine = [socket.socket(socket.AF_UNIX) for _ in range(int(sys.argv[2]))]\n"
        script += "for one in mine: one.connect(sys.argv[1])\nsys.stdin.read()"
        command = [sys.executable, "-c", script, str(tmp_path / "public"), str(most + 20)]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as callers:
            arrived = [stack.enter_context(inner.accept()[0]) for _ in range(most)]
            deadline = time.monotonic() + 20
            while doorman.connections() < most and time.monotonic() < deadline:
                time.sleep(0.01)  # it connects first, and counts then
            assert doorman.connections() == len(arrived) == most
            used = len(os.listdir("/proc/self/fd")) - before  # noqa: PTH208
            assert 3 * most <= used < 640 // 2
            callers.communicate(b"")
        assert callers.returncode == 0


def test_a_process_gets_all_descriptors_that_it_may_have() -> None:
    script = """
import resource
from hsmsign.server.doorman import raise_descriptors
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
raise_descriptors()
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_the_folder_of_the_private_sockets_becomes_the_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "workers"
    own_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    own_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("what", ["a file", "a link"])
def test_what_stands_in_the_folders_place_is_refused_and_left_alone(what: str, tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "workers", tmp_path / "elsewhere"
    elsewhere.mkdir()
    elsewhere.chmod(0o755)
    if what == "a file":
        folder.write_text("x")
    else:
        folder.symlink_to(elsewhere)
    with pytest.raises(ConfigurationError, match="cannot make the folder"):
        own_folder(folder)
    assert elsewhere.stat().st_mode & 0o777 == 0o755
    assert folder.is_symlink() == (what == "a link")

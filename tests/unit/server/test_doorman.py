from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import grpc
import pytest

from hsmsign.model.errors import ConfigurationError
from hsmsign.server.doorman import Doorman


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
    doorman = Doorman(listen, tmp_path / "inner", "hsmsign-test", 8, 8)
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
        doorman = Doorman(listen, tmp_path / "inner", "hsmsign-test", 8, 8)
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
        Doorman(listen, tmp_path / ("x" * 120), "hsmsign-test", 8, 8)

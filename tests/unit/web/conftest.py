"""HTTP ports that serve in a thread, and what strangers send to them."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import pytest
import uvloop
from starlette.applications import Starlette

from hsmsign.model.tls import TlsPaths
from hsmsign.pki.authority import Urls, Version
from hsmsign.pki.catalogue import Catalogue
from hsmsign.pki.crl_writing import CrlWriter
from hsmsign.pki.directory import Directory
from hsmsign.pki.identity.verifying import Identities
from hsmsign.pki.issuing import Issuing
from hsmsign.pki.ocsp_answers import Responder
from hsmsign.pki.office import Office
from hsmsign.pki.publishing import Publisher
from hsmsign.pki.queue import IssueQueue
from hsmsign.pki.responders import Delegate
from hsmsign.pki.responding import Responding
from hsmsign.pki.settings import CrlTimes, OcspTimes
from hsmsign.pki.trust import Trust
from hsmsign.web.server import WebServer
from tests.support.daemon import eventually
from tests.unit.pki.conftest import SCHEME, Desk, desk

__all__ = ["desk"]


class Port:
    """An application behind a socket of the loopback, from `with` to its end."""

    def __init__(
        self,
        application: Starlette,
        *,
        connections: int = 64,
        tls: TlsPaths | None = None,
        **more: Any,
    ) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.address: tuple[str, int] = self._socket.getsockname()
        self._made = lambda: WebServer(self._socket, application, connections, tls, **more)
        self.server: WebServer
        self.faults: list[dict[str, Any]] = []
        """What the event loop was left with."""
        self._began = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Port:
        self._thread.start()
        self._began.wait()
        eventually(lambda: self.server._server.started)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.stop()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.get_loop().set_exception_handler(lambda _, context: self.faults.append(context))
            self.server = self._made()
            self._began.set()
            runner.run(self.server.run())

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self.server._server.server_state.connections)

    def call(self, *, source: str = "127.0.0.1", buffer: int = 0) -> socket.socket:
        """A connection; `buffer`: how much of an answer it takes that is not read."""
        made = socket.socket()
        if buffer:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        made.bind((source, 0))
        made.settimeout(30)
        made.connect(self.address)
        return made

    def send(self, *parts: bytes, source: str = "127.0.0.1") -> bytes:
        """What is answered until the port hangs up."""
        with self.call(source=source) as one:
            for part in parts:
                one.sendall(part)
            return until_the_end(one)


def until_the_end(one: socket.socket) -> bytes:
    """What comes before the other side hangs up, however it does."""
    found = bytearray()
    try:
        while data := one.recv(65_536):
            found += data
    except ConnectionError:
        pass
    return bytes(found)


def until(one: socket.socket, words: bytes) -> bytes:
    """What comes, up to these words."""
    found = b""
    while words not in found and (data := one.recv(4096)):
        found += data
    return found


def get(path: str = "/", *headers: str, close: bool = True) -> bytes:
    """A request."""
    words = [f"GET {path} HTTP/1.1", "Host: x", *headers, *(["Connection: close"] if close else [])]
    return "\r\n".join([*words, "", ""]).encode()


def post(path: str, body: bytes, kind: str, *headers: str) -> bytes:
    """A request with a body."""
    words = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*words, "Connection: close", *headers, "", ""]).encode() + body


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing was worth more than a warning."""
    yield
    assert [one.getMessage() for one in caplog.get_records("call") if one.levelno >= logging.ERROR] == []


class Itself:
    """The authority signs its OCSP answers itself."""

    def __init__(self, desk: Desk) -> None:
        self._delegate = Delegate("keys/root/versions/1", Responder(desk.version.certificate, "key", SCHEME))

    async def of(self, version: Version) -> Delegate:
        return self._delegate


def office_of(desk: Desk) -> Office:
    """All that the ports for strangers ask, with a key that signs in this process; nothing is made or revoked by it."""
    signer: Any = desk.signer()
    delegates: Any = Itself(desk)
    nothing: Any = None
    directory, urls, catalogue = Directory(desk.store), Urls("http://x"), Catalogue(())
    queue, writer = IssueQueue(desk.store, signer), CrlWriter(desk.store, signer, urls)
    return Office(
        desk.store,
        urls,
        directory,
        catalogue,
        queue,
        Issuing(directory, catalogue, Identities(()), queue, urls),
        nothing,
        nothing,
        writer,
        Publisher(desk.store, directory, writer, CrlTimes()),
        Responding(desk.store, directory, delegates, signer, OcspTimes()),
        Trust(desk.store, directory),
    )


@pytest.fixture
def office(desk: Desk) -> Office:
    return office_of(desk)

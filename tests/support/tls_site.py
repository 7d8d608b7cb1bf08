"""A site behind TLS: a CA, a server's certificate, and clients with theirs."""

from __future__ import annotations

import datetime as dt
import http.client
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509

from hsmsign.tls.peer import Peer
from tests.support.authority import Authority

GREEN, ORANGE = "spiffe://example.org/green", "spiffe://example.org/orange"
RULES = """
[[rule]]
peers = ["spiffe://example.org/green"]
methods = ["GET", "POST", "WEBSOCKET"]
paths = ["/articles/**"]

[[rule]]
peers = ["spiffe://example.org/orange"]
methods = ["GET", "HEAD"]

[[rule]]
peers = ["spiffe://example.org/*"]
calls = ["/shop.v1.Shop/Read*"]
"""


def peer(name: str, key: str = "sha256:00") -> Peer:
    """One that was verified."""
    return Peer(name, key, "CN=x", 0.0, 4e9)


class Site:
    """Its files are NAME.pem and NAME.key, and ca.pem."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority()
        (folder / "ca.pem").write_bytes(self.authority.pem)
        self.issue("server", x509.DNSName("localhost"))
        for name in ("green", "orange"):
            self.issue(name, x509.UniformResourceIdentifier(f"spiffe://example.org/{name}"))

    def issue(self, name: str, *names: x509.GeneralName, lasts: dt.timedelta = dt.timedelta(hours=1)) -> bytes:
        """A certificate, in a file and as PEM."""
        key, certificate = self.authority.issue(*names, lasts=lasts)
        (self.folder / f"{name}.key").write_bytes(key)
        (self.folder / f"{name}.pem").write_bytes(certificate)
        return certificate

    def pair(self, name: str) -> tuple[bytes, bytes]:
        """Key and certificate, PEM."""
        return (self.folder / f"{name}.key").read_bytes(), (self.folder / f"{name}.pem").read_bytes()

    def server(self, verify: ssl.VerifyMode = ssl.CERT_OPTIONAL) -> ssl.SSLContext:
        """A server's context."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.pem", self.folder / "server.key")
        context.load_verify_locations(self.folder / "ca.pem")
        context.verify_mode = verify
        return context

    def client(self, name: str = "") -> ssl.SSLContext:
        """A client's context; without a name it has no certificate."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        if name:
            context.load_cert_chain(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        return context

    def ask(
        self, port: int, name: str, method: str, target: str, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and content of one answer; the target is sent as it stands."""
        connection = http.client.HTTPSConnection("localhost", port, timeout=20, context=self.client(name))
        try:
            connection.request(method, target, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both sides of a connection, in memory."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = server.wrap_bio(up, down, server_side=True)
    ours = client.wrap_bio(down, up, server_hostname="localhost")
    for _ in range(4):
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return theirs, ours


@contextmanager
def running(run, stop) -> Iterator[None]:
    """A server in a thread."""
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop()
        thread.join(20)
        assert not thread.is_alive()

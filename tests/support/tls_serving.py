"""Servers behind TLS whose certificates come from a CA for an afternoon, OCSP answers of it, and clients of them."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509 import ocsp

from tests.support.authority import Authority

MUST_STAPLE = x509.TLSFeature([x509.TLSFeatureType.status_request])
SIGNS_OCSP = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.OCSP_SIGNING])
SECONDS = 20


class Certificates:
    """A CA, and NAME.pem (with the CA behind it) and NAME.key in a folder; the CA's own is ca.pem."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder = folder
        self.authority = Authority(name)
        (folder / "ca.pem").write_bytes(self.authority.pem)

    def issue(self, name: str, *hosts: str, extensions: Sequence[x509.ExtensionType] = (), **more: object) -> bytes:
        """A certificate for hosts (or `uri:…`), PEM, without the CA."""
        names = [
            x509.UniformResourceIdentifier(one[4:]) if one.startswith("uri:") else x509.DNSName(one) for one in hosts
        ]
        key, pem = self.authority.issue(*names, subject=name, extensions=extensions, **more)  # type: ignore[arg-type]
        (self.folder / f"{name}.pem").write_bytes(pem + self.authority.pem)
        (self.folder / f"{name}.key").write_bytes(key)
        return pem

    def chain(self, name: str) -> bytes:
        return (self.folder / f"{name}.pem").read_bytes()

    def server(self, name: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        return context

    def client(self, name: str = "", newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        context.maximum_version = newest
        if name:
            context.load_cert_chain(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        return context

    def answer(
        self,
        pem: bytes,
        status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD,
        *,
        since: float = -60,
        until: float | None = 3600,
        by: tuple[bytes, bytes] | None = None,
        issuer: x509.Certificate | None = None,
        hash: hashes.HashAlgorithm | None = None,
    ) -> bytes:
        """An OCSP answer, DER, for a certificate; `by` is key and certificate (PEM) of a delegate; times are seconds
        from now."""
        now = dt.datetime.now(dt.UTC).replace(microsecond=0)
        revoked = status is ocsp.OCSPCertStatus.REVOKED
        key, signer = self.authority.key, self.authority.certificate
        if by is not None:
            key, signer = load_pem_private_key(by[0], None), x509.load_pem_x509_certificate(by[1])  # type: ignore[assignment]
        builder = ocsp.OCSPResponseBuilder().add_response(
            cert=x509.load_pem_x509_certificate(pem),
            issuer=issuer or self.authority.certificate,
            algorithm=hash or hashes.SHA1(),
            cert_status=status,
            this_update=now + dt.timedelta(seconds=since),
            next_update=None if until is None else now + dt.timedelta(seconds=until),
            revocation_time=now if revoked else None,
            revocation_reason=None,
        )
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.NAME, signer)
        if by is not None:
            builder = builder.certificates([signer])
        return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


@contextmanager
def serving(context: ssl.SSLContext) -> Iterator[int]:
    """A server on a port that is given: it tells each client its own certificate's subject, whether a session was
    resumed, and whom it took the client for."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_accept, args=(listener, context))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(SECONDS)
            assert not thread.is_alive()


def _accept(listener: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        try:
            plain, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_tell, args=(plain, context)).start()


def _tell(plain: socket.socket, context: ssl.SSLContext) -> None:
    plain.settimeout(SECONDS)
    with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as connection:
        peer = connection.getpeercert()
        who = dict(pair[0] for pair in peer["subject"])["commonName"] if peer else "nobody"
        reused = "resumed" if connection.session_reused else "new"
        connection.sendall(f"{reused} {who} {connection.context.verify_mode.name}\n".encode())
        connection.unwrap()


class Said:
    """What a client saw."""

    def __init__(self, connection: ssl.SSLSocket, words: bytes) -> None:
        self.words = words.decode().split()
        self.session = connection.session
        self.connection = connection
        found = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")
        self.serial = found.serial_number
        self.server = found.subject.rfc4514_string().removeprefix("CN=")


def ask(
    port: int, context: ssl.SSLContext, name: str | None = "localhost", session: ssl.SSLSession | None = None
) -> Said:
    """One connection, to its end. Raises OSError (ssl.SSLError) where it is refused."""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as plain:
        connection = context.wrap_socket(plain, server_hostname=name, session=session)
        words = b""
        while piece := connection.recv(4096):
            words += piece
        said = Said(connection, words)
        with contextlib.suppress(OSError):
            connection.unwrap()
        return said


def s_client(port: int, *words: str | Path) -> str:
    """What `openssl s_client` says, until the server closes."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-ign_eof", *map(str, words)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=60
    )
    return done.stdout.decode(errors="replace")

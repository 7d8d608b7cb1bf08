"""nginx and HAProxy with keys on a device staple what a file says, as `hsmsign ocsp staple` writes it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from tests.support.daemon import Daemon
from tests.support.programs import Pair, Place, haproxy, nginx


@pytest.fixture(scope="module")
def home() -> Iterator[Daemon]:
    daemon = Daemon().start()
    with daemon.unix_client() as client:
        client.create_key("web", "ecdsa-p256", purpose="tls-server")
    yield daemon
    daemon.remove()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def served(home: Daemon, place: Place) -> Pair:
    with home.unix_client() as client:
        return place.pair(client, "web")


def answer(place: Place, served: Pair) -> bytes:
    """That the certificate is good, signed by its CA."""
    now = dt.datetime.now(dt.UTC)
    leaf = x509.load_pem_x509_certificates(served.certificate.read_bytes())[0]
    ca = place.authority
    builder = ocsp.OCSPResponseBuilder().add_response(
        leaf, ca.certificate, hashes.SHA1(), ocsp.OCSPCertStatus.GOOD, now, now + dt.timedelta(hours=1), None, None
    )
    signed = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, ca.certificate).sign(ca.key, hashes.SHA256())
    return signed.public_bytes(Encoding.DER)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_nginx_staples_a_file(place: Place, served: Pair, version: str) -> None:
    file = place.folder / "web.ocsp"
    file.write_bytes(answer(place, served))
    with nginx(place, served, more=f"ssl_stapling on; ssl_stapling_file {file};") as server:
        said = place.s_client(server.port, "-status", version)
        assert "Cert Status: good" in said
        assert "Verify return code: 0 (ok)" in said


def test_haproxy_staples_the_file_beside_the_certificate(place: Place, served: Pair) -> None:
    bundle = place.folder / "bundle.pem"
    bundle.write_bytes(b"".join(one.read_bytes() for one in (served.certificate, place.ca, served.reference)))
    (place.folder / "bundle.pem.ocsp").write_bytes(answer(place, served))
    with haproxy(place, bundle) as server:
        said = place.s_client(server.port, "-status")
        assert "Cert Status: good" in said
        assert "Verify return code: 0 (ok)" in said

"""Who a TLS client is: what a real handshake has proven, and nobody without one."""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from hsmsign.model.errors import UnauthenticatedError
from hsmsign.tls.peer import Peer
from tests.support.tls_site import GREEN, Site, handshake

URI, DNS = x509.UniformResourceIdentifier, x509.DNSName


def key_of(pem: bytes) -> str:
    key = x509.load_pem_x509_certificate(pem).public_key()
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"sha256:{hashlib.sha256(der).hexdigest()}"


def test_a_spiffe_id_comes_first_then_a_dns_name_an_address_and_the_key_but_never_the_subject(site: Site) -> None:
    def name(*names: x509.GeneralName) -> str:
        return Peer.of_pem(site.authority.issue(*names, subject="Ann")[1]).name

    assert name(DNS("web.internal"), URI("https://x"), URI("spiffe://corp/web")) == "spiffe://corp/web"
    assert name(URI("https://x"), x509.RFC822Name("a@b"), DNS("Web.internal"), DNS("b")) == "dns:web.internal"
    assert name(x509.RFC822Name("Ann@corp.example")) == "email:ann@corp.example"
    pem = site.authority.issue(subject="Ann")[1]
    assert Peer.of_pem(pem).names == (key_of(pem),)
    assert Peer.of_pem(pem).subject == "CN=Ann"


def test_a_peer_is_known_by_its_key_too(site: Site) -> None:
    pem = site.pair("green")[1]
    assert Peer.of_pem(pem).names == (GREEN, key_of(pem))


def test_two_spiffe_ids_are_nobody(site: Site) -> None:
    pem = site.authority.issue(URI("spiffe://corp/web"), URI("spiffe://corp/admin"))[1]
    with pytest.raises(UnauthenticatedError, match="2 SPIFFE IDs"):
        Peer.of_pem(pem)


@pytest.mark.parametrize("data", [b"", b"0", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_cannot_be_read_is_nobody(data: bytes) -> None:
    for read in (Peer.of_der, Peer.of_pem):
        with pytest.raises(UnauthenticatedError, match="cannot be read"):
            read(data)


@pytest.mark.parametrize("verify", [ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED])
def test_a_handshake_says_who_the_client_is(site: Site, verify: ssl.VerifyMode) -> None:
    theirs, _ = handshake(site.server(verify), site.client("green"))
    found = Peer.of_tls(theirs)
    assert found is not None
    assert found.name == GREEN
    assert found.not_before < found.not_after


def test_a_client_without_a_certificate_is_nobody(site: Site) -> None:
    theirs, _ = handshake(site.server(), site.client())
    assert Peer.of_tls(theirs) is None


def test_a_certificate_that_nobody_verified_names_nobody(site: Site) -> None:
    careless = site.client("green")
    careless.check_hostname, careless.verify_mode = False, ssl.CERT_NONE
    theirs, ours = handshake(site.server(), careless)
    assert ours.getpeercert(binary_form=True)
    assert Peer.of_tls(ours) is None
    assert Peer.of_tls(theirs) is not None


def test_a_connection_without_tls_or_before_its_handshake_is_nobody(site: Site) -> None:
    assert Peer.of_tls(None) is None
    assert Peer.of_tls(Path()) is None
    waiting = site.server().wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
    assert Peer.of_tls(waiting) is None

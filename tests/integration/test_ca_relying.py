"""What relying parties find over plain HTTP: OCSP, CRLs, certificates, bundles."""

from __future__ import annotations

import base64
import datetime as dt
import json
import select
import socket
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from hsmsign.client import CertificateInfo
from tests.support.daemon import Daemon, eventually
from tests.support.pki import PROFILES, Files, fetch, make_csr, make_hierarchy, openssl, with_ca

DELTAS = '\n[crl]\nevery = "1h"\nlifetime = "1d"\ndelta_every = "10m"\nsettle = "1s"\n'


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    running = with_ca(DELTAS + PROFILES)(Daemon()).start()
    with running.client() as client:
        make_hierarchy(client)
    yield running
    running.remove()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def issuer(daemon: Daemon) -> x509.Certificate:
    return x509.load_der_x509_certificate(fetch(daemon, "/ca/issuing.cer").body)


def issue(daemon: Daemon) -> CertificateInfo:
    with daemon.client() as client:
        return client.ca.issue("issuing", make_csr("web.example.org"), profile="server")


def question(leaf: x509.Certificate, above: x509.Certificate, nonce: bytes | None = None) -> bytes:
    builder = ocsp.OCSPRequestBuilder().add_certificate(leaf, above, hashes.SHA1())
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return builder.build().public_bytes(Encoding.DER)


def ask(daemon: Daemon, der: bytes) -> ocsp.OCSPResponse:
    page = fetch(daemon, "/ocsp", {"content-type": "application/ocsp-request"}, der)
    assert page.status == 200
    assert page.headers["content-type"] == "application/ocsp-response"
    return ocsp.load_der_ocsp_response(page.body)


def by_get(daemon: Daemon, der: bytes, headers: dict[str, str] | None = None):  # type: ignore[no-untyped-def]
    return fetch(daemon, "/ocsp/" + urllib.parse.quote(base64.b64encode(der).decode(), safe=""), headers)


def test_openssl_asks_and_believes(daemon: Daemon, files: Files) -> None:
    made = issue(daemon)
    root, above = files.put("root.pem", fetch(daemon, "/ca/root.pem").body), files.put("above.pem", issuer(daemon))
    words = ("ocsp", "-issuer", above, "-cert", files.put("leaf.pem", made), "-CAfile", root)
    words = (*words, "-url", f"http://{daemon.endpoints['web']}/ocsp")
    good = openssl(*words)
    assert "leaf.pem: good" in good.stdout, good.stdout + good.stderr
    assert "Response verify OK" in good.stderr
    with daemon.client() as client:
        client.ca.revoke(made.serial, reason="keyCompromise")
    bad = openssl(*words)
    assert "leaf.pem: revoked" in bad.stdout
    assert "keyCompromise" in bad.stdout
    assert "Response verify OK" in bad.stderr


def test_the_responder_is_a_delegate_whose_key_signs_nothing_else(daemon: Daemon) -> None:
    above = issuer(daemon)
    answer = ask(daemon, question(issue(daemon).certificate, above))
    delegate = answer.certificates[0]
    delegate.verify_directly_issued_by(above)
    usage = delegate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.ExtendedKeyUsageOID.OCSP_SIGNING]
    assert delegate.extensions.get_extension_for_class(x509.OCSPNoCheck)
    with daemon.client() as client:
        assert client.public_key("issuing-ocsp") == delegate.public_key()
        assert client.get_key("issuing-ocsp").purpose.kind.value == "ocsp"


def test_a_nonce_comes_back_and_such_an_answer_is_not_kept(daemon: Daemon) -> None:
    der = question(issue(daemon).certificate, issuer(daemon), bytes(range(32)))
    page = by_get(daemon, der)
    answer = ocsp.load_der_ocsp_response(page.body)
    assert answer.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == bytes(range(32))
    assert page.headers["cache-control"] == "no-store"


def test_an_answer_without_a_nonce_is_kept_by_us_and_by_caches(daemon: Daemon) -> None:
    der = question(issue(daemon).certificate, issuer(daemon))
    first, second = by_get(daemon, der), by_get(daemon, der)
    assert first.body == second.body
    assert first.headers["etag"] == second.headers["etag"]
    assert "public" in first.headers["cache-control"]
    assert "max-age=" in first.headers["cache-control"]
    again = by_get(daemon, der, {"If-None-Match": first.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    answer = ocsp.load_der_ocsp_response(first.body)
    assert answer.next_update_utc is not None
    assert answer.next_update_utc - answer.this_update_utc == dt.timedelta(hours=4)


def test_a_kept_answer_is_forgotten_when_its_certificate_is_revoked(daemon: Daemon) -> None:
    made = issue(daemon)
    der = question(made.certificate, issuer(daemon))
    assert ask(daemon, der).certificate_status is ocsp.OCSPCertStatus.GOOD
    with daemon.client() as client:
        client.ca.revoke(made.serial, reason="superseded")
    answer = ask(daemon, der)
    assert answer.certificate_status is ocsp.OCSPCertStatus.REVOKED
    assert answer.revocation_reason is x509.ReasonFlags.superseded


def by_hash(above: x509.Certificate, serial: int) -> bytes:
    digest = hashes.Hash(hashes.SHA1())
    digest.update(above.subject.public_bytes())
    key = x509.SubjectKeyIdentifier.from_public_key(above.public_key()).digest  # type: ignore[arg-type]
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(digest.finalize(), key, serial, hashes.SHA1())
    return builder.build().public_bytes(Encoding.DER)


def test_what_was_never_issued_is_unknown(daemon: Daemon) -> None:
    answer = ask(daemon, by_hash(issuer(daemon), 1234567))
    assert answer.certificate_status is ocsp.OCSPCertStatus.UNKNOWN
    # nor by this one of ours
    root = x509.load_der_x509_certificate(fetch(daemon, "/ca/root.cer").body)
    answer = ask(daemon, by_hash(root, issue(daemon).certificate.serial_number))
    assert answer.certificate_status is ocsp.OCSPCertStatus.UNKNOWN


def test_another_ca_is_not_answered_for(daemon: Daemon) -> None:
    serial = issue(daemon).certificate.serial_number
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(bytes(20), bytes(20), serial, hashes.SHA1())
    answer = ask(daemon, builder.build().public_bytes(Encoding.DER))
    assert answer.response_status is ocsp.OCSPResponseStatus.UNAUTHORIZED


@pytest.mark.parametrize("body", [b"", b"nonsense", b"\x30\x80", bytes(4000)])
def test_nonsense_is_a_malformed_request(daemon: Daemon, body: bytes) -> None:
    answer = ask(daemon, body)
    assert answer.response_status is ocsp.OCSPResponseStatus.MALFORMED_REQUEST
    assert ocsp.load_der_ocsp_response(fetch(daemon, "/ocsp/%00%ff").body).response_status.name == "MALFORMED_REQUEST"


def test_what_is_too_large_or_of_another_kind_is_refused(daemon: Daemon) -> None:
    kind = {"content-type": "application/ocsp-request"}
    assert fetch(daemon, "/ocsp", kind, bytes(5000)).status == 413
    assert fetch(daemon, "/ocsp", {"content-type": "text/plain"}, b"x").status == 415
    assert fetch(daemon, "/ocsp").status == 405
    for path in ("/", "/crl/nobody/1.crl", "/crl/issuing/9.crl", "/crl/issuing/1/5.crl", "/ca/nobody.cer", "/metrics"):
        assert fetch(daemon, path).status == 404, path


@pytest.mark.parametrize("number", ["7", "999999999", "9" * 10, "9" * 5_000, "1%0A", "x"])
def test_a_number_that_nothing_has_is_not_found_and_leaves_nothing_in_the_log(daemon: Daemon, number: str) -> None:
    before = len(daemon.log())
    for path in (f"/crl/issuing/{number}.crl", f"/crl/issuing/1/{number}.delta.crl", f"/ca/issuing/{number}.cer"):
        assert fetch(daemon, path).status == 404, path
    assert fetch(daemon, f"/ca/issuing%0A{number}.pem").status == 404
    assert "Traceback" not in daemon.log()[before:]


def test_one_address_takes_no_more_than_its_share_of_the_places(daemon: Daemon) -> None:
    host, _, port = daemon.endpoints["web"].rpartition(":")
    held = [socket.create_connection((host, int(port))) for _ in range(260)]
    try:
        for one in held:
            one.settimeout(10)
        left = 0

        def few() -> bool:
            nonlocal left
            left = sum(not select.select([one], [], [], 0)[0] for one in held)
            return left <= 256

        eventually(few, "one address keeps more than a quarter of the places")
        assert left > 200
    finally:
        for one in held:
            one.close()
    eventually(lambda: answers(daemon), "it does not recover")


def answers(daemon: Daemon) -> bool:
    try:
        return fetch(daemon, "/ca/root.cer").status == 200
    except OSError:
        return False


def test_crls_say_how_long_they_may_be_kept(daemon: Daemon) -> None:
    page = eventually(lambda: found if (found := fetch(daemon, "/crl/issuing/1.crl")).status == 200 else None)
    crl = x509.load_der_x509_crl(page.body)
    assert page.headers["content-type"] == "application/pkix-crl"
    assert int(page.headers["content-length"]) == len(page.body)
    assert crl.next_update_utc == crl.last_update_utc + dt.timedelta(days=1)
    again = fetch(daemon, "/crl/issuing/1.crl", {"If-None-Match": page.headers["etag"]})
    assert again.status in (200, 304)  # another may have come in between
    if again.status == 200:
        assert again.headers["etag"] != page.headers["etag"]


def test_a_delta_has_what_came_since_and_openssl_uses_it(daemon: Daemon, files: Files) -> None:
    made = issue(daemon)
    with daemon.client() as client:
        client.ca.publish_crls("issuing")
        full = x509.load_der_x509_crl(fetch(daemon, "/crl/issuing/1.crl").body)
        freshest = full.extensions.get_extension_for_class(x509.FreshestCRL).value[0].full_name[0].value
        assert freshest == "http://pki.example.org/crl/issuing/1.delta.crl"
        client.ca.revoke(made.serial)

        def revoked() -> x509.CertificateRevocationList | None:
            delta = x509.load_der_x509_crl(fetch(daemon, "/crl/issuing/1.delta.crl").body)
            return delta if delta.get_revoked_certificate_by_serial_number(int(made.serial, 16)) else None

        delta = eventually(revoked, "it never came into the delta")
    assert fetch(daemon, "/crl/issuing/1.crl").body == full.public_bytes(Encoding.DER)
    base = delta.extensions.get_extension_for_class(x509.DeltaCRLIndicator).value.crl_number
    number = full.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    assert base == number
    assert delta.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number > number
    crls = files.put("crls.pem", full.public_bytes(Encoding.PEM), delta.public_bytes(Encoding.PEM))
    root = files.put("root.pem", fetch(daemon, "/ca/root.pem").body)
    leaf, above = files.put("leaf.pem", made), files.put("above.pem", issuer(daemon))
    options = ("-crl_check", "-use_deltas", "-CRLfile", crls)
    good, words = files.verify(leaf, root, *options, untrusted=[above])
    assert not good
    assert "certificate revoked" in words


def test_the_bundle_is_there_with_its_number(daemon: Daemon) -> None:
    page = fetch(daemon, "/ca/bundle.json")
    value = json.loads(page.body)
    with daemon.client() as client:
        bundle = client.ca.trust_bundle()
    assert (value["sequence"], value["roots"], value["intermediates"]) == (
        bundle.sequence,
        bundle.roots,
        bundle.intermediates,
    )
    assert fetch(daemon, "/ca/bundle.pem").body.decode() == bundle.roots
    assert len(x509.load_pem_x509_certificates(bundle.roots.encode())) == 1


def test_a_change_of_what_to_trust_is_told_at_once(daemon: Daemon) -> None:
    with daemon.client() as client:
        told = client.ca.watch_trust_bundle(deadline=60)
        first = next(told)
        client.ca.create("another", subject="CN=Another Root")
        later = next(one for one in told if one.roots != first.roots)
        assert later.sequence > first.sequence
        assert len(x509.load_pem_x509_certificates(later.roots.encode())) == 2

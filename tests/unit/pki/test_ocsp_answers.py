"""OCSP: what is answered, and what the openssl command makes of it."""

from __future__ import annotations

import datetime as dt
import hashlib
from pathlib import Path
from typing import Any, Literal

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp as judge
from cryptography.x509.ocsp import OCSPCertStatus, OCSPResponseStatus
from cryptography.x509.oid import ExtendedKeyUsageOID

from hsmsign.model.algorithms import Scheme
from hsmsign.model.errors import HsmsignError
from hsmsign.model.purpose import Purpose, PurposeKind
from hsmsign.pki import ocsp, ocsp_answers
from hsmsign.pki.ocsp import IssuerHashes, OcspQuestion
from hsmsign.pki.ocsp_answers import GOOD, UNKNOWN, Responder, Status, revoked
from hsmsign.purposes import Signer, check
from tests.support.ocsp_requests import CA, LEAF, asked, openssl_request
from tests.support.private_keys import openssl, private_key, signature, write_pem
from tests.support.verify import verify

NOW = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
EC = Scheme.ECDSA_P256_SHA256
DELEGATES = [
    EC,
    Scheme.ECDSA_P384_SHA384,
    Scheme.RSA_PKCS1_SHA256,
    Scheme.RSA_PSS_SHA256,
    Scheme.RSA_PSS_SHA512,
    Scheme.ED25519,
]


def responder(scheme: Scheme = EC, by: Literal["name", "key"] = "name") -> Responder:
    """A delegate of the CA."""
    usages = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), x509.OCSPNoCheck())
    certificate = CA.issue(private_key(scheme, "delegate"), *usages, subject="CN=responder,O=Example")
    return Responder(certificate, by, scheme)


def answer(question: OcspQuestion, status: Status = GOOD, by: Responder | None = None, **changes: Any) -> bytes:
    """Signed by the responder's key."""
    by = by or responder()
    given: dict[str, Any] = {"this_update": NOW, "next_update": NOW + DAY, "nonce": question.nonce, **changes}
    data = ocsp_answers.response_data(question, status, by, **given)
    signed = signature(private_key(by.scheme, "delegate"), by.scheme, data)
    return ocsp_answers.assemble(data, signed, by)


# --- what is answered

WHEN = NOW - 3 * DAY
STATUSES = [
    (GOOD, OCSPCertStatus.GOOD, None, None),
    (UNKNOWN, OCSPCertStatus.UNKNOWN, None, None),
    (revoked(WHEN), OCSPCertStatus.REVOKED, WHEN, None),
    (revoked(WHEN, x509.ReasonFlags.unspecified), OCSPCertStatus.REVOKED, WHEN, None),
    *((revoked(WHEN, one), OCSPCertStatus.REVOKED, WHEN, one) for one in x509.ReasonFlags if one.name != "unspecified"),
]


@pytest.mark.parametrize(("status", "state", "when", "reason"), STATUSES)
def test_an_answer_says_what_was_meant(
    status: Status, state: OCSPCertStatus, when: dt.datetime | None, reason: x509.ReasonFlags | None
) -> None:
    question = ocsp.read_request(asked(hash_name="sha256"))
    found = judge.load_der_ocsp_response(answer(question, status))
    assert found.response_status is OCSPResponseStatus.SUCCESSFUL
    assert (found.certificate_status, found.revocation_time_utc, found.revocation_reason) == (state, when, reason)
    assert (found.this_update_utc, found.next_update_utc) == (NOW, NOW + DAY)
    assert (found.serial_number, found.hash_algorithm.name) == (LEAF.serial_number, "sha256")
    assert (found.issuer_name_hash, found.issuer_key_hash) == (question.issuer_name_hash, question.issuer_key_hash)
    assert abs(found.produced_at_utc - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=1)
    assert list(found.extensions) == []


def test_times_of_an_answer_are_whole_seconds_in_utc() -> None:
    east = NOW.astimezone(dt.timezone(dt.timedelta(hours=5))).replace(microsecond=999_999)
    question = ocsp.read_request(asked())
    found = judge.load_der_ocsp_response(answer(question, revoked(east), this_update=east, next_update=east + DAY))
    assert found.revocation_time_utc == found.this_update_utc == NOW
    assert found.next_update_utc == NOW + DAY


def test_the_nonce_is_answered() -> None:
    question = ocsp.read_request(asked(x509.OCSPNonce(b"n" * 32)))
    found = judge.load_der_ocsp_response(answer(question))
    (one,) = found.extensions
    assert (one.value, one.critical) == (x509.OCSPNonce(b"n" * 32), False)
    assert list(judge.load_der_ocsp_response(answer(question, nonce=None)).extensions) == []


@pytest.mark.parametrize("by", ["name", "key"])
@pytest.mark.parametrize("scheme", Scheme, ids=lambda scheme: scheme.name)
def test_an_answer_of_every_scheme_names_its_signer(scheme: Scheme, by: Literal["name", "key"]) -> None:
    delegate = responder(scheme, by)
    found = judge.load_der_ocsp_response(answer(ocsp.read_request(asked()), by=delegate))
    assert found.certificates == [delegate.certificate]
    key = x509.SubjectKeyIdentifier.from_public_key(private_key(scheme, "delegate").public_key()).digest
    named = (delegate.certificate.subject, None) if by == "name" else (None, key)
    assert (found.responder_name, found.responder_key_hash) == named
    spki = delegate.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    verify(spki, scheme, found.signature, found.tbs_response_bytes)


@pytest.mark.parametrize("by", ["name", "key"])
def test_an_answer_is_what_a_key_for_ocsp_signs(by: Literal["name", "key"]) -> None:
    delegate = responder(by=by)
    spki = private_key(EC, "delegate").public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    data = ocsp_answers.response_data(
        ocsp.read_request(asked()), GOOD, delegate, this_update=NOW, next_update=NOW + DAY, nonce=b"n"
    )
    check(Signer("keys/k/versions/1", Purpose(PurposeKind.OCSP).check(), EC, spki), data)


def test_a_responder_with_a_key_of_another_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="RSA_PKCS1_SHA256"):
        Responder(CA.certificate, "name", Scheme.RSA_PKCS1_SHA256)


@pytest.mark.parametrize("data", [b"", b"\x30\x00", b"words", CA.certificate.tbs_certificate_bytes])
def test_what_is_no_response_data_is_not_made_an_answer(data: bytes) -> None:
    with pytest.raises(HsmsignError, match="does not read as it was meant"):
        ocsp_answers.assemble(data, b"signature", responder())


def test_response_data_with_more_behind_it_is_not_made_an_answer() -> None:
    by = responder()
    data = ocsp_answers.response_data(
        ocsp.read_request(asked()), GOOD, by, this_update=NOW, next_update=NOW + DAY, nonce=None
    )
    assert ocsp_answers.assemble(data, b"signature", by)
    for wrong in (data + b"\x05\x00", data[:-1], data + data):
        with pytest.raises(HsmsignError, match="does not read as it was meant"):
            ocsp_answers.assemble(wrong, b"signature", by)


@pytest.mark.parametrize("status", [one for one in OCSPResponseStatus if one is not OCSPResponseStatus.SUCCESSFUL])
def test_an_error_says_only_what_went_wrong(status: OCSPResponseStatus) -> None:
    der = ocsp_answers.error_response(status)
    assert judge.load_der_ocsp_response(der).response_status is status
    assert len(der) == 5


# --- over HTTP


def test_caches_keep_an_answer_until_its_next_update() -> None:
    der = answer(ocsp.read_request(asked()))
    now = NOW + dt.timedelta(hours=6, microseconds=1)
    assert ocsp_answers.cache_headers(der, this_update=NOW, next_update=NOW + DAY, now=now) == {
        "Last-Modified": "Fri, 01 May 2026 12:00:00 GMT",
        "Expires": "Sat, 02 May 2026 12:00:00 GMT",
        "ETag": f'"{hashlib.sha256(der).hexdigest()}"',
        "Cache-Control": "max-age=64799, public, no-transform, must-revalidate",
    }


def test_caches_keep_no_answer_that_is_over() -> None:
    found = ocsp_answers.cache_headers(b"", this_update=NOW, next_update=NOW + DAY, now=NOW + 2 * DAY)
    assert found["Cache-Control"].startswith("max-age=0,")


def test_dates_in_headers_are_in_gmt() -> None:
    east = NOW.astimezone(dt.timezone(dt.timedelta(hours=5)))
    assert ocsp_answers.cache_headers(b"", this_update=east, next_update=east + DAY, now=east) == (
        ocsp_answers.cache_headers(b"", this_update=NOW, next_update=NOW + DAY, now=NOW)
    )


def test_caches_keep_no_errors_and_nonces() -> None:
    assert dict(ocsp_answers.NOT_CACHED) == {"Cache-Control": "no-store"}


# --- the openssl command


class Client:
    """The openssl command as a client that asks about the leaf."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        write_pem(folder / "ca.pem", CA.certificate)
        write_pem(folder / "leaf.pem", LEAF)
        self._about: tuple[str | Path, ...] = (*options, "-issuer", folder / "ca.pem", "-cert", folder / "leaf.pem")

    def question(self, *, nonce: bool = False) -> OcspQuestion:
        return ocsp.read_request(openssl_request("-nonce" if nonce else "-no_nonce", *self._about, folder=self.folder))

    def judge(self, der: bytes, *trust: str | Path) -> tuple[int, str]:
        """What it says of the leaf with this answer."""
        (self.folder / "answer.der").write_bytes(der)
        trust = trust or ("-CAfile", self.folder / "ca.pem")
        return openssl("ocsp", "-no_nonce", *self._about, "-respin", self.folder / "answer.der", *trust)

    def judge_nonce(self, der: bytes) -> tuple[int, str]:
        """What it says of this answer to the question that it asked last."""
        (self.folder / "answer.der").write_bytes(der)
        files = ("-reqin", self.folder / "request.der", "-respin", self.folder / "answer.der")
        return openssl("ocsp", *files, "-CAfile", self.folder / "ca.pem")


def current() -> dict[str, Any]:
    now = dt.datetime.now(dt.UTC)
    return {"this_update": now - dt.timedelta(hours=1), "next_update": now + DAY}


@pytest.mark.parametrize("by", ["name", "key"])
@pytest.mark.parametrize("scheme", DELEGATES, ids=lambda scheme: scheme.name)
def test_openssl_believes_a_delegate(tmp_path: Path, scheme: Scheme, by: Literal["name", "key"]) -> None:
    client, delegate = Client(tmp_path), responder(scheme, by)
    for status, words in (
        (GOOD, "leaf.pem: good"),
        (UNKNOWN, "leaf.pem: unknown"),
        (revoked(WHEN, x509.ReasonFlags.key_compromise), "leaf.pem: revoked"),
    ):
        code, said = client.judge(answer(client.question(), status, delegate, **current()))
        assert (code, "Response verify OK" in said) == (0, True), said
        assert words in said
    assert "Reason: keyCompromise" in said
    assert f"Revocation Time: {WHEN:%b} {WHEN.day:2d} {WHEN:%H:%M:%S %Y} GMT" in said


@pytest.mark.parametrize("hash_name", ocsp.HASHES)
def test_openssl_knows_its_certificate_by_the_hash_that_it_asked_with(tmp_path: Path, hash_name: str) -> None:
    client = Client(tmp_path, f"-{hash_name}")
    question = client.question()
    assert question.hash_name == hash_name
    assert IssuerHashes.of(CA.name, CA.key.public_key()).fits(question)
    code, said = client.judge(answer(question, **current()))
    assert (code, "leaf.pem: good" in said, "verify OK" in said) == (0, True, True), said


def test_openssl_finds_its_nonce(tmp_path: Path) -> None:
    client = Client(tmp_path)
    question = client.question(nonce=True)
    assert question.nonce is not None
    code, said = client.judge_nonce(answer(question, **current()))
    assert (code, "Response verify OK" in said, "WARNING" in said) == (0, True, False), said
    _, said = client.judge_nonce(answer(question, nonce=b"another" * 3, **current()))
    assert "Nonce Verify error" in said
    _, said = client.judge_nonce(answer(question, nonce=None, **current()))
    assert "WARNING: no nonce in response" in said


def test_openssl_believes_a_responder_that_it_was_told_of(tmp_path: Path) -> None:
    client, delegate = Client(tmp_path), responder()
    path = write_pem(tmp_path / "delegate.pem", delegate.certificate)
    code, said = client.judge(answer(client.question(), by=delegate, **current()), "-VAfile", path)
    assert (code, "Response verify OK" in said) == (0, True), said


def test_openssl_believes_the_ca_itself(tmp_path: Path) -> None:
    client, own = Client(tmp_path), Responder(CA.certificate, "key", EC)
    data = ocsp_answers.response_data(client.question(), GOOD, own, nonce=None, **current())
    code, said = client.judge(ocsp_answers.assemble(data, signature(CA.key, EC, data), own))
    assert (code, "Response verify OK" in said, "leaf.pem: good" in said) == (0, True, True), said


def test_openssl_does_not_believe_a_signature_of_another(tmp_path: Path) -> None:
    client, delegate = Client(tmp_path), responder()
    data = ocsp_answers.response_data(client.question(), GOOD, delegate, nonce=None, **current())
    forged = ocsp_answers.assemble(data, signature(private_key(EC, "thief"), EC, data), delegate)
    _, said = client.judge(forged)
    assert "Response Verify Failure" in said


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (OCSPResponseStatus.UNAUTHORIZED, "unauthorized (6)"),
        (OCSPResponseStatus.MALFORMED_REQUEST, "malformedrequest (1)"),
        (OCSPResponseStatus.TRY_LATER, "trylater (3)"),
        (OCSPResponseStatus.INTERNAL_ERROR, "internalerror (2)"),
    ],
)
def test_openssl_understands_errors(tmp_path: Path, status: OCSPResponseStatus, words: str) -> None:
    _, said = Client(tmp_path).judge(ocsp_answers.error_response(status))
    assert f"Responder Error: {words}" in said

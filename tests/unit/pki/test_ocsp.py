"""OCSP: what is asked, and of whom."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509 import ocsp as judge
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hsmsign.model.algorithms import Scheme
from hsmsign.model.errors import OcspRequestError
from hsmsign.pki import ocsp, ocsp_answers
from hsmsign.pki.ocsp import IssuerHashes
from hsmsign.pki.ocsp_answers import UNKNOWN, Responder
from tests.support.ocsp_requests import CA, HASHES, LEAF, asked, openssl_request
from tests.support.private_keys import TestCa, private_key, write_pem

NOW = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
EC, PSS, ED = Scheme.ECDSA_P256_SHA256, Scheme.RSA_PSS_SHA256, Scheme.ED25519
ISSUER = IssuerHashes.of(CA.name, CA.key.public_key())
OTHER_EXTENSION = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")


# --- what is asked


@pytest.mark.parametrize("hash_name", ocsp.HASHES)
def test_a_question_is_read(hash_name: str) -> None:
    question = ocsp.read_request(asked(hash_name=hash_name))
    assert (question.serial, question.hash_name, question.nonce) == (LEAF.serial_number, hash_name, None)
    key = CA.certificate.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    assert question.issuer_name_hash == hashlib.new(hash_name, CA.name.public_bytes()).digest()
    assert question.issuer_key_hash == hashlib.new(hash_name, key).digest()


@pytest.mark.parametrize("size", [1, 16, 32, 128])
@pytest.mark.parametrize("critical", [False, True])
def test_a_nonce_of_1_to_128_bytes_is_read(size: int, critical: bool) -> None:
    assert ocsp.read_request(asked(x509.OCSPNonce(bytes(size)), critical=critical)).nonce == bytes(size)


def test_an_extension_that_is_not_critical_is_ignored() -> None:
    responses = x509.OCSPAcceptableResponses([x509.ObjectIdentifier("1.3.6.1.5.5.7.48.1.1")])
    question = ocsp.read_request(asked(OTHER_EXTENSION, x509.OCSPNonce(b"n" * 16), responses))
    assert question.nonce == b"n" * 16


@pytest.mark.parametrize("serial", [1, 0x80, 2**159 - 1, 2**160 - 1])
def test_serial_numbers_of_up_to_20_octets_are_read(serial: int) -> None:
    assert ocsp.read_request(asked(serial=serial)).serial == serial


def patched(der: bytes, old: bytes, new: bytes) -> bytes:
    assert old in der
    return der.replace(old, new)


def twice(extension: Callable[[str], x509.ExtensionType]) -> bytes:
    """A request with two extensions of the same kind, which no builder makes."""
    return patched(asked(extension("1.2.3.4"), extension("1.2.3.5")), b"\x06\x03\x2a\x03\x05", b"\x06\x03\x2a\x03\x04")


SHA384_OID, SHA256_OID = bytes.fromhex("0609608648016503040202"), bytes.fromhex("0609608648016503040201")
MALFORMED: dict[str, bytes] = {
    "nothing": b"",
    "words": b"attack at dawn",
    "cut off": asked()[:-1],
    "followed by more": asked() + b"\x00",
    "a certificate": LEAF.public_bytes(Encoding.DER),
    "more than 4 KiB": asked(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), bytes(4096))),
    "an empty SEQUENCE": b"\x30\x00",
    "no certificate": bytes.fromhex("300430023000"),
    "a length without end": b"\x30\x80",
    "a length of 4 GiB": b"\x30\x84\xff\xff\xff\xff",
    "deeply nested": b"\x30\x82\x0f\xfc" + b"\x30\x80" * 2046,
    "SHA-224": asked(hash_name="sha224"),
    "an unknown hash": patched(asked(hash_name="sha256"), SHA256_OID, bytes.fromhex("060960864801650304027f")),
    "hashes of another length": patched(asked(hash_name="sha256"), SHA256_OID, SHA384_OID),
    "the serial number 0": asked(serial=0),
    "a negative serial number": patched(asked(serial=0x55), b"\x02\x01\x55", b"\x02\x01\xff"),
    "a serial number of 21 octets": asked(serial=2**160),
    "a serial number of 1000 octets": asked(serial=2**8000),
    "an empty nonce": asked(x509.OCSPNonce(b"")),
    "a nonce of 129 bytes": asked(x509.OCSPNonce(bytes(129))),
    "a nonce of 2000 bytes": asked(x509.OCSPNonce(bytes(2000))),
    "a critical extension": asked(OTHER_EXTENSION, critical=True),
    "an extension twice": twice(lambda oid: x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), b"\x05\x00")),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_request_that_cannot_be_answered_is_refused(name: str) -> None:
    with pytest.raises(OcspRequestError) as caught:
        ocsp.read_request(MALFORMED[name])
    assert caught.value.hint
    assert len(caught.value.message) < 200


def test_a_request_about_two_certificates_is_refused(tmp_path: Path) -> None:
    write_pem(tmp_path / "ca.pem", CA.certificate)
    two = openssl_request("-issuer", tmp_path / "ca.pem", "-serial", "5", "-serial", "6", folder=tmp_path)
    with pytest.raises(OcspRequestError, match="not about one certificate"):
        ocsp.read_request(two)


def test_a_request_by_md5_is_refused(tmp_path: Path) -> None:
    write_pem(tmp_path / "ca.pem", CA.certificate)
    request = openssl_request("-md5", "-issuer", tmp_path / "ca.pem", "-serial", "5", folder=tmp_path)
    with pytest.raises(OcspRequestError):
        ocsp.read_request(request)


def test_a_signed_request_is_read_as_if_it_were_not(tmp_path: Path) -> None:
    ca = write_pem(tmp_path / "ca.pem", CA.certificate)
    leaf = write_pem(tmp_path / "leaf.pem", LEAF)
    key = tmp_path / "key.pem"
    key.write_bytes(
        private_key(EC, "leaf").private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    signed = openssl_request("-issuer", ca, "-cert", leaf, "-signer", leaf, "-signkey", key, folder=tmp_path)
    assert len(signed) > 400
    assert ocsp.read_request(signed).serial == LEAF.serial_number


def fuzz_request(data: bytes) -> None:
    """Whatever the bytes are, they are a question that can be answered, or refused as what they are."""
    try:
        question = ocsp.read_request(data)
    except OcspRequestError:
        return
    by = Responder(CA.certificate, "key", EC)
    ISSUER.fits(question)
    made = ocsp_answers.response_data(
        question, UNKNOWN, by, this_update=NOW, next_update=NOW + DAY, nonce=question.nonce
    )
    found = judge.load_der_ocsp_response(ocsp_answers.assemble(made, b"\x00", by))
    assert found.serial_number == question.serial


SEEDS = [
    asked(),
    asked(x509.OCSPNonce(bytes(range(32))), hash_name="sha256"),
    asked(OTHER_EXTENSION, x509.OCSPNonce(b"n"), hash_name="sha512"),
    asked(serial=2**159 - 1),
    MALFORMED["an extension twice"],
]


@given(st.data())
@settings(max_examples=1_000, deadline=None)
def test_changed_requests_are_answered_or_refused(data: st.DataObject) -> None:
    changed = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        kind = data.draw(st.sampled_from(["change", "insert", "remove", "cut"]))
        if kind == "change":
            changed[at] = data.draw(st.integers(0, 255))
        elif kind == "insert":
            changed[at:at] = data.draw(st.binary(min_size=1, max_size=4))
        elif kind == "remove" and len(changed) > 1:
            del changed[at]
        elif at:
            del changed[at:]
    fuzz_request(bytes(changed))


# --- asked by GET


def gets(der: bytes) -> list[str]:
    text = base64.b64encode(der).decode()
    whole = quote(text, safe="")
    return [text, whole, quote(text), whole.replace("%2B", "%2b").replace("%2F", "%2f"), "/" + text, "//" + whole]


@pytest.mark.parametrize("number", range(40))
def test_a_request_by_get_is_the_one_by_post(number: int) -> None:
    der = asked(x509.OCSPNonce(hashlib.sha512(bytes([number])).digest()[: number + 1]))
    for path in gets(der):
        assert ocsp.read_get(path) == der


BASE64 = base64.b64encode(asked()).decode()
GARBAGE = {
    "nothing": "",
    "slashes": "///",
    "a word": "index.html",
    "a space for a plus": "MA ==",
    "a line": BASE64[:20] + "\n" + BASE64[20:],
    "no padding": base64.b64encode(b"0" * 10).decode().rstrip("="),
    "padding in between": "MA==MA==",
    "too much padding": base64.b64encode(b"0" * 9).decode() + "====",
    "bits that nobody reads": "MB==",
    "base64url": base64.urlsafe_b64encode(b"0\xff\xfe\xfb\xef\xbe").decode(),
    "a slash behind it": BASE64 + "/",
    "a query": BASE64 + "?x=1",
    "percent signs": "%%%%",
    "encoded twice": quote(quote(base64.b64encode(b"0" * 10).decode(), safe=""), safe=""),
    "no ASCII": "MAö=",
    "half a character": "MA\udc80=",
    "a zero byte": "MA%00==",
    "more than 4 KiB": base64.b64encode(bytes(3_075)).decode(),
    "a megabyte": "M" * 1_000_000,
    "a megabyte of percent signs": "%4d" * 300_000,
}


@pytest.mark.parametrize("name", GARBAGE)
def test_what_is_not_base64_is_refused(name: str) -> None:
    with pytest.raises(OcspRequestError) as caught:
        ocsp.read_get(GARBAGE[name])
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("path", ["M" * 12_289, "%4d" * 100_000])
def test_a_path_that_is_far_too_long_is_refused_before_it_is_decoded(path: str) -> None:
    with pytest.raises(OcspRequestError, match="longer than 4096"):
        ocsp.read_get(path)


def fuzz_get(path: str) -> None:
    """Whatever the path is, it is a request, or refused as what it is."""
    try:
        fuzz_request(ocsp.read_get(path))
    except OcspRequestError:
        return


@given(st.text(max_size=60) | st.text("ABMwEC+/=%2Ff", max_size=60))
@example(BASE64)
@example("M" * 4096)
@settings(max_examples=500, deadline=None)
def test_any_path_is_a_request_or_refused(path: str) -> None:
    fuzz_get(path)


# --- of whom


@pytest.mark.parametrize("hash_name", ocsp.HASHES)
@pytest.mark.parametrize("scheme", [EC, Scheme.ECDSA_P521_SHA512, PSS, ED], ids=lambda scheme: scheme.name)
def test_a_ca_knows_that_it_is_asked(scheme: Scheme, hash_name: str) -> None:
    ca, other = TestCa.make(scheme, "CN=Bücher,C=DE"), TestCa.make(scheme, "CN=Bücher,C=AT")
    leaf = ca.issue(private_key(EC, "leaf"))
    request = judge.OCSPRequestBuilder().add_certificate(leaf, ca.certificate, HASHES[hash_name]).build()
    question = ocsp.read_request(request.public_bytes(Encoding.DER))
    key = ca.key.public_key()
    assert IssuerHashes.of(ca.name, key).fits(question)
    assert not IssuerHashes.of(other.name, key).fits(question)
    assert not IssuerHashes.of(ca.name, private_key(scheme, "another").public_key()).fits(question)


def test_a_ca_of_the_same_name_with_another_key_is_another() -> None:
    question = ocsp.read_request(asked())
    assert ISSUER.fits(question)
    assert not ISSUER.fits(replace(question, issuer_key_hash=bytes(20)))
    assert not ISSUER.fits(replace(question, issuer_name_hash=bytes(20)))

"""Keys with a purpose: what each kind signs, and the nearest thing that it does not."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.x509 import ocsp
from hypothesis import given, settings
from hypothesis import strategies as st

from hsmsign.model.algorithms import Scheme
from hsmsign.model.errors import InvalidArgumentError
from hsmsign.model.purpose import Purpose, PurposeKind, subtree
from hsmsign.purposes import constraints, describe
from tests.unit.purposes.messages import (
    ALL,
    CA,
    DNS,
    JWT,
    KEY,
    MAIL,
    NOW,
    OTHER,
    PERMITTED,
    ROOT,
    URI,
    answer,
    crl,
    csr,
    handshake,
    key_exchange,
    signs,
    tbs,
    token,
    verify_content,
)

# --- one message of each kind, and no other kind of key signs it

MESSAGES = {
    "tls-server 1.3": ({PurposeKind.TLS_SERVER}, verify_content("server")),
    "tls-server 1.3, SHA-384": ({PurposeKind.TLS_SERVER}, verify_content("server", 48)),
    "tls-server 1.2, X25519": ({PurposeKind.TLS_SERVER}, key_exchange()),
    "tls-server 1.2, P-256": ({PurposeKind.TLS_SERVER}, key_exchange("0300174104" + "22" * 64)),
    "tls-client 1.3": ({PurposeKind.TLS_CLIENT}, verify_content("client")),
    "tls-client 1.2": ({PurposeKind.TLS_CLIENT}, handshake(1, 2, 11, 12, 13, 14, 11, 16)),
    "certificate": ({PurposeKind.CA}, tbs()),
    "CRL": ({PurposeKind.CA}, crl()),
    "request": ({PurposeKind.CA, PurposeKind.CSR}, csr(KEY)),
    "OCSP by hash": ({PurposeKind.CA, PurposeKind.OCSP}, answer(KEY, ocsp.OCSPResponderEncoding.HASH)),
    "OCSP by name": ({PurposeKind.CA, PurposeKind.OCSP}, answer(KEY, ocsp.OCSPResponderEncoding.NAME)),
    "token": ({PurposeKind.JWT}, token({"iss": "a"})),
    "words": (set(), b"attack at dawn"),
    "nothing": (set(), b""),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_is_signed_by_keys_of_its_kind_only(name: str) -> None:
    kinds, message = MESSAGES[name]
    assert {purpose.kind for purpose in ALL if not signs(purpose, message)} == kinds
    assert signs(PurposeKind.ANY, message) == ""


@pytest.mark.parametrize("name", [name for name, (kinds, _) in MESSAGES.items() if kinds])
def test_a_byte_more_or_less_is_another_message(name: str) -> None:
    kinds, message = MESSAGES[name]
    purposes = [purpose for purpose in ALL if purpose.kind in kinds]
    for changed in (message + b"\0", message[:-1], b"\0" + message, message[1:]):
        assert all(signs(purpose, changed) for purpose in purposes)


def test_a_refusal_says_what_was_expected_and_not_what_was_sent() -> None:
    said = signs(PurposeKind.TLS_SERVER, b"attack at dawn")
    assert said.startswith("keys/k/versions/1 is for 'tls-server' and does not sign this: it wants CertificateVerify")
    assert "dawn" not in said


# --- tls


@pytest.mark.parametrize(
    "message",
    [
        verify_content("server", 31),
        verify_content("server", 64),
        verify_content("client"),
        key_exchange("03001d21" + "41" * 33),
        key_exchange("0300174102" + "22" * 64),
        key_exchange("01001d20" + "41" * 32),
        key_exchange("0301002041" + "41" * 31),
        os.urandom(64),
    ],
    ids=["short hash", "long hash", "client's", "long point", "compressed", "explicit prime", "ffdhe", "no params"],
)
def test_what_a_tls_server_does_not_sign(message: bytes) -> None:
    assert signs(PurposeKind.TLS_SERVER, message)


@pytest.mark.parametrize(
    "kinds",
    [(1, 2, 11, 12, 14, 11, 16), (2, 1, 11, 13, 16), (1, 2, 11, 13, 14, 11), (1, 2, 11, 13, 16, 16), (1, 2, 13, 16)],
    ids=["not asked for", "out of order", "without a key", "two keys", "without a certificate"],
)
def test_what_a_tls_client_does_not_sign(kinds: tuple[int, ...]) -> None:
    assert signs(PurposeKind.TLS_CLIENT, handshake(*kinds))


# --- ca


def test_a_ca_signs_in_its_own_name_only() -> None:
    mallory = x509.Name.from_rfc4514_string("CN=Mallory")
    assert "Root" in signs(CA, tbs(issuer=mallory))
    assert "Root" in signs(CA, crl(mallory))
    assert signs(CA, answer(OTHER, ocsp.OCSPResponderEncoding.HASH))
    assert signs(CA, answer(KEY, ocsp.OCSPResponderEncoding.NAME, mallory))


def test_a_crl_says_the_scheme_that_signs_it() -> None:
    assert "of this scheme" in signs(CA, crl(), Scheme.ECDSA_P384_SHA384)


def test_a_certificate_says_the_scheme_that_signs_it() -> None:
    assert "says the algorithm" in signs(CA, tbs(), Scheme.ECDSA_P384_SHA384)
    assert "says the algorithm" in signs(CA, tbs(), Scheme.RSA_PKCS1_SHA256)


def test_the_request_of_a_ca_is_for_itself() -> None:
    """One whose superior is elsewhere asks it for its certificate."""
    assert signs(CA, csr(KEY)) == ""
    assert "CN=Root" in signs(CA, csr(OTHER))
    assert "CN=Root" in signs(CA, csr(KEY, x509.Name.from_rfc4514_string("CN=Mallory")))
    assert "CN=Root" in signs(CA, csr(KEY, x509.Name([])))


def test_who_approves_a_request_reads_whose_it_is() -> None:
    assert describe(csr(KEY), Scheme.ECDSA_P256_SHA256).startswith(
        "certification request of CN=Root,O=Example, SHA-256 "
    )


def test_a_ca_certifies_no_cas_unless_its_key_may() -> None:
    below = tbs(x509.BasicConstraints(ca=True, path_length=0))
    assert "path length is 0" in signs(CA, below)
    one = Purpose(PurposeKind.CA, CA.issuer, path_length=1)
    assert signs(one, below) == ""
    assert "at most 0" in signs(one, tbs(x509.BasicConstraints(ca=True, path_length=1)))
    assert "at most 0" in signs(one, tbs(x509.BasicConstraints(ca=True, path_length=None)))
    # its own certificate stands one higher
    own = x509.BasicConstraints(ca=True, path_length=1)
    assert signs(one, tbs(own, subject=CA.issuer, key=KEY)) == ""
    assert signs(CA, tbs(x509.BasicConstraints(ca=True, path_length=0), subject=CA.issuer, key=KEY)) == ""
    assert "at most 0" in signs(one, tbs(own, subject=CA.issuer, key=OTHER))  # its name, another's key


def test_what_some_take_for_a_ca_is_none_either() -> None:
    others = ["content_commitment", "key_encipherment", "data_encipherment", "key_agreement"]
    others += ["encipher_only", "decipher_only"]
    usage = dict.fromkeys([*others, "digital_signature", "key_cert_sign", "crl_sign"], False)
    assert "keyCertSign" in signs(CA, tbs(x509.KeyUsage(**{**usage, "key_cert_sign": True})))
    assert signs(CA, tbs(x509.KeyUsage(**{**usage, "digital_signature": True}))) == ""
    for kinds in (b"\x03\x02\x00\x07", b"\x03\x02\x06\x40"):
        netscape = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.16.840.1.113730.1.1"), kinds)
        assert "netscape-cert-type" in signs(CA, tbs(netscape))
    version_1 = _without_version(tbs())
    assert "version 3" in signs(CA, version_1)


def _without_version(der: bytes) -> bytes:
    head = 4 if der[1] == 0x82 else 3
    body = der[head + 5 :]
    assert der[head : head + 5] == bytes.fromhex("a003020102")
    return b"\x30\x82" + len(body).to_bytes(2) + body if len(body) > 255 else b"\x30\x81" + bytes([len(body)]) + body


def test_certificates_live_no_longer_than_the_key_allows() -> None:
    limited = Purpose(PurposeKind.CA, CA.issuer, max_validity_days=90)
    assert signs(limited, tbs(days=90)) == ""
    assert "at most 90 days, not 91" in signs(limited, tbs(days=91))


SCHEMES = pytest.mark.parametrize(
    ("scheme", "key", "pad"),
    [
        (Scheme.RSA_PKCS1_SHA384, rsa.generate_private_key(65537, 2048), None),
        (
            Scheme.RSA_PSS_SHA256,
            rsa.generate_private_key(65537, 2048),
            padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH),
        ),
        (Scheme.ED25519, ed25519.Ed25519PrivateKey.generate(), None),
    ],
    ids=["PKCS #1", "PSS", "Ed25519"],
)


@SCHEMES
def test_crls_of_other_schemes(scheme: Scheme, key: Any, pad: Any) -> None:
    builder = x509.CertificateRevocationListBuilder().issuer_name(ROOT).last_update(NOW).next_update(NOW)
    hash_ = None if scheme.hash is None else getattr(hashes, scheme.hash.name)()
    made = builder.sign(key, hash_, rsa_padding=pad) if pad else builder.sign(key, hash_)
    assert signs(CA, made.tbs_certlist_bytes, scheme) == ""
    assert signs(CA, made.tbs_certlist_bytes, Scheme.ECDSA_P256_SHA256)


@SCHEMES
def test_certificates_of_other_schemes(scheme: Scheme, key: Any, pad: Any) -> None:
    name = x509.Name.from_rfc4514_string("CN=leaf")
    builder = x509.CertificateBuilder().issuer_name(ROOT).subject_name(name).public_key(OTHER.public_key())
    builder = builder.not_valid_before(NOW).not_valid_after(NOW)
    hash_ = None if scheme.hash is None else getattr(hashes, scheme.hash.name)()
    for serial in (1, 127, 128, 2**158):  # the algorithm stands behind it
        ready = builder.serial_number(serial)
        made = ready.sign(key, hash_, rsa_padding=pad) if pad else ready.sign(key, hash_)
        assert signs(CA, made.tbs_certificate_bytes, scheme) == ""
        assert signs(CA, made.tbs_certificate_bytes)


# --- csr, ocsp


def test_a_request_is_for_the_key_itself() -> None:
    assert "this very key" in signs(PurposeKind.CSR, csr(OTHER))
    assert "responder is this key" in signs(PurposeKind.OCSP, answer(OTHER, ocsp.OCSPResponderEncoding.HASH))


# --- jwt


@pytest.mark.parametrize(
    ("message", "good"),
    [
        (token({"iss": "https://a", "aud": "x"}), True),
        (token({"iss": "https://b", "aud": ["x", "y"]}), True),
        (token({"iss": "https://c", "aud": "x"}), False),
        (token({"iss": ["https://a"], "aud": "x"}), False),
        (token({"iss": "https://a", "aud": ["x", "z"]}), False),
        (token({"iss": "https://a", "aud": []}), False),
        (token({"iss": "https://a"}), False),
        (token({"aud": "x"}), False),
        (token({"iss": "https://a", "aud": "x"}, {"alg": "none"}), False),
        (token({"iss": "https://a", "aud": "x"}, {"alg": "ES384"}), False),
        (token({"iss": "https://a", "aud": "x"}, {"alg": "ES256", "crit": ["exp"]}), False),
        (token({"iss": "https://a", "aud": "x"}, {"alg": "ES256", "b64": False}), False),
        (token(b'{"iss":"https://c","iss":"https://a","aud":"x"}'), False),
        (token(b'{"iss":"https://a","aud":"x","n":NaN}'), False),
        (token(b"[1]"), False),
        (token(b"\xff"), False),
        (token(b"[" * 100_000), False),
        (token({"iss": "https://a", "aud": "x", "AUD": "z"}), False),
        (token({"iss": "https://a", "aud": "x", "Iss": "https://c"}), False),
        (token({"iss": "https://a", "aud": "x", "i\u017fs": "https://c"}), False),
        (token({"iss": "https://a", "aud": "x", "TYP": "at+jwt"}), False),
        (token({"iss": "https://a", "aud": "x"}, {"alg": "ES256", "Alg": "none"}), False),
        (token({"iss": "https://a", "aud": "x"}, {"alg": "ES256", "CRIT": ["exp"]}), False),
        (token({"iss": "https://a", "aud": "x"}, {"alg": "ES256", "B64": False}), False),
        (token({"iss": "https://a", "aud": "x"}, {"alg": "ES256", "typ": "JWT", "kid": "1"}), True),
        (token({"iss": "https://a", "aud": "x", "Name": "A", "act": {"ISS": "https://c"}}), True),
        (token({"iss": "https://a", "aud": "x"}) + b"=", False),
        (token({"iss": "https://a", "aud": "x"}) + b".", False),
        (token({"iss": "https://a", "aud": "x"}) + b"\n", False),
    ],
)
def test_tokens(message: bytes, good: bool) -> None:
    assert (signs(JWT, message) == "") is good


# --- whatever comes


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(ALL), st.binary(max_size=400))
def test_noise_is_never_signed(purpose: Purpose, noise: bytes) -> None:
    assert signs(purpose, noise)


BELOW = tbs(
    x509.BasicConstraints(ca=True, path_length=0),
    constraints.within(tuple(subtree(one) for one in PERMITTED.permitted_names)),
)
LEAF = tbs(x509.SubjectAlternativeName([DNS("a.example.org"), MAIL("me@example.org"), URI("https://a.corp/x")]))
CHANGED = {**{name: message for name, (_, message) in MESSAGES.items()}, "CA below": BELOW, "names": LEAF}


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(CHANGED)), st.data())
def test_a_changed_message_is_signed_or_refused_and_nothing_else(name: str, data: st.DataObject) -> None:
    message = bytearray(CHANGED[name] or b"x")
    for _ in range(data.draw(st.integers(1, 3))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    for purpose in (*ALL, PERMITTED, JWT):
        signs(purpose, bytes(message))


# --- what a purpose may say


@pytest.mark.parametrize(
    "purpose",
    [
        Purpose(PurposeKind.CA),
        Purpose(PurposeKind.CA, "nonsense"),
        Purpose(PurposeKind.CA, "CN=x", path_length=256),
        Purpose(PurposeKind.CA, "CN=x", max_validity_days=36_501),
        Purpose(PurposeKind.CA, "CN=x", permitted_names=("example.org",)),
        Purpose(PurposeKind.CA, "CN=x", permitted_names=("ip:10.0.0.1/8",)),
        Purpose(PurposeKind.CA, "CN=x", jwt_issuers=("a",)),
        Purpose(PurposeKind.TLS_SERVER, "CN=x"),
        Purpose(PurposeKind.ANY, max_validity_days=1),
        Purpose(PurposeKind.JWT, jwt_issuers=("",)),
        Purpose(PurposeKind.JWT, jwt_issuers=tuple(map(str, range(65)))),
    ],
)
def test_limits_that_are_none_are_refused(purpose: Purpose) -> None:
    with pytest.raises(InvalidArgumentError):
        purpose.check()


def test_a_purpose_comes_back_as_it_was_kept() -> None:
    for purpose in (*ALL, PERMITTED, JWT, Purpose()):
        assert Purpose.read(json.loads(json.dumps(purpose.plain()))) == purpose
    assert Purpose.read({}) == Purpose()

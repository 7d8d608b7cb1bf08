"""Keys with a purpose: what each kind signs, and the nearest thing that it does not."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import json
import os
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from hsmsign.model.algorithms import Scheme
from hsmsign.model.errors import InvalidArgumentError, PurposeError
from hsmsign.model.purpose import Purpose, PurposeKind
from hsmsign.purposes import Signer, check

NOW = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)
ROOT = x509.Name.from_rfc4514_string("CN=Root,O=Example")
KEY, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
CA = Purpose(PurposeKind.CA, "CN=Root,O=Example")
ALL = [Purpose(kind) for kind in PurposeKind if kind not in (PurposeKind.ANY, PurposeKind.CA)] + [CA]


def spki(key: Any) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def signs(purpose: Purpose | PurposeKind, message: bytes, scheme: Scheme = Scheme.ECDSA_P256_SHA256) -> str:
    """Nothing where a key with this purpose signs the message; else why not."""
    given = purpose if isinstance(purpose, Purpose) else Purpose(purpose)
    try:
        check(Signer("keys/k/versions/1", given.check(), scheme, spki(KEY)), message)
    except PurposeError as error:
        return error.message
    return ""


def tbs(
    *extensions: x509.ExtensionType,
    issuer: x509.Name = ROOT,
    subject: str = "CN=leaf",
    key: Any = OTHER,
    days: int = 90,
) -> bytes:
    builder = (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(x509.Name.from_rfc4514_string(subject))
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW)
        .not_valid_after(NOW + dt.timedelta(days=days))
    )
    for one in extensions:
        builder = builder.add_extension(one, critical=isinstance(one, x509.BasicConstraints))
    return builder.sign(KEY, hashes.SHA256()).tbs_certificate_bytes


def san(*names: x509.GeneralName) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(names)


def crl(name: x509.Name = ROOT) -> bytes:
    builder = x509.CertificateRevocationListBuilder().issuer_name(name).last_update(NOW).next_update(NOW)
    return builder.sign(KEY, hashes.SHA256()).tbs_certlist_bytes


def csr(key: Any) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(ROOT)
    return builder.sign(key, hashes.SHA256()).tbs_certrequest_bytes


def answer(key: Any, encoding: ocsp.OCSPResponderEncoding, name: x509.Name = ROOT) -> bytes:
    builder = x509.CertificateBuilder().issuer_name(name).subject_name(name).public_key(key.public_key())
    responder = builder.serial_number(1).not_valid_before(NOW).not_valid_after(NOW).sign(key, hashes.SHA256())
    status = ocsp.OCSPCertStatus.GOOD
    made = ocsp.OCSPResponseBuilder().add_response(responder, responder, hashes.SHA1(), status, NOW, NOW, None, None)
    return made.responder_id(encoding, responder).sign(key, hashes.SHA256()).tbs_response_bytes


def verify_content(side: str, size: int = 32) -> bytes:
    """RFC 8446, section 4.4.3."""
    return b" " * 64 + f"TLS 1.3, {side} CertificateVerify".encode() + b"\0" + os.urandom(size)


def key_exchange(params: str = "03001d20" + "41" * 32) -> bytes:
    """RFC 8422, section 5.4, after both randoms."""
    return os.urandom(64) + bytes.fromhex(params)


def handshake(*kinds: int) -> bytes:
    return b"".join(bytes([kind]) + (40).to_bytes(3) + os.urandom(40) for kind in kinds)


def b64(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def token(payload: Any, header: Any = None) -> bytes:
    return f"{b64({'alg': 'ES256', 'typ': 'JWT'} if header is None else header)}.{b64(payload)}".encode()


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
    "request": ({PurposeKind.CSR}, csr(KEY)),
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


def test_a_certificate_made_to_look_like_a_key_exchange_is_refused() -> None:
    """Whoever has the credential chooses the randoms: the first 64 bytes can be those of a TBSCertificate, the rest
    an X448 key whose first bytes are a name and whose last ones a public key."""
    key = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "\x03\x00\x1e\x38" + "x" * 12)])
    builder = x509.CertificateBuilder().issuer_name(x509.Name([])).subject_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(NOW).not_valid_after(NOW)
    made = builder.sign(key, None).tbs_certificate_bytes
    assert made[64:68] == bytes.fromhex("03001e38")
    assert len(made) == 64 + 4 + 56
    assert "could not be a certificate" in signs(PurposeKind.TLS_SERVER, made, Scheme.ED25519)


# --- ca


def test_a_ca_signs_in_its_own_name_only() -> None:
    mallory = x509.Name.from_rfc4514_string("CN=Mallory")
    assert "Root" in signs(CA, tbs(issuer=mallory))
    assert "Root" in signs(CA, crl(mallory))
    assert signs(CA, answer(OTHER, ocsp.OCSPResponderEncoding.HASH))
    assert signs(CA, answer(KEY, ocsp.OCSPResponderEncoding.NAME, mallory))


def test_a_crl_says_the_scheme_that_signs_it() -> None:
    assert "of this scheme" in signs(CA, crl(), Scheme.ECDSA_P384_SHA384)


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


DNS, URI, MAIL = x509.DNSName, x509.UniformResourceIdentifier, x509.RFC822Name
IP = x509.IPAddress
PERMITTED = Purpose(
    PurposeKind.CA,
    CA.issuer,
    path_length=1,
    permitted_names=("dns:example.org", "ip:10.0.0.0/8", "email:example.org", "uri:.corp"),
)


@pytest.mark.parametrize(
    ("names", "good"),
    [
        ([DNS("example.org"), DNS("www.Example.org")], True),
        ([DNS("*.example.org")], True),
        ([DNS("badexample.org")], False),
        ([DNS("example.org.evil")], False),
        ([DNS("www.example.org"), DNS("evil")], False),
        ([IP(ipaddress.ip_address("10.1.2.3"))], True),
        ([IP(ipaddress.ip_address("11.1.2.3"))], False),
        ([IP(ipaddress.ip_address("::1"))], False),
        ([MAIL("me@example.org")], True),
        ([MAIL("me@sub.example.org")], False),
        ([MAIL("me@example.org.evil")], False),
        ([URI("spiffe://a.corp/web")], True),
        ([URI("spiffe://corp/web")], False),
        ([URI("https://evil/.corp")], False),
        ([URI("https://a.corp@evil/")], False),
        ([URI("urn:x")], False),
        ([x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))], False),
        ([x509.DirectoryName(ROOT)], False),
        ([], False),
    ],
)
def test_names_lie_where_the_key_permits(names: list[x509.GeneralName], good: bool) -> None:
    assert (signs(PERMITTED, tbs(*([san(*names)] if names else []))) == "") is good


def test_a_host_in_the_common_name_is_a_name_too() -> None:
    good = san(DNS("www.example.org"))
    assert signs(PERMITTED, tbs(good, subject="CN=www.example.org")) == ""
    assert signs(PERMITTED, tbs(good, subject="CN=Web team")) == ""
    assert "common name" in signs(PERMITTED, tbs(good, subject="CN=www.evil.org"))


@pytest.mark.parametrize(
    ("permitted", "good"),
    [
        ([DNS("a.example.org"), IP(ipaddress.ip_network("10.1.0.0/16")), MAIL("example.org"), URI(".a.corp")], True),
        ([DNS("a.example.org"), IP(ipaddress.ip_network("10.1.0.0/16")), MAIL("example.org")], False),
        ([DNS("org"), IP(ipaddress.ip_network("10.1.0.0/16")), MAIL("example.org"), URI(".a.corp")], False),
        ([DNS("example.org"), IP(ipaddress.ip_network("0.0.0.0/0")), MAIL("example.org"), URI(".a.corp")], False),
    ],
)
def test_a_ca_below_is_held_to_the_same_names(permitted: list[x509.GeneralName], good: bool) -> None:
    below = x509.BasicConstraints(ca=True, path_length=0)
    assert (signs(PERMITTED, tbs(below, x509.NameConstraints(permitted, None))) == "") is good
    assert signs(PERMITTED, tbs(below))


@pytest.mark.parametrize(
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
def test_crls_of_other_schemes(scheme: Scheme, key: Any, pad: Any) -> None:
    builder = x509.CertificateRevocationListBuilder().issuer_name(ROOT).last_update(NOW).next_update(NOW)
    hash_ = None if scheme.hash is None else getattr(hashes, scheme.hash.name)()
    made = builder.sign(key, hash_, rsa_padding=pad) if pad else builder.sign(key, hash_)
    assert signs(CA, made.tbs_certlist_bytes, scheme) == ""
    assert signs(CA, made.tbs_certlist_bytes, Scheme.ECDSA_P256_SHA256)


# --- csr, ocsp


def test_a_request_is_for_the_key_itself() -> None:
    assert "this very key" in signs(PurposeKind.CSR, csr(OTHER))
    assert "responder is this key" in signs(PurposeKind.OCSP, answer(OTHER, ocsp.OCSPResponderEncoding.HASH))


# --- jwt

JWT = Purpose(PurposeKind.JWT, jwt_issuers=("https://a", "https://b"), jwt_audiences=("x", "y"))


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


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(MESSAGES)), st.data())
def test_a_changed_message_is_signed_or_refused_and_nothing_else(name: str, data: st.DataObject) -> None:
    message = bytearray(MESSAGES[name][1] or b"x")
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

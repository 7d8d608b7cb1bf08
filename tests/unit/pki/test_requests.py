"""Certification requests: good ones are read, and what strangers send besides is refused by name."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from hsmsign.model.errors import CsrError, WeakKeyError
from hsmsign.model.signed_der import element
from hsmsign.pki import requests
from tests.support import csrs
from tests.support.csrs import KEY, OTHER, csr, dns, extension, extension_request, info, raw_san, signed

GOOD = csr(*dns("www.example.org"), subject="CN=www.example.org,O=Example")
SAN, BASIC = "551d11", "551d13"


def refusal(data: bytes) -> tuple[str, str]:
    """The check that refuses a request, and its words."""
    with pytest.raises((CsrError, WeakKeyError)) as found:
        requests.read(data)
    assert found.value.hint
    return found.value.metadata["check"], found.value.message


# --- good ones


@pytest.mark.parametrize(
    "key",
    [
        KEY,
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        csrs.rsa_key(),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["P-256", "P-384", "P-521", "RSA", "Ed25519"],
)
def test_a_request_says_its_key_its_subject_and_its_names(key: Any) -> None:
    asked = [x509.BasicConstraints(ca=False, path_length=None)]
    names = (*dns("WWW.Example.org"), x509.IPAddress(ipaddress.ip_address("10.0.0.1")))
    found = requests.read(csr(*names, subject="CN=www.example.org,O=Example", key=key, extensions=asked))
    assert found.spki == key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert found.common_name == "www.example.org"
    assert found.subject == csrs.name("CN=www.example.org,O=Example")
    assert found.names == (*dns("www.example.org"), names[1])
    assert [one.value for one in found.extensions] == asked


def test_pem_and_der_are_the_same_request() -> None:
    pem = csr(*dns("a.example.org"), encoding=Encoding.PEM)
    found = requests.read(pem)
    assert requests.read(found.der) == requests.read(found.der)
    assert requests.read(found.der).names == found.names
    assert requests.read(pem.replace(b"BEGIN CERT", b"BEGIN NEW CERT").replace(b"END CERT", b"END NEW CERT"))


def test_an_rsa_pss_signature_proves_possession_too() -> None:
    builder = x509.CertificateSigningRequestBuilder().subject_name(csrs.name("CN=a"))
    pads = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    made = builder.sign(csrs.rsa_key(), hashes.SHA256(), rsa_padding=pads)
    assert requests.read(made.public_bytes(Encoding.DER)).common_name == "a"


def test_a_challenge_password_is_neither_read_nor_shown() -> None:
    builder = x509.CertificateSigningRequestBuilder().subject_name(csrs.name("CN=a"))
    builder = builder.add_attribute(x509.ObjectIdentifier("1.2.840.113549.1.9.7"), b"hunter2")
    found = requests.read(builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER))
    assert "hunter2" not in repr(found)
    assert found.extensions == ()


# --- what is no request, or proves nothing


def changed(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def two_names() -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one) for one in ("a.example.org", "b.example.org")])


def by_other(content: bytes) -> bytes:
    return signed(OTHER, content)


def with_curve(parameters: bytes) -> bytes:
    point = KEY.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    algorithm = element(0x30, bytes.fromhex("06072a8648ce3d0201") + parameters)
    return signed(KEY, info(KEY, spki=element(0x30, algorithm + element(3, b"\0" + point))))


def off_curve() -> bytes:
    spki = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return signed(KEY, info(KEY, spki=changed(spki, len(spki) - 1)))


def old_hash(algorithm: str) -> bytes:
    """A good RSA signature whose hash is old; nothing makes them any more, so the words are put in by hand."""
    content = info(csrs.rsa_key())
    made = csrs.rsa_key().sign(content, padding.PKCS1v15(), hashes.SHA1())
    oid = bytes.fromhex(algorithm)
    return element(0x30, content + element(0x30, element(6, oid) + b"\5\0") + element(3, b"\0" + made))


def wide(key: Any) -> bytes:
    """A key of a kind that signs no requests, under another's signature."""
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return signed(KEY, info(KEY, spki=spki))


def rsa_spki(n: int, e: int) -> bytes:
    def integer(value: int) -> bytes:
        return element(2, value.to_bytes(value.bit_length() // 8 + 1))

    numbers = element(0x30, integer(n) + integer(e))
    return element(0x30, bytes.fromhex("300d06092a864886f70d0101010500") + element(3, b"\0" + numbers))


CONSTRAINTS = extension(BASIC, element(0x30, b""))
PEM = csr(*dns("a.example.org"), encoding=Encoding.PEM)
HOSTILE = {
    "nothing": (b"", "size"),
    "too long": (b"0" * (requests.SIZE_MAX + 1), "size"),
    "long PEM": (PEM + b"\n" * requests.SIZE_MAX, "size"),
    "text": (b"please", "encoding"),
    "truncated": (GOOD[:-1], "encoding"),
    "half": (GOOD[: len(GOOD) // 2], "encoding"),
    "a byte more": (GOOD + b"\0", "encoding"),
    "two in one": (GOOD + GOOD, "encoding"),
    "two PEM blocks": (PEM + PEM, "encoding"),
    "PEM of another kind": (PEM.replace(b"CERTIFICATE REQUEST", b"CERTIFICATE"), "encoding"),
    "PEM between words": (b"hello\n" + PEM, "encoding"),
    "PEM with a tail": (PEM + b"hello", "encoding"),
    "PEM that ends otherwise": (PEM.replace(b"END CERT", b"END NEW CERT"), "encoding"),
    "PEM that is no base64": (PEM.replace(b"MII", b"???").replace(b"MIH", b"???"), "encoding"),
    "version 2": (signed(KEY, info(KEY, version=1)), "version"),
    "another's signature": (by_other(info(KEY)), "signature"),
    "a changed signature": (changed(GOOD, len(GOOD) - 1), "signature"),
    "a changed subject": (GOOD.replace(b"Example", b"Exbmple"), "signature"),
    "SHA-1": (old_hash("2a864886f70d010105"), "hash"),
    "MD5": (old_hash("2a864886f70d010104"), "hash"),
    "an unknown algorithm": (old_hash("2a864886f70d010163"), "hash"),
    "SHA-224": (csr(hash=hashes.SHA224()), "hash"),
    "a curve with parameters": (with_curve(element(0x30, b"")), "encoding"),
    "an unknown curve": (with_curve(bytes.fromhex("06052b81040063")), "key"),
    "the curve implied": (with_curve(b"\5\0"), "key"),
    "off the curve": (off_curve(), "key"),
    "X25519": (wide(x25519.X25519PrivateKey.generate()), "kind"),
    "DSA": (wide(dsa.generate_private_key(2048)), "kind"),
    "RSA 1024": (csr(key=csrs.rsa_key(1024)), "size"),
    "RSA 16384": (signed(KEY, info(KEY, spki=rsa_spki((1 << 16_383) + 1, 65_537))), "size"),
    "two common names": (csr(subject=two_names()), "subject"),
    "a subject that is none": (signed(KEY, info(KEY, subject=b"\x30\x02\x31\x00")), "subject"),
    "two extensionRequests": (
        signed(KEY, info(KEY, extension_request(), extension_request(CONSTRAINTS))),
        "attributes",
    ),
    "one extension twice": (signed(KEY, info(KEY, extension_request(CONSTRAINTS, CONSTRAINTS))), "extensions"),
    "two SANs": (signed(KEY, info(KEY, extension_request(*[extension(SAN, element(0x30, b""))] * 2))), "extensions"),
    "an extension that is none": (signed(KEY, info(KEY, extension_request(extension(BASIC, b"\x01")))), "extensions"),
    "an empty SAN": (raw_san(b""), "names"),
    "an IP of 3 bytes": (raw_san(element(0x87, b"\1\2\3")), "extensions"),
    "a network for an IP": (raw_san(element(0x87, b"\x0a\0\0\0\xff\0\0\0")), "names"),
    "x400Address": (raw_san(element(0xA3, b"")), "extensions"),
    "otherName": (raw_san(element(0xA0, bytes.fromhex("06032a0304a0030c0161"))), "names"),
    "directoryName": (raw_san(element(0xA4, bytes.fromhex("3000"))), "names"),
    "registeredID": (raw_san(element(0x88, b"\x2a\x03")), "names"),
    "raw UTF-8": (raw_san(element(0x82, "bücher.example.org".encode())), "names"),
    "Latin-1": (raw_san(element(0x82, b"b\xfccher.example.org")), "extensions"),
    "NUL in a host's name": (raw_san(element(0x82, b"www.example.org\0.evil.com")), "names"),
    "an e-mail in UTF-8": (raw_san(element(0x81, "ö@example.org".encode())), "names"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_request_is_refused_by_the_check_that_is_for_it(name: str) -> None:
    data, check = HOSTILE[name]
    assert refusal(data)[0] == check


def test_a_raw_unicode_name_is_answered_with_what_to_write() -> None:
    with pytest.raises(CsrError) as found:
        requests.read(HOSTILE["raw UTF-8"][0])
    assert "A-label" in found.value.message
    assert "ü" not in found.value.message


def test_an_extension_that_is_asked_for_twice_is_named() -> None:
    assert "twice for the extension 2.5.29.19" in refusal(HOSTILE["one extension twice"][0])[1]


def test_messages_hold_little_of_what_was_sent() -> None:
    assert len(refusal(raw_san(element(0x82, b"x" * 30_000)))[1]) < 300


def test_an_rsa_key_with_the_exponent_1_is_no_proof_of_anything() -> None:
    n = csrs.rsa_key().public_key().public_numbers().n
    # a padded digest is its own signature
    content = info(KEY, spki=rsa_spki(n, 1))
    digest = hashes.Hash(hashes.SHA256())
    digest.update(content)
    block = bytes.fromhex("3031300d060960864801650304020105000420") + digest.finalize()
    padded = b"\0\1" + b"\xff" * (256 - 3 - len(block)) + b"\0" + block
    algorithm = bytes.fromhex("300d06092a864886f70d01010b0500")
    data = element(0x30, content + algorithm + element(3, b"\0" + padded))
    assert refusal(data)[0] == "key"


# --- anything else


def read_anything(data: bytes) -> None:
    """For fuzzing: nothing but the documented errors leaves `read`."""
    try:
        found = requests.read(data)
    except (CsrError, WeakKeyError) as error:
        refused = error
    else:
        assert found.names == requests.read(found.der).names
        return
    assert refused.metadata["check"]
    assert len(refused.message) < 1000


SEEDS = [
    GOOD,
    PEM,
    csr(key=ed25519.Ed25519PrivateKey.generate(), subject="CN=a,C=DE"),
    csr(
        *dns("a.example.org", "*.b.example.org"),
        x509.RFC822Name("a@example.org"),
        x509.UniformResourceIdentifier("spiffe://example.org/a"),
        x509.IPAddress(ipaddress.ip_address("::1")),
        extensions=[
            x509.BasicConstraints(ca=True, path_length=0),
            x509.ExtendedKeyUsage([x509.ObjectIdentifier("1.2.3")]),
        ],
    ),
    *(data for data, _ in HOSTILE.values() if len(data) < 4096),
]


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 4096), st.binary(max_size=4)), max_size=6), st.data())
def test_a_request_that_was_changed_anywhere_raises_documented_errors_only(
    seed: bytes, changes: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    mutated = bytearray(seed)
    for at, piece in changes:
        place = at % (len(mutated) + 1)
        width = data.draw(st.integers(0, 3))
        mutated[place : place + width] = piece
    read_anything(bytes(mutated))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.sampled_from(["san", "extensions", "attributes", "subject", "spki"]))
def test_any_content_under_a_good_signature_raises_documented_errors_only(content: bytes, where: str) -> None:
    made = {
        "san": lambda: extension_request(extension(SAN, element(0x30, content))),
        "extensions": lambda: extension_request(content),
        "attributes": lambda: content,
    }
    if where in made:
        read_anything(signed(KEY, info(KEY, made[where]())))
    elif where == "subject":
        read_anything(signed(KEY, info(KEY, subject=element(0x30, content))))
    else:
        read_anything(signed(KEY, info(KEY, spki=element(0x30, content))))


def test_a_key_of_a_kind_that_signs_with_rsa_is_checked_before_its_signature() -> None:
    # 8193 bits would cost a verification first
    key = rsa.RSAPublicNumbers(65_537, (1 << 8192) + 1)
    assert refusal(signed(KEY, info(KEY, spki=rsa_spki(key.n, key.e))))[0] == "size"

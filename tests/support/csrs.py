"""Certification requests, good ones and such as no honest program makes, and the CAs that certify them."""

from __future__ import annotations

import datetime as dt
import functools
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import gmpy2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsmsign.model.algorithms import Family, KeyAlgorithm, Scheme
from hsmsign.model.signed_der import OCTETS, SEQUENCE, element, wrap
from hsmsign.pki.capturing import hash_of, padding_of
from hsmsign.pki.certificates import Issuer, assemble, ca_draft, to_be_signed
from hsmsign.pki.drafting import Draft
from hsmsign.pki.profiles import BUILT_IN, NameRules, Profile

NOW = dt.datetime(2026, 5, 1, 12, 0, 30, tzinfo=dt.UTC)
EXTENSION_REQUEST = bytes.fromhex("06092a864886f70d01090e")
ATTRIBUTES, SET = 0xA0, 0x31
KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
"""Another's key."""


@functools.cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """An ordinary RSA key; the same for the same size."""
    return rsa.generate_private_key(65_537, bits)


def name(text: str) -> x509.Name:
    """RFC 4514."""
    return x509.Name.from_rfc4514_string(text)


def dns(*hosts: str) -> tuple[x509.GeneralName, ...]:
    """Hosts' names, as they are written."""
    return tuple(x509.DNSName(host) for host in hosts)


def csr(
    *names: x509.GeneralName,
    subject: str | x509.Name = "",
    key: Any = KEY,
    extensions: Sequence[x509.ExtensionType] = (),
    hash: hashes.HashAlgorithm | None = None,
    encoding: Encoding = Encoding.DER,
) -> bytes:
    """A request with a good signature for these names and extensions."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        subject if isinstance(subject, x509.Name) else name(subject)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for one in extensions:
        builder = builder.add_extension(one, critical=False)
    used = None if isinstance(key, ed25519.Ed25519PrivateKey) else hash or hashes.SHA256()
    return builder.sign(key, used).public_bytes(encoding)


def raw_san(content: bytes, **more: Any) -> bytes:
    """A request with a good signature for a subjectAltName with that content."""
    value = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), element(SEQUENCE, content))
    return csr(extensions=[value], **more)


def info(key: Any, *attributes: bytes, version: int = 0, subject: bytes = b"\x30\x00", spki: bytes = b"") -> bytes:
    """A CertificationRequestInfo (RFC 2986, section 4.1) of these parts."""
    spki = spki or key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return element(SEQUENCE, bytes((2, 1, version)) + subject + spki + element(ATTRIBUTES, b"".join(attributes)))


def signed(key: Any, content: bytes) -> bytes:
    """The request of that content, signed by a P-256 key."""
    return wrap(content, Scheme.ECDSA_P256_SHA256, key.sign(content, ec.ECDSA(hashes.SHA256())))


def extension_request(*extensions: bytes) -> bytes:
    """The attribute that asks for these (RFC 2985, section 5.4.2)."""
    return element(SEQUENCE, EXTENSION_REQUEST + element(SET, element(SEQUENCE, b"".join(extensions))))


def extension(oid: str, value: bytes) -> bytes:
    """An Extension, DER; the OID in hexadecimal."""
    return element(SEQUENCE, element(6, bytes.fromhex(oid)) + element(OCTETS, value))


# --- weak RSA keys


def rsa_from(p: int, q: int, e: int = 65_537) -> rsa.RSAPrivateKey:
    """The key of these primes."""
    d = pow(e, -1, math.lcm(p - 1, q - 1))
    numbers = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), rsa.RSAPublicNumbers(e, p * q))
    return numbers.private_key()


def roca_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """As the faulty chips made them (CVE-2017-15361): primes of the form k * M + (65537^a mod M)."""
    primorial = math.prod(_first_primes(126))

    def prime() -> int:
        while True:
            k = secrets.randbits(bits // 2 - primorial.bit_length()) | 3 << (bits // 2 - primorial.bit_length() - 2)
            found = k * primorial + pow(65_537, secrets.randbits(256), primorial)
            if found.bit_length() == bits // 2 and gmpy2.is_prime(found) and math.gcd(found - 1, 65_537) == 1:
                return found

    while True:
        p, q = prime(), prime()
        if (p * q).bit_length() == bits:
            return rsa_from(p, q)


def near_primes_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """Two neighbouring primes: Fermat's factorisation finds them."""
    p = int(gmpy2.next_prime(secrets.randbits(bits // 2) | 3 << (bits // 2 - 2)))
    return rsa_from(p, int(gmpy2.next_prime(p)))


def _first_primes(count: int) -> list[int]:
    found = [2]
    while len(found) < count:
        found.append(int(gmpy2.next_prime(found[-1])))
    return found


# --- profiles and CAs


def profile(base: str = "server", **changes: Any) -> Profile:
    """A built-in profile, changed; `server` and its like with names below example.org."""
    found = next(one for one in BUILT_IN if one.name == base)
    if found.names.required:
        found = replace(found, names=NameRules(dns=("**.example.org",)))
    return replace(found, **changes)


@dataclass(frozen=True)
class Ca:
    """A CA whose key is at hand."""

    key: Any
    issuer: Issuer
    certificate: x509.Certificate

    def certify(self, draft: Draft, serial: int = 0) -> x509.Certificate:
        """The certificate for a draft."""
        return _made(draft, self.issuer, self.key, serial)

    def below(self, draft: Draft, key: Any, subject: str, scheme: Scheme | None = None) -> Ca:
        """The CA of which that is the draft."""
        made = self.certify(draft)
        return Ca(key, _issuer(made, name(subject), key, scheme or _scheme(key)), made)

    @property
    def pem(self) -> bytes:
        """Its certificate."""
        return self.certificate.public_bytes(Encoding.PEM)


def root(
    key: Any = None, scheme: Scheme | None = None, subject: str = "CN=Root,O=Example", days: int = 3650, **more: Any
) -> Ca:
    """A CA that certifies itself; `more` goes to `ca_draft`."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    scheme = scheme or _scheme(key)
    more = {"path_length": 2, "now": NOW, "validity": dt.timedelta(days=days)} | more
    draft = ca_draft(name(subject), key.public_key(), **more)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest
    itself = Issuer(draft.subject, key.public_key(), scheme, identifier, draft.not_before, draft.not_after)
    made = _made(draft, itself, key, 0)
    return Ca(key, _issuer(made, draft.subject, key, scheme), made)


def sign(key: Any, scheme: Scheme, data: bytes) -> bytes:
    """As a device would."""
    if scheme.family is Family.ED25519:
        return bytes(key.sign(data))
    used = hash_of(scheme)
    assert used is not None
    if scheme.family is Family.EC:
        return bytes(key.sign(data, ec.ECDSA(used)))
    pads = padding_of(scheme)
    assert isinstance(pads, padding.PSS | padding.PKCS1v15)
    return bytes(key.sign(data, pads, used))


def _made(draft: Draft, issuer: Issuer, key: Any, serial: int) -> x509.Certificate:
    tbs = to_be_signed(draft, issuer, serial or x509.random_serial_number())
    return x509.load_der_x509_certificate(assemble(tbs, issuer.scheme, sign(key, issuer.scheme, tbs)))


def _issuer(made: x509.Certificate, subject: x509.Name, key: Any, scheme: Scheme) -> Issuer:
    basic = made.extensions.get_extension_for_class(x509.BasicConstraints).value
    return Issuer(
        subject,
        key.public_key(),
        scheme,
        made.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest,
        made.not_valid_before_utc,
        made.not_valid_after_utc,
        basic.path_length,
        ("http://ca.example.org/ca.cer",),
        ("http://ca.example.org/ca.crl",),
        ("http://ca.example.org/ocsp",),
    )


def _scheme(key: Any) -> Scheme:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return KeyAlgorithm[f"EC_P{key.key_size}"].schemes[0]
    return Scheme.RSA_PKCS1_SHA256 if isinstance(key, rsa.RSAPrivateKey) else Scheme.ED25519

"""Names that a CA's key with subtrees certifies, and what it asks of the CAs below."""

from __future__ import annotations

import datetime as dt
import ipaddress
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hsmsign.model.purpose import Purpose, PurposeKind, subtree
from hsmsign.purposes import constraints
from tests.unit.purposes.messages import CA, DNS, IP, KEY, MAIL, NOW, OTHER, PERMITTED, ROOT, URI, san, signs, tbs

CLIENT = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
NO_CA = x509.BasicConstraints(ca=False, path_length=None)
BELOW = x509.BasicConstraints(ca=True, path_length=0)
ONLY_DNS = Purpose(PurposeKind.CA, CA.issuer, path_length=1, permitted_names=("dns:example.org",))
ALL_IPS = [IP(ipaddress.ip_network("0.0.0.0/0")), IP(ipaddress.ip_network("::/0"))]
UNCHECKED = x509.RFC822Name._init_without_validation
"""Callers do not write all with `cryptography`."""
NOBODY = [MAIL("invalid"), URI("invalid")]


def widest(purpose: Purpose) -> x509.NameConstraints:
    return constraints.within(tuple(subtree(one) for one in purpose.permitted_names))


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
        # what some read as another name
        ([DNS("evil.com\0.example.org")], False),
        ([DNS("evil.com, DNS:x.example.org")], False),
        ([DNS("evil.com/.example.org")], False),
        ([DNS(".example.org")], False),
        ([DNS("*.*.example.org")], False),
        ([DNS("w*.example.org")], False),
        ([DNS("-a.example.org")], False),
        ([DNS("a..example.org")], False),
        ([DNS("a.example.org.")], False),
        ([DNS("a.example.org\n")], False),
        ([DNS("a" * 64 + ".example.org")], False),
        ([DNS("a." * 122 + "example.org")], False),
        ([DNS("xn--bcher-kva.example.org")], True),
        ([UNCHECKED("ceo@evil.com\0@example.org")], False),
        ([UNCHECKED('"a@evil.com"@example.org')], False),
        ([UNCHECKED("example.org")], False),
        ([UNCHECKED("@example.org")], False),
        ([UNCHECKED("ceo@evil.com ,me@example.org")], False),
        ([UNCHECKED("evil.com\0@example.org")], False),
        ([URI("https://a.corp/\\evil")], False),
        ([URI(" https://a.corp/")], False),
        ([URI("http:/evil/.corp")], False),
        ([URI("spiffe://evil\\@a.corp/x")], False),
        ([URI("spiffe://me@a.corp/x")], False),
        ([URI("spiffe://evil\\.corp/x")], False),
        ([URI("https://evil;.corp/")], False),
        ([URI("https://evil%2f.corp/")], False),
        ([URI("https://evil\n.corp/")], False),
        ([URI("https://[evil.corp/")], False),
        ([URI("https://a.corp:x/")], False),
        ([URI("//a.corp/")], False),
        ([URI("https:///a.corp")], False),
        ([URI("a.corp")], False),
        ([URI(".a.corp")], False),
        ([URI("https://a.corp:8443/x?y#z")], True),
        ([URI("spiffe://under_score.corp/x")], True),
    ],
)
def test_names_lie_where_the_key_permits(names: list[x509.GeneralName], good: bool) -> None:
    assert (signs(PERMITTED, tbs(*([san(*names)] if names else []))) == "") is good


def test_a_host_in_the_common_name_is_a_name_too() -> None:
    good = san(DNS("www.example.org"))
    assert signs(PERMITTED, tbs(good, subject="CN=www.example.org")) == ""
    assert signs(PERMITTED, tbs(good, subject="CN=Web team")) == ""
    for name in ("www.evil.org", "evil.org ", "evil.org\0 example", "me@evil.org", "Me <me@evil.org>"):
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        assert "common name" in signs(PERMITTED, tbs(good, subject=subject))
    assert signs(PERMITTED, tbs(good, subject="CN=example.org service 1.2")) == ""


def test_a_mailbox_in_the_subject_is_a_name_too() -> None:
    def subject(address: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.EMAIL_ADDRESS, address)])

    good = san(MAIL("me@example.org"))
    assert signs(PERMITTED, tbs(good, subject=subject("Me@example.org"))) == ""
    assert "emailAddress" in signs(PERMITTED, tbs(good, subject=subject("ceo@example.org")))
    assert "emailAddress" in signs(PERMITTED, tbs(san(DNS("a.example.org")), subject=subject("ceo@victim.com")))
    assert "emailAddress" in signs(PERMITTED, tbs(BELOW, widest(PERMITTED), subject=subject("ceo@victim.com")))
    assert signs(CA, tbs(subject=subject("ceo@victim.com"))) == ""


# --- CAs below


def test_the_certificate_of_a_ca_below_has_no_other_names_itself() -> None:
    """Its nameConstraints do not limit it, and a server could show it."""
    limits = widest(PERMITTED)
    assert signs(PERMITTED, tbs(BELOW, limits)) == ""
    assert signs(PERMITTED, tbs(BELOW, limits, san(DNS("ca.example.org")))) == ""
    assert signs(PERMITTED, tbs(BELOW, limits, subject="CN=Example.org Issuing CA")) == ""
    assert "subjectAltName" in signs(PERMITTED, tbs(BELOW, limits, san(DNS("www.bank.com"))))
    assert "subjectAltName" in signs(PERMITTED, tbs(BELOW, limits, san(DNS("a.example.org"), DNS("www.bank.com"))))
    assert "common name" in signs(PERMITTED, tbs(BELOW, limits, subject="CN=www.bank.com"))


def test_the_certificate_of_the_key_itself_has_no_other_names_either() -> None:
    own = x509.BasicConstraints(ca=True, path_length=1)
    assert signs(PERMITTED, tbs(own, subject=ROOT, key=KEY)) == ""
    assert signs(PERMITTED, tbs(own, san(DNS("example.org")), subject=ROOT, key=KEY)) == ""
    assert "subjectAltName" in signs(PERMITTED, tbs(own, san(DNS("www.bank.com")), subject=ROOT, key=KEY))


HELD = [DNS("a.example.org"), IP(ipaddress.ip_network("10.1.0.0/16")), MAIL("example.org"), URI(".a.corp")]


@pytest.mark.parametrize(
    ("permitted", "excluded", "good"),
    [
        (HELD, [], True),
        (HELD, [DNS("b.a.example.org")], True),
        (HELD[:3], [], False),
        ([*HELD[:3], URI("invalid")], [], True),
        (HELD[1:], [], False),
        (HELD[1:], [DNS("")], True),
        ([HELD[0], *HELD[2:]], ALL_IPS, True),
        ([HELD[0], *HELD[2:]], ALL_IPS[:1], False),
        ([DNS("org"), *HELD[1:]], [], False),
        ([*HELD, DNS("org")], [], False),
        ([DNS(".a.example.org"), *HELD[1:]], [], True),
        ([DNS("evil\0.example.org"), *HELD[1:]], [], False),
        ([DNS(""), *HELD[1:]], [], False),
        ([HELD[0], IP(ipaddress.ip_network("0.0.0.0/0")), *HELD[2:]], [], False),
        ([*HELD[:2], MAIL("me@example.org"), HELD[3]], [], True),
        ([*HELD[:2], MAIL(".example.org"), HELD[3]], [], False),
        ([*HELD, x509.DirectoryName(ROOT)], [], False),
    ],
)
def test_a_ca_below_is_held_to_the_same_names(
    permitted: list[x509.GeneralName], excluded: list[x509.GeneralName], good: bool
) -> None:
    limits = x509.NameConstraints(permitted, excluded or None)
    assert (signs(PERMITTED, tbs(BELOW, limits)) == "") is good
    assert signs(PERMITTED, tbs(BELOW))


@pytest.mark.parametrize(
    ("permitted", "excluded", "good"),
    [
        ([DNS("example.org"), *NOBODY], ALL_IPS, True),
        ([DNS("example.org"), MAIL(".invalid"), URI("nobody.invalid")], ALL_IPS, True),
        ([DNS("example.org")], [], False),
        ([DNS("example.org")], ALL_IPS, False),
        ([DNS("example.org"), *NOBODY], [], False),
        ([DNS("example.org"), *NOBODY], ALL_IPS[1:], False),
        ([DNS("example.org"), *NOBODY[1:]], ALL_IPS, False),
        ([DNS("example.org"), *NOBODY[:1]], ALL_IPS, False),
        # to OpenSSL these exclude nothing
        ([DNS("example.org")], [*ALL_IPS, UNCHECKED(""), URI("")], False),
        ([DNS("example.org"), MAIL("notinvalid"), URI("invalid")], ALL_IPS, False),
        (NOBODY, ALL_IPS, False),
        ([], [DNS(""), *ALL_IPS], False),
    ],
)
def test_a_ca_below_certifies_no_other_kinds_of_names(
    permitted: list[x509.GeneralName], excluded: list[x509.GeneralName], good: bool
) -> None:
    limits = x509.NameConstraints(permitted or None, excluded or None)
    assert (signs(ONLY_DNS, tbs(BELOW, limits)) == "") is good
    lax = tbs(BELOW, limits, critical=(x509.BasicConstraints,))
    assert "critical nameConstraints" in signs(ONLY_DNS, lax)


def test_what_is_said_of_the_constraints_is_what_is_wanted() -> None:
    for names in (("dns:example.org",), ("email:example.org",), ("uri:.corp",), ("ip:10.0.0.0/8",), ("ip:fd00::/8",)):
        purpose = Purpose(PurposeKind.CA, CA.issuer, path_length=1, permitted_names=names)
        assert signs(purpose, tbs(BELOW, widest(purpose))) == ""


NAMES = {
    "dns": (DNS("a.example.org"), DNS("evil.com")),
    "email": (MAIL("me@example.org"), MAIL("me@evil.com")),
    "uri": (URI("https://example.org/"), URI("spiffe://evil/x")),
    "ip": (IP(ipaddress.ip_address("10.1.2.3")), IP(ipaddress.ip_address("8.8.8.8"))),
    "ip6": (None, IP(ipaddress.ip_address("2001:db8::1"))),
}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")
@pytest.mark.parametrize("kind", ["dns", "email", "uri", "ip"])
def test_verifiers_refuse_what_a_ca_below_certifies_of_other_kinds(kind: str, tmp_path: Path) -> None:
    tree = "ip:10.0.0.0/8" if kind == "ip" else f"{kind}:example.org"
    purpose = Purpose(PurposeKind.CA, CA.issuer, path_length=1, permitted_names=(tree,))
    own = x509.BasicConstraints(ca=True, path_length=1)
    root = _issued("CN=Root,O=Example", "CN=Root,O=Example", KEY, KEY, own)
    below = _issued("CN=Root,O=Example", "CN=Below", KEY, OTHER, BELOW, widest(purpose))
    for other, (inside, outside) in NAMES.items():
        for name in (inside, outside):
            if name is None:
                continue
            leaf = _issued("CN=Below", "CN=leaf", OTHER, KEY, NO_CA, CLIENT, san(name))
            good = other == kind and name is inside
            assert _openssl(root, below, leaf, tmp_path) is good, name
            if kind != "uri" or other != "uri":  # `cryptography` verifies no URIs where there are limits to them
                assert _cryptography(root, below, leaf) is good, name


def _issued(issuer: str, subject: str, by: Any, key: Any, *extensions: x509.ExtensionType) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .issuer_name(x509.Name.from_rfc4514_string(issuer))
        .subject_name(x509.Name.from_rfc4514_string(subject))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW)
        .not_valid_after(NOW + dt.timedelta(days=90))
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    usage = dict.fromkeys(["content_commitment", "key_encipherment", "data_encipherment", "key_agreement"], False)
    usage |= dict.fromkeys(["encipher_only", "decipher_only"], False)
    ca = any(isinstance(one, x509.BasicConstraints) and one.ca for one in extensions)
    signing = x509.KeyUsage(**usage, digital_signature=not ca, key_cert_sign=ca, crl_sign=ca)
    for one in (*extensions, signing):
        builder = builder.add_extension(
            one, critical=not isinstance(one, x509.SubjectAlternativeName | x509.ExtendedKeyUsage)
        )
    return builder.sign(by, hashes.SHA256())


def _openssl(root: x509.Certificate, below: x509.Certificate, leaf: x509.Certificate, folder: Path) -> bool:
    for name, one in (("root", root), ("below", below), ("leaf", leaf)):
        (folder / name).write_bytes(one.public_bytes(serialization.Encoding.PEM))
    when = str(int(NOW.timestamp()) + 60)
    command = ["openssl", "verify", "-attime", when, "-CAfile", "root", "-untrusted", "below", "leaf"]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0


def _cryptography(root: x509.Certificate, below: x509.Certificate, leaf: x509.Certificate) -> bool:
    builder = verification.PolicyBuilder().store(verification.Store([root])).time(NOW + dt.timedelta(minutes=1))
    try:
        builder.build_client_verifier().verify(leaf, [below])
    except verification.VerificationError:
        return False
    return True

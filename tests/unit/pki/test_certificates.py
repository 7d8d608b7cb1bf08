"""Certificates to be signed: clean in the eyes of a linter, OpenSSL and cryptography, and within their issuer's."""

from __future__ import annotations

import datetime as dt
import ipaddress
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import AuthorityInformationAccessOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from hypothesis import given, settings
from hypothesis import strategies as st

from hsmsign.model.algorithms import Scheme
from hsmsign.model.errors import AuthorityStateError, CsrError, InvalidArgumentError, ProfileError, WeakKeyError
from hsmsign.pki import requests
from hsmsign.pki.capturing import captured, hash_of, padding_of
from hsmsign.pki.certificates import assemble, ca_draft, fitted, to_be_signed
from hsmsign.pki.drafting import Draft, draft
from hsmsign.pki.profiles import NameRules, Profile, UnknownExtensions
from hsmsign.purposes import signed
from tests.support import csrs
from tests.support.csrs import NOW, Ca, csr, dns, profile, root
from tests.support.linting import pkilint
from tests.unit.pki.test_requests import SEEDS

ROOT = root()
SUB_KEY = ec.generate_private_key(ec.SECP256R1())
LEAF = csr(*dns("www.example.org"), subject="CN=www.example.org", key=csrs.OTHER)
DAY = dt.timedelta(days=1)


def drawn(data: bytes = LEAF, by: Profile | None = None, **more: Any) -> Draft:
    return draft(requests.read(data), by or profile(), **({"now": NOW} | more))


def below(**more: Any) -> Ca:
    """An intermediate CA under ROOT."""
    by = profile("intermediate", **more)
    return ROOT.below(drawn(csr(subject="CN=Sub,O=Example", key=SUB_KEY), by), SUB_KEY, "CN=Sub,O=Example")


SUB = below()


def found(made: x509.Certificate, kind: Any) -> Any:
    return made.extensions.get_extension_for_class(kind).value


SHORT = {"short_lived": True, "crl": False, "ocsp": False}
PLAIN = csr(subject="CN=Somebody", key=csrs.OTHER)
CERTIFICATES = {
    "root": lambda: ROOT.certificate,
    "constrained root": lambda: (
        root(permitted=("dns:example.org", "ip:10.0.0.0/8"), excluded=("email:a.org",)).certificate
    ),
    "root with policies": lambda: root(policies=("1.3.6.1.4.1.99999.1",), path_length=None).certificate,
    "RSA root": lambda: root(csrs.rsa_key()).certificate,
    "PSS root": lambda: root(csrs.rsa_key(), Scheme.RSA_PSS_SHA256).certificate,
    "Ed25519 root": lambda: root(ed25519.Ed25519PrivateKey.generate()).certificate,
    "until 2060": lambda: root(days=12_600).certificate,
    "intermediate": lambda: SUB.certificate,
    "cross-signed": lambda: cross_signed(),
    "server": lambda: SUB.certify(drawn()),
    "server, no subject": lambda: SUB.certify(drawn(csr(*dns("a.example.org", "b.example.org")))),
    "server, must-staple": lambda: SUB.certify(drawn(by=profile(must_staple=True, policies=("1.3.6.1.4.1.99999.1",)))),
    "server, short-lived": lambda: SUB.certify(drawn(by=profile(**SHORT))),
    "server, RSA": lambda: SUB.certify(drawn(csr(*dns("a.example.org"), key=csrs.rsa_key()))),
    "server, Ed25519": lambda: SUB.certify(drawn(csr(*dns("a.example.org"), key=ed25519.Ed25519PrivateKey.generate()))),
    "all kinds of names": lambda: SUB.certify(all_names()),
    "client": lambda: SUB.certify(drawn(by=profile("client"))),
    "mutual": lambda: SUB.certify(drawn(by=profile("mutual"))),
    "code-signing": lambda: SUB.certify(drawn(PLAIN, profile("code-signing"))),
    "ocsp-responder": lambda: SUB.certify(drawn(PLAIN, profile("ocsp-responder"))),
}


def cross_signed() -> x509.Certificate:
    other = root(subject="CN=Other Root,O=Example")
    name, key = csrs.name("CN=Root,O=Example"), ROOT.key.public_key()
    return other.certify(ca_draft(name, key, now=NOW, validity=900 * DAY, path_length=1))


def all_names() -> Draft:
    mail, uri = x509.RFC822Name("a@example.org"), x509.UniformResourceIdentifier("https://a.example.org/b")
    address = x509.IPAddress(ipaddress.ip_address("10.0.0.1"))
    rules = NameRules(
        ("**.example.org",), ("10.0.0.0/8",), ("https://*.example.org/**",), ("*@example.org",), wildcards=True
    )
    return drawn(csr(*dns("a.example.org"), mail, uri, address), profile(names=rules))


@pytest.mark.parametrize("name", CERTIFICATES)
def test_a_linter_finds_nothing(name: str) -> None:
    assert pkilint(CERTIFICATES[name]()) == []


def test_a_wildcard_is_all_that_rfc_5280_has_no_word_for() -> None:
    rules = NameRules(dns=("*.example.org",), wildcards=True)
    said = pkilint(SUB.certify(drawn(csr(*dns("*.example.org")), profile(names=rules))))
    assert [one.partition(":")[0] for one in said] == ["ERROR pkix.invalid_domain_name_syntax"]


def test_a_linter_of_chains_finds_nothing(tmp_path: Path) -> None:
    by_rsa = root(csrs.rsa_key())  # it checks those of RSA as PKCS #1 v1.5, whatever they say
    pairs = [
        (ROOT.certificate, SUB.certificate),
        (SUB.certificate, SUB.certify(drawn())),
        (by_rsa.certificate, by_rsa.certify(drawn())),
    ]
    above, under = tmp_path / "above.pem", tmp_path / "under.pem"
    for issuer, subject in pairs:
        above.write_bytes(issuer.public_bytes(Encoding.PEM))
        under.write_bytes(subject.public_bytes(Encoding.PEM))
        tool = [sys.executable, "-m", "pkilint.bin.lint_pkix_signer_signee_cert_chain", "lint", "-s", "NOTICE"]
        ran = subprocess.run([*tool, str(above), str(under)], check=False, capture_output=True, text=True)
        assert (ran.returncode, ran.stdout.strip()) == (0, ""), ran.stdout + ran.stderr


def test_the_linter_would_find_something() -> None:
    bad = replace(drawn(), extensions=())
    assert pkilint(SUB.certify(bad)) != []


# --- other eyes


@pytest.mark.parametrize("scheme", list(Scheme))
def test_a_certificate_is_signed_by_every_scheme(scheme: Scheme, tmp_path: Path) -> None:
    keys: dict[str, Any] = {
        "ECDSA_P256_SHA256": lambda: SUB_KEY,
        "ECDSA_P384_SHA384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "ECDSA_P521_SHA512": lambda: ec.generate_private_key(ec.SECP521R1()),
        "ED25519": ed25519.Ed25519PrivateKey.generate,
    }
    ca = root(keys.get(scheme.name, csrs.rsa_key)(), scheme)
    made = ca.certify(drawn())
    made.verify_directly_issued_by(ca.certificate)
    openssl(tmp_path, ca, [], made)


def test_a_chain_is_good_in_the_eyes_of_openssl(tmp_path: Path) -> None:
    for by, purpose in ((profile(), "sslserver"), (profile("client"), "sslclient"), (profile("mutual"), "sslserver")):
        openssl(tmp_path, ROOT, [SUB], SUB.certify(drawn(by=by)), "-purpose", purpose)
    openssl(tmp_path, ROOT, [SUB], SUB.certify(drawn(PLAIN, profile("ocsp-responder"))), "-purpose", "ocsphelper")
    openssl(tmp_path, ROOT, [SUB], SUB.certify(drawn(by=profile(**SHORT))), "-purpose", "sslserver")


def test_a_constrained_ca_certifies_what_is_inside_its_constraints_only(tmp_path: Path) -> None:
    ca = root(permitted=("dns:example.org",))
    openssl(tmp_path, ca, [], ca.certify(drawn()))
    other = ca.certify(drawn(csr(*dns("a.example.com")), profile(names=NameRules(dns=("*.example.com",)))))
    with pytest.raises(subprocess.CalledProcessError):
        openssl(tmp_path, ca, [], other)


def openssl(folder: Path, ca: Ca, between: list[Ca], made: x509.Certificate, *more: str) -> None:
    root_file, chain, leaf = folder / "root.pem", folder / "chain.pem", folder / "leaf.pem"
    root_file.write_bytes(ca.pem)
    chain.write_bytes(b"".join(one.pem for one in between))
    leaf.write_bytes(made.public_bytes(Encoding.PEM))
    untrusted = ["-untrusted", str(chain)] if between else []
    when = str(int(NOW.timestamp()) + 3600)
    subprocess.run(
        ["openssl", "verify", "-x509_strict", "-attime", when, *more, "-CAfile", str(root_file), *untrusted, str(leaf)],
        check=True,
        capture_output=True,
    )


def test_a_chain_is_good_in_the_eyes_of_cryptography() -> None:
    builder = PolicyBuilder().store(Store([ROOT.certificate])).time(NOW + dt.timedelta(hours=1))
    for by in (profile(), profile(**SHORT), profile("mutual")):
        server = builder.build_server_verifier(x509.DNSName("www.example.org"))
        assert len(server.verify(SUB.certify(drawn(by=by)), [SUB.certificate])) == 3
    client = builder.build_client_verifier()
    assert client.verify(SUB.certify(drawn(by=profile("client"))), [SUB.certificate]).subjects
    with pytest.raises(VerificationError):
        client.verify(SUB.certify(drawn()), [SUB.certificate])


def test_a_signing_device_sees_a_certificate_in_what_it_signs() -> None:
    tbs = to_be_signed(drawn(), SUB.issuer, 7)
    made = signed.certificate(tbs, SUB.issuer.scheme)
    assert made is not None
    assert (made.serial_number, made.version) == (7, x509.Version.v3)
    assert made.issuer.public_bytes() == SUB.certificate.subject.public_bytes()


# --- what the issuer adds


def test_a_certificate_says_where_to_ask_about_it() -> None:
    made = SUB.certify(drawn())
    access = [(one.access_method, one.access_location.value) for one in found(made, x509.AuthorityInformationAccess)]
    assert access == [
        (AuthorityInformationAccessOID.OCSP, "http://ca.example.org/ocsp"),
        (AuthorityInformationAccessOID.CA_ISSUERS, "http://ca.example.org/ca.cer"),
    ]
    assert found(made, x509.CRLDistributionPoints)[0].full_name[0].value == "http://ca.example.org/ca.crl"
    assert found(made, x509.AuthorityKeyIdentifier).key_identifier == SUB.issuer.key_identifier
    assert found(SUB.certificate, x509.SubjectKeyIdentifier).digest == SUB.issuer.key_identifier


def test_a_profile_leaves_out_where_to_ask() -> None:
    made = SUB.certify(drawn(by=profile(crl=False, ocsp=False)))
    assert [one.access_method for one in found(made, x509.AuthorityInformationAccess)] == [
        AuthorityInformationAccessOID.CA_ISSUERS
    ]
    with pytest.raises(x509.ExtensionNotFound):
        found(made, x509.CRLDistributionPoints)


def test_without_urls_a_certificate_says_nothing_of_them() -> None:
    quiet = replace(SUB, issuer=replace(SUB.issuer, ca_urls=(), crl_urls=(), ocsp_urls=()))
    for kind in (x509.AuthorityInformationAccess, x509.CRLDistributionPoints):
        with pytest.raises(x509.ExtensionNotFound):
            found(quiet.certify(drawn()), kind)


def test_a_certificate_that_cannot_be_revoked_says_so_and_nothing_else_of_it() -> None:
    made = SUB.certify(drawn(by=profile(**SHORT)))
    value = made.extensions.get_extension_for_oid(x509.ObjectIdentifier("2.5.29.56")).value
    assert value.public_bytes() == b"\x05\x00"
    with pytest.raises(x509.ExtensionNotFound):
        found(made, x509.CRLDistributionPoints)


def test_a_root_says_nothing_of_where_to_ask_about_itself() -> None:
    again = ROOT.certify(ca_draft(ROOT.issuer.name, ROOT.key.public_key(), now=NOW, validity=9 * DAY, path_length=2))
    for kind in (x509.AuthorityInformationAccess, x509.CRLDistributionPoints):
        with pytest.raises(x509.ExtensionNotFound):
            found(again, kind)


# --- the issuer's limits


def test_no_certificate_outlives_its_issuer() -> None:
    ca = root(days=30)
    made = fitted(drawn(), ca.issuer)
    assert made.capped
    assert made.not_after == ca.issuer.not_after
    assert ca.certify(drawn()).not_valid_after_utc == ca.issuer.not_after
    assert not fitted(drawn(wanted=9 * DAY), ca.issuer).capped


def test_no_certificate_is_older_than_its_issuer() -> None:
    made = ROOT.certify(drawn())
    assert made.not_valid_before_utc == ROOT.issuer.not_before
    assert not fitted(drawn(), ROOT.issuer).capped


def test_an_issuer_that_has_ended_issues_nothing() -> None:
    ca = root(days=30)
    for now in (ca.issuer.not_after + dt.timedelta(seconds=1), NOW + 31 * DAY):
        with pytest.raises(AuthorityStateError, match="ended"):
            ca.certify(drawn(now=now))


def test_an_issuer_that_has_not_begun_issues_nothing() -> None:
    with pytest.raises(AuthorityStateError, match="begins"):
        ROOT.certify(drawn(now=NOW - 200 * DAY))


def test_a_path_becomes_shorter_with_each_ca() -> None:
    def wanted(path_length: int | None) -> Draft:
        key = csrs.OTHER.public_key()
        return ca_draft(csrs.name("CN=Deep"), key, now=NOW, validity=9 * DAY, path_length=path_length)

    assert ROOT.certify(wanted(1))
    for path_length in (2, None):
        with pytest.raises(AuthorityStateError, match="at most 1"):
            ROOT.certify(wanted(path_length))
    with pytest.raises(AuthorityStateError, match="no CAs"):
        SUB.certify(wanted(0))
    assert root(path_length=None).certify(wanted(None))
    assert SUB.certify(drawn())


@pytest.mark.parametrize(
    "said",
    [
        {"subject": x509.Name([])},
        {"path_length": -1},
        {"validity": dt.timedelta(0)},
        {"policies": ("one",)},
        {"permitted": ("example.org",)},
        {"excluded": ("ip:10.0.0.1/8",)},
    ],
    ids=lambda said: next(iter(said)),
)
def test_what_is_no_ca(said: dict[str, Any]) -> None:
    good: dict[str, Any] = {"subject": csrs.name("CN=Root"), "path_length": 0, "now": NOW, "validity": DAY}
    arguments = good | said
    with pytest.raises(InvalidArgumentError):
        ca_draft(arguments.pop("subject"), csrs.KEY.public_key(), **arguments)


def test_a_weak_key_is_no_cas() -> None:
    with pytest.raises(WeakKeyError):
        root(csrs.near_primes_key())


# --- stand-ins


def test_a_stand_in_gives_what_the_builder_would_sign_and_nothing_else() -> None:
    builder = x509.CertificateSigningRequestBuilder().subject_name(csrs.name("CN=a"))
    for key, scheme in (
        (csrs.KEY, Scheme.ECDSA_P256_SHA256),
        (csrs.rsa_key(), Scheme.RSA_PKCS1_SHA384),
        (csrs.rsa_key(), Scheme.RSA_PSS_SHA512),
        (ed25519.Ed25519PrivateKey.generate(), Scheme.ED25519),
    ):

        def sign(by: Any, scheme: Scheme = scheme) -> object:
            return builder.sign(by, hash_of(scheme), rsa_padding=padding_of(scheme))

        info = captured(sign, key.public_key(), scheme)
        made = x509.load_der_x509_csr(assemble(info, scheme, csrs.sign(key, scheme, info)))
        assert made.is_signature_valid
        assert made.tbs_certrequest_bytes == info


@pytest.mark.parametrize(
    "misuse",
    [
        lambda key: key.sign(b"x", ec.ECDSA(hashes.SHA384())),
        lambda key: key.exchange(ec.ECDH(), csrs.OTHER.public_key()),
        lambda key: key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        lambda key: key.private_numbers(),
    ],
)
def test_a_stand_in_is_no_private_key(misuse: Any) -> None:
    with pytest.raises(UnsupportedAlgorithm):
        captured(misuse, csrs.KEY.public_key(), Scheme.ECDSA_P256_SHA256)


def test_a_stand_in_is_of_the_schemes_kind_and_signs_something() -> None:
    with pytest.raises(UnsupportedAlgorithm):
        captured(lambda key: None, csrs.KEY.public_key(), Scheme.ED25519)
    with pytest.raises(ValueError, match="nothing"):
        captured(lambda key: None, csrs.KEY.public_key(), Scheme.ECDSA_P256_SHA256)


def test_a_serial_number_has_1_to_159_bits() -> None:
    assert SUB.certify(drawn(), (1 << 159) - 1)
    for serial in (0, -1, 1 << 159):
        with pytest.raises(ValueError):
            to_be_signed(drawn(), SUB.issuer, serial)


# --- from anything to a certificate

GENEROUS = [
    profile(names=NameRules(("**.example.org", "example.org"), ("0.0.0.0/0", "::/0"), ("spiffe://example.org/**",))),
    profile(
        "client", unknown_extensions=UnknownExtensions.IGNORE, names=NameRules(("**.example.org",), required=False)
    ),
    profile("intermediate", unknown_extensions=UnknownExtensions.IGNORE),
    profile("code-signing", copy=("1.2.3", "2.5.29.9", "2.5.29.16")),
]


def certify_anything(data: bytes, by: Profile) -> None:
    """For fuzzing: whatever the request, documented errors or a certificate that says what the draft says."""
    try:
        made = draft(requests.read(data), by, now=NOW)
    except (CsrError, WeakKeyError, ProfileError):
        return
    certificate = SUB.certify(made) if not made.is_ca else ROOT.certify(made)
    assert certificate.subject == made.subject
    basic = found(certificate, x509.BasicConstraints)
    assert basic.ca == (by.ca is not None)
    assert pkilint(certificate) == []


def again(key: Any, data: bytes) -> bytes:
    """The same request with a new signature where it can be read."""
    try:
        return csrs.signed(key, x509.load_der_x509_csr(data).tbs_certrequest_bytes)
    except requests.UNREADABLE:
        return data


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(SEEDS), st.sampled_from(GENEROUS), st.integers(0, 4096), st.binary(max_size=3), st.integers(0, 3)
)
def test_a_changed_request_under_a_good_signature_makes_a_clean_certificate_or_none(
    seed: bytes, by: Profile, at: int, piece: bytes, width: int
) -> None:
    place = at % (len(seed) + 1)
    certify_anything(again(csrs.KEY, seed[:place] + piece + seed[place + width :]), by)

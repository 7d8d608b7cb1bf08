"""Requests held against profiles: what a certificate will say, and what no profile lets through."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hsmsign.model.errors import ProfileError, WeakKeyError
from hsmsign.pki import requests
from hsmsign.pki.drafting import Draft, draft
from hsmsign.pki.profiles import (
    Attribute,
    KeyRule,
    NameRules,
    Profile,
    SubjectRule,
    SubjectWord,
    UnknownExtensions,
    Usage,
    Validity,
)
from tests.support import csrs
from tests.support.csrs import NOW, csr, dns, profile

SERVER = profile()
KU = dict.fromkeys(
    (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    ),
    False,
)
FEATURE = x509.TLSFeature([x509.TLSFeatureType.status_request])


@dataclass(frozen=True)
class Token:
    """What another part makes of an identity token."""

    names: tuple[x509.GeneralName, ...] = dns("a.example.org")
    common_name: str = ""
    issuer: str = "gce"


def drawn(data: bytes, by: Profile = SERVER, **more: Any) -> Draft:
    return draft(requests.read(data), by, now=NOW, **more)


def refusal(data: bytes, by: Profile = SERVER, **more: Any) -> tuple[str, str]:
    """The check that refuses a request, and its words with the hint."""
    with pytest.raises(ProfileError) as found:
        drawn(data, by, **more)
    assert found.value.metadata["profile"] == by.name
    assert found.value.hint
    return found.value.metadata["check"], f"{found.value.message}; {found.value.hint}"


def rules(**said: Any) -> tuple[SubjectRule, ...]:
    """By attribute: a word, or a fixed value."""
    return tuple(
        SubjectRule(Attribute(name), value) if isinstance(value, SubjectWord) else _fixed(name, value)
        for name, value in said.items()
    )


def _fixed(name: str, value: str) -> SubjectRule:
    return SubjectRule(Attribute(name), SubjectWord.FIXED, value)


def usage(**bits: bool) -> x509.KeyUsage:
    return x509.KeyUsage(**(KU | bits))


def found(made: Draft, kind: Any) -> Any:
    return next((one for one in made.extensions if isinstance(one.value, kind)), None)


# --- what is drawn up


def test_a_draft_says_what_the_profile_says() -> None:
    made = drawn(csr(*dns("www.Example.org"), subject="CN=WWW.example.org"))
    assert made.subject == csrs.name("CN=www.example.org")
    assert made.names == dns("www.example.org")
    assert made.key == "EC P-256"
    assert made.profile == "server"
    assert found(made, x509.SubjectAlternativeName).value == x509.SubjectAlternativeName(dns("www.example.org"))
    assert found(made, x509.BasicConstraints).value == x509.BasicConstraints(ca=False, path_length=None)
    assert list(found(made, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert found(made, x509.KeyUsage).critical


def test_key_encipherment_is_for_rsa_keys_only() -> None:
    assert found(drawn(csr(*dns("a.example.org"))), x509.KeyUsage).value == usage(digital_signature=True)
    by_rsa = drawn(csr(*dns("a.example.org"), key=csrs.rsa_key()))
    assert found(by_rsa, x509.KeyUsage).value == usage(digital_signature=True, key_encipherment=True)


def test_a_subject_that_is_empty_makes_the_names_critical() -> None:
    assert found(drawn(csr(*dns("a.example.org"))), x509.SubjectAlternativeName).critical
    assert not found(
        drawn(csr(*dns("a.example.org"), subject="CN=a.example.org")), x509.SubjectAlternativeName
    ).critical


def test_everything_that_a_profile_can_add_is_added() -> None:
    by = profile(must_staple=True, policies=("1.3.6.1.4.1.99999.1",))
    made = drawn(csr(*dns("a.example.org")), by)
    assert found(made, x509.TLSFeature).value == FEATURE
    assert found(made, x509.CertificatePolicies).value[0].policy_identifier.dotted_string == "1.3.6.1.4.1.99999.1"
    short = drawn(csr(*dns("a.example.org")), profile(short_lived=True, crl=False, ocsp=False))
    assert "2.5.29.56" in [one.oid.dotted_string for one in short.extensions]
    assert (short.crl, short.ocsp) == (False, False)


# --- keys


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        (csrs.KEY, KeyRule.EC_P256, KeyRule.EC_P384),
        (ec.generate_private_key(ec.SECP384R1()), KeyRule.EC_P384, KeyRule.EC_P256),
        (csrs.rsa_key(), KeyRule.RSA_2048, KeyRule.RSA_3072),
        (csrs.rsa_key(3072), KeyRule.RSA_3072, KeyRule.RSA_4096),
        (csrs.rsa_key(3072), KeyRule.RSA_2048, KeyRule.ED25519),
        (ed25519.Ed25519PrivateKey.generate(), KeyRule.ED25519, KeyRule.RSA_2048),
    ],
)
def test_a_profile_says_which_keys(key: Any, good: KeyRule, bad: KeyRule) -> None:
    data = csr(*dns("a.example.org"), key=key)
    assert drawn(data, profile(keys=(good,)))
    assert refusal(data, profile(keys=(bad,)))[0] == "key"


@pytest.mark.parametrize("curve", [ec.SECP192R1(), ec.SECP256K1(), ec.BrainpoolP256R1()], ids=lambda one: one.name)
def test_other_curves_are_in_no_profile(curve: ec.EllipticCurve) -> None:
    check, words = refusal(csr(*dns("a.example.org"), key=ec.generate_private_key(curve)))
    assert check == "key"
    assert curve.name in words


@pytest.mark.parametrize("key", [csrs.roca_key(), csrs.near_primes_key()], ids=["ROCA", "Fermat"])
def test_a_weak_key_is_not_certified(key: Any) -> None:
    with pytest.raises(WeakKeyError):
        drawn(csr(*dns("a.example.org"), key=key))


# --- names


def test_a_built_in_profile_allows_no_names_until_it_is_told_which() -> None:
    for base in ("server", "client", "mutual"):
        check, words = refusal(csr(*dns("a.example.org")), profile(base, names=NameRules()))
        assert check == "names"
        assert f"[profiles.{base}]" in words
        assert "identity token" in words


def test_a_name_outside_the_patterns_is_refused_with_what_is_inside() -> None:
    check, words = refusal(csr(*dns("a.example.org", "a.example.com")))
    assert check == "names"
    assert "dns:a.example.com" in words
    assert "dns:**.example.org" in words


@pytest.mark.parametrize(
    "name",
    [
        x509.IPAddress(ipaddress.ip_address("10.0.0.1")),
        x509.RFC822Name("a@example.org"),
        x509.UniformResourceIdentifier("https://a.example.org/"),
    ],
)
def test_a_kind_of_name_without_patterns_is_refused(name: x509.GeneralName) -> None:
    assert refusal(csr(*dns("a.example.org"), name))[0] == "names"
    allowing = NameRules(ip=("10.0.0.0/8",), email=("*@example.org",), uri=("https://a.example.org/",))
    assert drawn(csr(name), profile(names=allowing)).names == (name,)


def test_a_wildcard_wants_the_profiles_word() -> None:
    data = csr(*dns("*.a.example.org"))
    assert refusal(data)[0] == "names"
    assert drawn(data, profile(names=NameRules(dns=("**.example.org",), wildcards=True))).names == dns(
        "*.a.example.org"
    )


def test_names_are_counted() -> None:
    names = dns(*(f"a{number}.example.org" for number in range(101)))
    assert refusal(csr(*names))[0] == "names"
    assert len(drawn(csr(*names[:100])).names) == 100
    assert refusal(csr(*names[:3]), profile(names=NameRules(dns=("**.example.org",), max=2)))[0] == "names"


def test_a_name_is_required() -> None:
    assert refusal(csr(subject="CN=a.example.org"))[0] == "names"


def test_a_request_for_nobody_is_refused() -> None:
    open_names = NameRules(dns=("**.example.org",), required=False)
    assert refusal(csr(), profile(names=open_names))[0] == "subject"


# --- the subject

ORG, C = NameOID.ORGANIZATION_NAME, NameOID.COUNTRY_NAME
OPTIONAL, REQUIRED, FORBIDDEN = SubjectWord.OPTIONAL, SubjectWord.REQUIRED, SubjectWord.FORBIDDEN


def attribute(oid: x509.ObjectIdentifier, value: str, **more: Any) -> x509.NameAttribute:
    return x509.NameAttribute(oid, value, _validate=False, **more)


def test_a_common_name_is_one_of_the_names_in_their_spelling() -> None:
    assert drawn(csr(*dns("a.example.org", "b.example.org"), subject="CN=B.example.org")).subject == csrs.name(
        "CN=b.example.org"
    )
    assert refusal(csr(*dns("a.example.org"), subject="CN=b.example.org"))[0] == "subject"
    assert refusal(csr(*dns("a.example.org"), subject="CN=Administrator"))[0] == "subject"


@pytest.mark.parametrize(
    ("word", "without", "with_value"),
    [(OPTIONAL, True, True), (REQUIRED, False, True), (FORBIDDEN, True, False), ("Example", True, True)],
)
def test_a_profile_says_of_each_attribute_what_it_may_be(word: Any, without: bool, with_value: bool) -> None:
    by = profile(subject=rules(O=word))
    for good, subject in ((without, ""), (with_value, "O=Example")):
        if good:
            assert drawn(csr(*dns("a.example.org"), subject=subject), by)
        else:
            assert refusal(csr(*dns("a.example.org"), subject=subject), by)[0] == "subject"


def test_a_fixed_attribute_is_added_and_no_other_value_passes() -> None:
    by = profile(subject=rules(CN=SubjectWord.FROM_NAMES, OU="Web", O="Example", C="DE"))
    made = drawn(csr(*dns("a.example.org"), subject="CN=a.example.org"), by)
    assert made.subject.rfc4514_string() == "CN=a.example.org,OU=Web,O=Example,C=DE"
    assert refusal(csr(*dns("a.example.org"), subject="O=Other"), by)[0] == "subject"


def test_an_attribute_without_a_rule_is_forbidden() -> None:
    for subject in ("O=Example", "C=DE", "ST=x", "L=x", "OU=x", "DC=org"):
        assert refusal(csr(*dns("a.example.org"), subject=subject))[0] == "subject"
    for oid in (NameOID.SERIAL_NUMBER, NameOID.SURNAME, x509.ObjectIdentifier("1.2.3.4")):
        assert refusal(csr(*dns("a.example.org"), subject=x509.Name([attribute(oid, "x")])))[0] == "subject"


@pytest.mark.parametrize(
    "subject",
    [
        x509.Name([attribute(ORG, "a"), attribute(ORG, "b")]),
        x509.Name([x509.RelativeDistinguishedName([attribute(ORG, "a"), attribute(C, "DE")])]),
        x509.Name([attribute(ORG, "x" * 65)]),
        x509.Name([attribute(ORG, "a\0b")]),
        x509.Name([attribute(ORG, "a\nb")]),
        x509.Name([attribute(ORG, "\u202egro")]),
        x509.Name([attribute(ORG, " a")]),
        x509.Name([attribute(C, "de")]),
        x509.Name([attribute(C, "D3")]),
        x509.Name([attribute(NameOID.SERIAL_NUMBER, "a_b", _type=_ASN1Type.UTF8String)]),
        x509.Name([attribute(NameOID.EMAIL_ADDRESS, "a@example.org")]),
    ],
    ids=["twice", "multi-valued", "long", "NUL", "line", "bidi", "space", "small", "digits", "underscore", "email"],
)
def test_what_cannot_stand_in_a_subject(subject: x509.Name) -> None:
    by = profile(subject=rules(O=OPTIONAL, C=OPTIONAL, serialNumber=OPTIONAL))
    assert refusal(csr(*dns("a.example.org"), subject=subject), by)[0] == "subject"


def test_the_order_of_a_subject_is_the_requests() -> None:
    by = profile("intermediate")
    assert drawn(csr(subject="O=Example,CN=Sub CA"), by).subject == csrs.name("O=Example,CN=Sub CA")
    assert drawn(csr(subject="CN=Sub CA,O=Example"), by).subject == csrs.name("CN=Sub CA,O=Example")


# --- what else a request asks for

EKU = x509.ExtendedKeyUsage


@pytest.mark.parametrize(
    "asked",
    [
        [x509.BasicConstraints(ca=False, path_length=None)],
        [usage(digital_signature=True)],
        [usage(digital_signature=True, key_encipherment=True)],
        [EKU([ExtendedKeyUsageOID.SERVER_AUTH])],
        [x509.SubjectKeyIdentifier.from_public_key(csrs.KEY.public_key())],
    ],
)
def test_asking_for_what_the_profile_sets_anyway_is_fine(asked: Sequence[x509.ExtensionType]) -> None:
    assert (
        drawn(csr(*dns("a.example.org"), extensions=asked)).extensions == drawn(csr(*dns("a.example.org"))).extensions
    )


REFUSED = {
    "a CA": x509.BasicConstraints(ca=True, path_length=None),
    "a CA with a path": x509.BasicConstraints(ca=True, path_length=3),
    "certificates to sign": usage(digital_signature=True, key_cert_sign=True),
    "CRLs to sign": usage(crl_sign=True),
    "a key agreement": usage(key_agreement=True, encipher_only=True),
    "another use": EKU([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
    "any use": EKU([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]),
    "OCSP to sign": EKU([ExtendedKeyUsageOID.OCSP_SIGNING]),
}
UNKNOWN = {
    "stapling": FEATURE,
    "policies": x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("1.2.3"), None)]),
    "no check": x509.OCSPNoCheck(),
    "another key's identifier": x509.SubjectKeyIdentifier(b"x" * 20),
    "a template": x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2"), b"\x1e\x02\x00a"),
    "the poison": x509.PrecertPoison(),
}


@pytest.mark.parametrize("name", REFUSED)
def test_asking_for_more_than_the_profile_gives_is_refused_even_where_the_unknown_is_ignored(name: str) -> None:
    data = csr(*dns("a.example.org"), extensions=[REFUSED[name]])
    for word in UnknownExtensions:
        assert refusal(data, profile(unknown_extensions=word))[0] == "extensions"


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_extension_is_refused_or_ignored_as_the_profile_says(name: str) -> None:
    data = csr(*dns("a.example.org"), extensions=[UNKNOWN[name]])
    assert refusal(data)[0] == "extensions"
    made = drawn(data, profile(unknown_extensions=UnknownExtensions.IGNORE))
    assert made.extensions == drawn(csr(*dns("a.example.org"))).extensions


def test_a_profile_may_let_a_request_set_an_extension() -> None:
    data = csr(*dns("a.example.org"), extensions=[UNKNOWN["a template"], FEATURE])
    made = drawn(data, profile(copy=("1.3.6.1.4.1.311.20.2", "1.3.6.1.5.5.7.1.24")))
    assert [one.value for one in made.extensions[-2:]] == [UNKNOWN["a template"], FEATURE]


def test_a_ca_below_asks_for_no_longer_path_than_it_gets() -> None:
    by = profile("intermediate")
    for length in (None, 0):
        made = drawn(csr(subject="CN=Sub", extensions=[x509.BasicConstraints(ca=True, path_length=length)]), by)
        assert found(made, x509.BasicConstraints).value.path_length == 0
        assert (made.is_ca, made.path_length) == (True, 0)
    assert refusal(csr(subject="CN=Sub", extensions=[x509.BasicConstraints(True, 1)]), by)[0] == "extensions"
    assert refusal(csr(subject="CN=Sub", extensions=[x509.BasicConstraints(False, None)]), by)[0] == "extensions"
    assert refusal(csr(*dns("a.example.org"), subject="CN=Sub"), by)[0] == "names"
    assert refusal(csr(), by)[0] == "subject"


# --- validity


def test_a_validity_begins_in_the_past_and_lasts_as_long_as_is_said() -> None:
    by = profile(validity=Validity(3600, 7200, 300))
    made = drawn(csr(*dns("a.example.org")), by)
    assert made.not_before == NOW - dt.timedelta(seconds=300)
    assert made.not_after - made.not_before == dt.timedelta(seconds=3599)
    longer = drawn(csr(*dns("a.example.org")), by, wanted=dt.timedelta(seconds=7200.9))
    assert longer.not_after - longer.not_before == dt.timedelta(seconds=7199)


@pytest.mark.parametrize("wanted", [-1, 0, 300, 7201])
def test_a_validity_outside_the_profile_is_refused(wanted: int) -> None:
    by = profile(validity=Validity(3600, 7200, 300))
    assert refusal(csr(*dns("a.example.org")), by, wanted=dt.timedelta(seconds=wanted))[0] == "validity"


def test_the_clock_may_be_anywhere_and_between_seconds() -> None:
    zone = dt.timezone(dt.timedelta(hours=5))
    made = draft(requests.read(csr(*dns("a.example.org"))), SERVER, now=NOW.astimezone(zone).replace(microsecond=7))
    assert made.not_before == drawn(csr(*dns("a.example.org"))).not_before
    assert made.not_before.tzinfo is dt.UTC


# --- tokens

WANTED = profile(identity=("gce", "github"), names=NameRules())


def test_a_profile_that_wants_a_token_gets_one_of_its_issuers() -> None:
    data = csr(*dns("a.example.org"))
    assert refusal(data, WANTED)[0] == "identity"
    assert refusal(data, WANTED, vouched=Token(issuer="other"))[0] == "identity"
    assert drawn(data, WANTED, vouched=Token(issuer="github")).names == dns("a.example.org")


def test_a_token_vouches_for_names_without_patterns() -> None:
    assert drawn(csr(*dns("A.example.org")), profile(names=NameRules()), vouched=Token()).names == dns("a.example.org")


def test_a_request_asks_for_no_name_that_the_token_does_not_vouch_for() -> None:
    for by in (WANTED, replace(WANTED, names=SERVER.names)):
        check, words = refusal(csr(*dns("a.example.org", "b.example.org")), by, vouched=Token())
        assert check == "identity"
        assert "dns:b.example.org" in words


def test_a_name_must_fit_the_patterns_too_where_there_are_any() -> None:
    by = replace(WANTED, names=NameRules(dns=("*.example.com",)))
    assert refusal(csr(*dns("a.example.org")), by, vouched=Token())[0] == "names"
    assert refusal(csr(), by, vouched=Token())[0] == "names"


def test_a_request_without_names_gets_all_that_the_token_vouches_for() -> None:
    names = (*dns("a.example.org"), x509.UniformResourceIdentifier("spiffe://example.org/a"))
    made = drawn(csr(), WANTED, vouched=Token(names))
    assert made.names == names
    assert found(made, x509.SubjectAlternativeName).value == x509.SubjectAlternativeName(names)
    assert drawn(csr(*names[:1]), WANTED, vouched=Token(names)).names == names[:1]


def test_a_token_that_vouches_for_no_names_is_not_enough_where_one_is_required() -> None:
    assert refusal(csr(), WANTED, vouched=Token(()))[0] == "names"


def test_a_token_that_vouches_for_what_is_no_name_is_refused() -> None:
    bad = x509.DNSName._init_without_validation("a b")
    assert refusal(csr(), WANTED, vouched=Token((bad,)))[0] == "identity"


def test_a_wildcard_from_a_token_wants_the_profiles_word_too() -> None:
    assert refusal(csr(), WANTED, vouched=Token(dns("*.example.org")))[0] == "names"


@pytest.mark.parametrize(
    ("word", "asked", "offered", "result"),
    [
        (OPTIONAL, "", "vm-1", "vm-1"),
        (OPTIONAL, "vm-1", "vm-1", "vm-1"),
        (OPTIONAL, "a.example.org", "vm-1", "a.example.org"),
        (OPTIONAL, "root", "vm-1", None),
        (OPTIONAL, "root", "", None),
        (OPTIONAL, "", "", ""),
        (REQUIRED, "", "vm-1", "vm-1"),
        (REQUIRED, "root", "vm-1", None),
        (FORBIDDEN, "", "vm-1", ""),
        (SubjectWord.FROM_NAMES, "", "vm-1", ""),
        (SubjectWord.FROM_NAMES, "", "A.example.org", "a.example.org"),
        (SubjectWord.FROM_NAMES, "vm-1", "vm-1", None),
        ("fixed", "", "vm-1", "fixed"),
        ("fixed", "fixed", "vm-1", "fixed"),
    ],
)
def test_a_common_name_is_vouched_for_too(word: Any, asked: str, offered: str, result: str | None) -> None:
    by = replace(WANTED, subject=rules(CN=word))
    data = csr(*dns("a.example.org"), subject=f"CN={asked}" if asked else "")
    if result is None:
        assert refusal(data, by, vouched=Token(common_name=offered))[0] in ("identity", "subject")
    else:
        made = drawn(data, by, vouched=Token(common_name=offered)).subject
        assert made == csrs.name(f"CN={result}" if result else "")


def test_a_token_names_a_ca_below_but_gives_it_no_other_names() -> None:
    made = drawn(csr(), profile("intermediate"), vouched=Token(common_name="Sub"))
    assert made.names == ()
    assert made.subject == csrs.name("CN=Sub")
    assert Usage.KEY_CERT_SIGN in profile("intermediate").usages

"""Profiles: read from a configuration with all that is wrong with it, and whole behind a process wall."""

from __future__ import annotations

import json
import tomllib

import pytest

from hsmsign.model.errors import ConfigurationError
from hsmsign.model.hostwire import from_json, to_json
from hsmsign.pki import contradictions
from hsmsign.pki.profiles import (
    BUILT_IN,
    Attribute,
    CaRules,
    KeyRule,
    Profile,
    SubjectRule,
    SubjectWord,
    UnknownExtensions,
    Usage,
    Validity,
)
from hsmsign.pki.reading_profiles import read_profiles

ALL = """
[profiles.web]
base = "server"
authorities = ["issuing"]
principals = ["spiffe://corp/web/*"]
identity = ["gce"]
keys = ["ec-p256", "rsa-3072"]
usages = ["digitalSignature"]
extended_usages = ["serverAuth", "1.3.6.1.5.5.7.3.17"]
subject = { O = "Example", CN = "optional", OU = "required" }
names = { dns = ["*.Example.org"], ip = ["10.0.0.0/8"], uri = ["spiffe://example.org/**"], email = ["*@example.org"] }
validity = { default = "12h", max = "7d", backdate = "5m" }
policies = ["1.3.6.1.4.1.99999.1"]
must_staple = true
unknown_extensions = "ignore"
copy = ["1.3.6.1.4.1.99999.2"]
crl = false
"""


def read(text: str) -> dict[str, Profile]:
    return {profile.name: profile for profile in read_profiles(tomllib.loads(text).get("profiles", {}))}


def problems(text: str) -> str:
    with pytest.raises(ConfigurationError) as found:
        read(text)
    assert found.value.hint
    return found.value.message


def test_without_tables_there_are_the_built_in_profiles() -> None:
    assert read("") == {profile.name: profile for profile in BUILT_IN}
    names = ["server", "client", "mutual", "code-signing", "intermediate", "ocsp-responder"]
    assert list(read("")) == names


@pytest.mark.parametrize("profile", BUILT_IN, ids=lambda profile: profile.name)
def test_a_built_in_profile_contradicts_itself_nowhere(profile: Profile) -> None:
    assert contradictions.find(profile) == ()


def test_everything_that_can_be_said_is_read() -> None:
    web = read(ALL)["web"]
    assert web.authorities == ("issuing",)
    assert web.principals == ("spiffe://corp/web/*",)
    assert web.identity == ("gce",)
    assert web.keys == (KeyRule.EC_P256, KeyRule.RSA_3072)
    assert web.usages == (Usage.DIGITAL_SIGNATURE,)
    assert web.extended_usages == ("serverAuth", "1.3.6.1.5.5.7.3.17")
    assert web.rule(Attribute.O) == SubjectRule(Attribute.O, SubjectWord.FIXED, "Example")
    assert web.rule(Attribute.CN).word is SubjectWord.OPTIONAL
    assert web.rule(Attribute.OU).word is SubjectWord.REQUIRED
    assert web.rule(Attribute.C).word is SubjectWord.FORBIDDEN
    assert web.names.dns == ("*.example.org",)
    assert (web.names.ip, web.names.email) == (("10.0.0.0/8",), ("*@example.org",))
    assert web.validity == Validity(12 * 3600, 7 * 86_400, 300)
    assert (web.must_staple, web.crl, web.ocsp) == (True, False, True)
    assert web.unknown_extensions is UnknownExtensions.IGNORE
    assert web.copy == ("1.3.6.1.4.1.99999.2",)


def test_profiles_cross_a_process_wall_as_json() -> None:
    for profile in read(ALL + "[profiles.sub]\nbase = 'intermediate'\nca.permitted = ['dns:example.org']").values():
        assert from_json(Profile, json.loads(json.dumps(to_json(profile)))) == profile


def test_a_table_with_a_built_in_name_changes_it_and_those_on_it() -> None:
    found = read("""
        [profiles.web]
        base = "server"
        validity.default = "30d"
        [profiles.server]
        names.dns = ["*.example.org"]
        validity.max = "60d"
        validity.default = "20d"
    """)
    assert found["server"].names.dns == found["web"].names.dns == ("*.example.org",)
    assert found["server"].names.required
    assert found["web"].validity == Validity(30 * 86_400, 60 * 86_400, 300)
    assert found["client"] == next(one for one in BUILT_IN if one.name == "client")


def test_a_table_keeps_what_it_does_not_say_of_a_subject() -> None:
    found = read("[profiles.web]\nbase = 'server'\nsubject.O = 'Example'")["web"]
    assert found.rule(Attribute.CN).word is SubjectWord.FROM_NAMES
    assert found.rule(Attribute.O).value == "Example"


def test_a_short_lived_profile_says_nothing_of_revocation() -> None:
    found = read("[profiles.job]\nbase = 'client'\nshort_lived = true\nvalidity = { default = '1h', max = '1d' }")[
        "job"
    ]
    assert (found.short_lived, found.crl, found.ocsp) == (True, False, False)


def test_a_ca_below_is_limited() -> None:
    table = "[profiles.intermediate]\nprincipals = ['*']\nca = { path_length = 1, excluded = ['ip:10.0.0.0/8'] }"
    found = read(table)["intermediate"]
    assert found.ca == CaRules(1, (), ("ip:10.0.0.0/8",))


def test_nobody_may_make_cas_or_responders_until_it_is_said_who() -> None:
    assert {one.name for one in BUILT_IN if not one.principals} == {"intermediate", "ocsp-responder", "code-signing"}


@pytest.mark.parametrize(
    ("duration", "seconds"), [("90d", 90 * 86_400), ("12h", 43_200), ("30m", 1800), ("1y", 365 * 86_400), ("900s", 900)]
)
def test_durations(duration: str, seconds: int) -> None:
    found = read(f"[profiles.server]\nvalidity = {{ default = '{duration}', backdate = '0s' }}")
    assert found["server"].validity.default == seconds


WRONG = {
    "unknown key": ("validty = '1d'", "unknown key 'profiles.x.validty' (did you mean 'validity'?)"),
    "unknown key of a table": ("names.dsn = []", "unknown key 'profiles.x.names.dsn' (did you mean 'dns'?)"),
    "copy is called so": ("copi = []", "did you mean 'copy'?"),
    "unknown key rule": ("keys = ['ec-p265']", "did you mean 'ec-p256'?"),
    "unknown usage": ("usages = ['digitalSignatur']", "did you mean 'digitalSignature'?"),
    "unknown extended usage": ("extended_usages = ['serverauth']", "did you mean 'serverAuth'?"),
    "unknown attribute": ("subject = { SN = 'x' }", "'SN' is none of C, ST"),
    "unknown word": ("unknown_extensions = 'refuze'", "did you mean 'refuse'?"),
    "no OID": ("policies = ['1.2.x']", "'1.2.x' is no OID"),
    "no duration": ("validity.default = '3 days'", "is no duration"),
    "a number for a duration": ("validity.default = 90", "is no duration"),
    "a pattern": ("names.dns = ['a*.example.org']", "names.dns"),
    "a network": ("names.ip = ['10.0.0.1/8']", "host bits"),
    "a URI": ("names.uri = ['example.org/**']", "no pattern for URIs"),
    "truth in words": ("crl = 'yes'", "crl"),
    "a subtree": ("base = 'intermediate'\nca.permitted = ['example.org']", "no subtree"),
    "a path length": ("base = 'intermediate'\nca.path_length = -1", "path_length"),
    "no base": ("base = ''\ncrl = false", "profiles.x.base"),
    "no such base": ("base = 'sever'", "did you mean 'server'?"),
    "itself": ("base = 'x'", "leads back to itself"),
    # contradictions
    "no keys": ("keys = []", "keys: there is none"),
    "no usages": ("usages = []", "usages: there is none"),
    "good for anything": ("extended_usages = []", "good for anything"),
    "any usage": ("extended_usages = ['2.5.29.37.0']", "anyExtendedKeyUsage"),
    "twice": ("extended_usages = ['serverAuth', '1.3.6.1.5.5.7.3.1']", "twice"),
    "OCSP and more": ("extended_usages = ['serverAuth', 'OCSPSigning']", "stands alone"),
    "encipherment by EC": ("keys = ['ec-p256']\nusages = ['digitalSignature', 'keyEncipherment']", "keys of rsa"),
    "agreement by RSA": ("keys = ['rsa-2048']\nusages = ['digitalSignature', 'keyAgreement']", "keys of ec"),
    "nothing for EC": ("usages = ['keyEncipherment']", "none that a key of ec can have"),
    "keyCertSign without a CA": ("usages = ['digitalSignature', 'keyCertSign']", "there is no `ca`"),
    "cRLSign without a CA": ("usages = ['digitalSignature', 'cRLSign']", "there is no `ca`"),
    "a CA that serves": ("ca.path_length = 0", "serverAuth is for others than CAs"),
    "a path without keyCertSign": (
        "base = 'intermediate'\nusages = ['cRLSign']",
        "path_length wants the usage keyCertSign",
    ),
    "a CA with names": ("base = 'intermediate'\nnames.dns = ['example.org']", "no other names"),
    "a short-lived CA": ("base = 'intermediate'\nshort_lived = true", "must be revocable"),
    "a nameless CA": ("base = 'intermediate'\nsubject.CN = 'optional'", "a CA has a name"),
    "another from the names": ("subject.O = 'from-names'", "only CN"),
    "a long value": (f"subject.O = '{'x' * 65}'", "1 to 64 characters"),
    "an unprintable value": ('subject.O = "a\\u0000b"', "printable"),
    "a long country": ("subject.C = 'Germany'", "two letters"),
    "of nobody": ("names.required = false", "could be of nobody"),
    "names.max": ("names.max = 0", "names.max"),
    "wildcards of nothing": ("names.wildcards = true", "names.dns has no pattern"),
    "longer than the longest": ("validity = { default = '91d', max = '90d' }", "longer than validity.max"),
    "for ever": ("validity.max = '101y'", "at most 100y"),
    "all in the past": ("validity = { default = '10m', backdate = '10m' }", "at most half"),
    "short-lived for long": ("short_lived = true", "at most 30d"),
    "short-lived with a CRL": (
        "short_lived = true\ncrl = true\nvalidity = { default = '1d', max = '1d' }",
        "nothing about",
    ),
    "stapled without OCSP": ("must_staple = true\nocsp = false", "must_staple"),
    "a client that staples": ("base = 'client'\nmust_staple = true", "must_staple"),
    "nocheck for a server": ("ocsp_no_check = true\ncrl = false\nocsp = false", "OCSPSigning"),
    "nocheck and a CRL": ("base = 'ocsp-responder'\ncrl = true", "nobody asks"),
    "a copy of basicConstraints": ("copy = ['2.5.29.19']", "for the CA to decide"),
    "a copy of the names": ("copy = ['2.5.29.17']", "for the CA to decide"),
    "a copy of the poison": ("copy = ['1.3.6.1.4.1.11129.2.4.3']", "for the CA to decide"),
    "a copy of must-staple": ("must_staple = true\ncopy = ['1.3.6.1.5.5.7.1.24']", "must_staple sets"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said(name: str) -> None:
    said, words = WRONG[name]
    text = "[profiles.x]\n" + said + ("" if "base = " in said else "\nbase = 'server'\n")
    assert words in problems(text)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    said = problems("""
        [profiles.a]
        base = "server"
        keys = ["rsa"]
        [profiles.b]
        base = "server"
        must_staple = true
        ocsp = false
        [profiles.c]
        base = "nowhere"
        [profiles."C 3"]
        base = "server"
    """)
    for part in ("profiles.a.keys.1", "profiles.b.must_staple", "profiles.c.base", "profiles.C 3"):
        assert part in said


def test_profiles_stand_on_each_other_in_any_order_but_in_no_circle() -> None:
    found = read("[profiles.c]\nbase='b'\n[profiles.b]\nbase='a'\ncrl=false\n[profiles.a]\nbase='server'\nocsp=false")
    assert (found["c"].crl, found["c"].ocsp) == (False, False)
    assert "leads back to itself" in problems("[profiles.a]\nbase='b'\n[profiles.b]\nbase='c'\n[profiles.c]\nbase='a'")


def test_a_table_that_is_none_is_refused() -> None:
    assert "profiles.a" in problems("[profiles]\na = 1")

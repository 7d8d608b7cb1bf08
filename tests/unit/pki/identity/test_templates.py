"""Names out of claims: hostile values fill their place and never leave it."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from hsmsign.model.errors import IdentityTokenError
from hsmsign.pki.identity import claims as paths
from hsmsign.pki.identity import templates
from hsmsign.pki.identity.issuers import IssuerRules, Kind, NameTemplates

FIELDS = (("v", "v"), ("w", "deep.w"), ("dotted", '"kubernetes.io".pod.name'))


def made(kind: str, template: str, value: Any, **more: Any) -> str:
    """The name that comes out; else `-` and the check that failed."""
    chosen: dict[str, Any] = {kind: template if kind == "common_name" else (template,)}
    names = NameTemplates(**chosen)
    rules = IssuerRules("p", Kind.OIDC, "https://p", "a", "https://p/jwks", claims=FIELDS, names=names)
    try:
        found, common_name = templates.render(rules, {"v": value, **more})
    except IdentityTokenError as caught:
        error = caught
    else:
        return common_name or str(found[0].value)
    assert error.metadata["issuer"] == "p"
    assert len(error.message) < 600
    assert error.message.isprintable()
    return f"-{error.metadata['check']}"


KELVIN = "\u212a"

DNS = {
    "web-1": "web-1.example.org",
    "WEB-1": "web-1.example.org",
    7: "7.example.org",
    "a" * 63: f"{'a' * 63}.example.org",
    "a" * 64: "-names",
    "a.b": "-names",
    "": "-claims",
    "-a": "-names",
    "a-": "-names",
    "*": "-names",
    "a_b": "-names",
    "a\n": "-claims",
    "a\0.evil": "-claims",
    "{v}": "-names",
    "a b": "-names",
    "a/b": "-names",
    "b\u00fccher": "-names",
    KELVIN: "-names",
    "\u0661": "-names",
    "a\u200bb": "-claims",
    "a\ud800": "-claims",
    "a" * 10_000: "-claims",
    True: "-claims",
    1.5: "-claims",
    None: "-claims",
    ("a", "b"): "-claims",
    10**100: "-names",
    -1: "-names",
}


@pytest.mark.parametrize("value", DNS, ids=lambda value: ascii(value)[:20])
def test_a_field_of_a_host_name_is_part_of_one_label(value: Any) -> None:
    assert made("dns", "{v}.example.org", list(value) if isinstance(value, tuple) else value) == DNS[value]


def test_labels_of_a_host_name_are_checked_as_a_whole() -> None:
    assert made("dns", "{v}-{w}.Example.org", "web", deep={"w": "1"}) == "web-1.example.org"
    assert made("dns", "{v}-{w}.example.org", "a" * 40, deep={"w": "b" * 40}) == "-names"
    assert made("dns", "{v}", "web") == "web"
    assert made("dns", "10.0.0.{v}", "1") == "-names"
    assert made("dns", "{v}." + "a." * 125 + "org", "abc") == "-names"


URI = {
    "web-1": "spiffe://example.org/web-1",
    "a/b": "-names",
    "a b": "-names",
    "..": "-names",
    ".": "-names",
    "...": "spiffe://example.org/...",
    "a:b": "-names",
    "b\u00fccher": "-names",
}


@pytest.mark.parametrize("value", URI)
def test_a_field_of_a_spiffe_id_is_one_segment(value: str) -> None:
    assert made("uri", "spiffe://example.org/{v}", value) == URI[value]


QUOTED = {
    "a/b": "https://example.org/a%2Fb/x",
    "a b": "https://example.org/a%20b/x",
    "a?b#c": "https://example.org/a%3Fb%23c/x",
    "a%2e": "https://example.org/a%252e/x",
    "@evil.org": "https://example.org/%40evil.org/x",
    "b\u00fc": "https://example.org/b%C3%BC/x",
    "{w}": "https://example.org/%7Bw%7D/x",
    "..": "-names",
    "a\nb": "-claims",
    "a\0": "-claims",
    "a" * 10_000: "-claims",
}


@pytest.mark.parametrize("value", QUOTED, ids=lambda value: ascii(value)[:20])
def test_a_field_of_a_uri_is_percent_encoded(value: str) -> None:
    assert made("uri", "https://example.org/{v}/x", value) == QUOTED[value]


def test_two_fields_do_not_make_a_step_upwards() -> None:
    assert made("uri", "https://example.org/a/{v}{w}/b", ".", deep={"w": "."}) == "-names"


def test_a_field_does_not_leave_the_host_of_a_uri() -> None:
    assert made("uri", "https://{v}.example.org/", "web") == "https://web.example.org/"
    for value in ("evil.org/", "evil.org:80", "a@b", "a_b", "-", "[::1]"):
        assert made("uri", "https://{v}.example.org/", value) == "-names"


WHOLE = {
    "spiffe://example.org/ns/a/sa/b": True,
    "spiffe://example.org": True,
    "https://example.org:8443/a?b=c": True,
    "https://10.0.0.1/a": True,
    "https://[2001:db8::1]/a": True,
    "https://300.0.0.1/a": False,
    "https://[1:2]/a": False,
    "spiffe://Example.org/a": False,
    "SPIFFE://example.org/a": False,
    "spiffe://example.org/": False,
    "spiffe://example.org//a": False,
    "spiffe://example.org/../a": False,
    "spiffe://example.org:80/a": False,
    "spiffe://example.org/a%20b": False,
    "spiffe://example.org/a?b": False,
    "spiffe://user@example.org/a": False,
    "spiffe:///a": False,
    "https://a/%2e%2e/b": False,
    "https://a/b#c": False,
    "https://a/%zz": False,
    "https://a/b c": False,
    "https://a/{b}": False,
    "https://a/b\u00fc": False,
    "https://a\\@b/": False,
    "system:serviceaccount:a:b": False,
    "urn:a:b": False,
    "//a/b": False,
    "someone": False,
    "https://" + "a" * 64: False,
    "https://example.org/" + "a/" * 500: True,
}


@pytest.mark.parametrize("value", WHOLE, ids=lambda value: ascii(value)[:40])
def test_a_template_that_is_one_field_takes_a_whole_uri_only(value: str) -> None:
    assert made("uri", "{v}", value) == (value if WHOLE[value] else "-names")


MAIL = {
    ("{v}@Example.org", "a.b+c"): "a.b+c@example.org",
    ("{v}@example.org", "a@b"): "-names",
    ("{v}@example.org", '"a"'): "-names",
    ("{v}@example.org", "a..b"): "-names",
    ("{v}@example.org", "a/b"): "-names",
    ("{v}@example.org", ".a"): "-names",
    ("{v}@example.org", "a" * 65): "-names",
    ("{v}@example.org", "b\u00fc"): "-names",
    ("{v}@example.org", "a\r\nb"): "-claims",
    ("x@{v}.example.org", "web"): "x@web.example.org",
    ("x@{v}.example.org", "a.b"): "-names",
    ("x@{v}.example.org", "a_b"): "-names",
    ("{v}", "a.b@Example.ORG"): "a.b@example.org",
    ("{v}", "a@b@c"): "-names",
    ("{v}", "a"): "-names",
    ("{v}", "a@"): "-names",
    ("{v}", "@a"): "-names",
}


@pytest.mark.parametrize("case", MAIL, ids=ascii)
def test_a_field_of_a_mail_address_is_its_local_part_or_one_label(case: tuple[str, str]) -> None:
    assert made("email", *case) == MAIL[case]


@pytest.mark.parametrize(
    ("value", "good"),
    [
        ("10.0.0.1", True), ("2001:db8::1", True), ("fe80::1%eth0", False), ("10.0.0.0/8", False), ("010.0.0.1", False),
        ("10.1", False), ("web", False), ("\u0661.0.0.1", False), (167772161, False),
    ],
)  # fmt: skip
def test_an_address_has_to_be_one(value: Any, good: bool) -> None:
    assert made("ip", "{v}", value) == (str(ip_address(value)) if good else "-names")


@pytest.mark.parametrize(
    ("value", "good"),
    [("web 1", "web 1"), ("b\u00fc", "b\u00fc"), ("a" * 64, "a" * 64), ("a" * 65, "-names"), ("a ", "-names"),
     ("\u202ea", "-claims"), ("a\nb", "-claims"), (7, "7")],
)  # fmt: skip
def test_a_common_name_is_short_printable_text(value: Any, good: str) -> None:
    assert made("common_name", "{v}", value) == good


def test_a_missing_claim_is_named() -> None:
    names = NameTemplates(dns=("{dotted}.example.org",))
    rules = IssuerRules("p", Kind.OIDC, "https://p", "a", "https://p/jwks", claims=FIELDS, names=names)
    missing: list[dict[str, Any]] = [
        {},
        {"kubernetes.io": {}},
        {"kubernetes.io": "x"},
        {"kubernetes": {"io": {"pod": {"name": "a"}}}},
    ]
    for claims in missing:
        with pytest.raises(IdentityTokenError, match=r'no claim "kubernetes.io".pod.name, which \{dotted\}'):
            templates.render(rules, claims)
    assert templates.render(rules, {"kubernetes.io": {"pod": {"name": "a"}}})[0] == (x509.DNSName("a.example.org"),)


def test_a_name_comes_once() -> None:
    names = NameTemplates(dns=("{v}.example.org", "{w}.example.org"))
    rules = IssuerRules("p", Kind.OIDC, "https://p", "a", "https://p/jwks", claims=FIELDS, names=names)
    assert len(templates.render(rules, {"v": "a", "deep": {"w": "A"}})[0]) == 1


@pytest.mark.parametrize(
    "template",
    ["", "{", "}", "{}", "{0}", "{v.x}", "{v[0]}", "{v!r}", "{v:>9}", "{v:{w}}", "{{v}}", "a{{", "{V}", "{v }", "{v\0}",
     "{__class__}"],
)  # fmt: skip
def test_a_template_has_fields_and_no_more(template: str) -> None:
    with pytest.raises(ValueError):
        templates.parse(template)


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("a", ("a",)), ("a.b", ("a", "b")), ('"a.b".c', ("a.b", "c")), ('a."https://b.c/d"', ("a", "https://b.c/d")),
        ("", None), (".", None), ("a.", None), ("a..b", None), ('"a', None), ('a"b"', None), ('""', None),
    ],
)  # fmt: skip
def test_a_path_is_written_in_one_way(path: str, names: tuple[str, ...] | None) -> None:
    if names is None:
        with pytest.raises(ValueError, match="no path"):
            paths.split(path)
    else:
        assert paths.split(path) == names
        assert paths.join(names) == path


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.text("./:@%-[]{}*a1 \\\0", max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(ANYTHING, ANYTHING)
def test_whatever_claims_hold_a_name_stays_what_its_template_says(value: Any, other: Any) -> None:
    def of(kind: str, template: str) -> str:
        found = made(kind, template, value, deep={"w": other})
        return "" if found in ("-names", "-claims") else found

    if name := of("dns", "{v}.{w}.example.org"):
        assert name.endswith(".example.org")
        assert name.count(".") == 3
    if name := of("uri", "https://example.org/{v}/{w}"):
        assert name.startswith("https://example.org/")
        assert name.count("/") == 4
        assert name.isascii()
    if name := of("uri", "{v}"):
        assert "://" in name
    if name := of("email", "{v}@{w}.example.org"):
        assert name.count("@") == 1
        assert name.endswith(".example.org")
    if name := of("ip", "{v}"):
        ip_address(name)
    if name := of("common_name", "{v} {w}"):
        assert len(name) <= 64

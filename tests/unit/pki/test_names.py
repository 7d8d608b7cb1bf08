"""Names of hosts, addresses, URIs and mailboxes: one spelling each, and patterns that fit what they say."""

from __future__ import annotations

import ipaddress

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from hsmsign.model.errors import CsrError
from hsmsign.pki import names, patterns
from hsmsign.pki.profiles import NameRules

DNS, URI, MAIL = x509.DNSName, x509.UniformResourceIdentifier, x509.RFC822Name


def ip(text: str) -> x509.IPAddress:
    return x509.IPAddress(ipaddress.ip_address(text))


def mail(text: str) -> x509.RFC822Name:
    """As a parser makes it, which checks nothing."""
    return MAIL._init_without_validation(text)


@pytest.mark.parametrize(
    ("given_name", "text"),
    [
        (DNS("Example.ORG"), "dns:example.org"),
        (DNS("localhost"), "dns:localhost"),
        (DNS("*.example.org"), "dns:*.example.org"),
        (DNS("xn--bcher-kva.example"), "dns:xn--bcher-kva.example"),
        (DNS("a-1.2b.example"), "dns:a-1.2b.example"),
        (ip("10.0.0.1"), "ip:10.0.0.1"),
        (ip("2001:DB8::1"), "ip:2001:db8::1"),
        (URI("HTTPS://Example.org:8443/A/b?C=d"), "uri:https://example.org:8443/A/b?C=d"),
        (URI("https://[2001:db8::1]:443/"), "uri:https://[2001:db8::1]:443/"),
        (URI("https://10.0.0.1"), "uri:https://10.0.0.1"),
        (URI("https://example.org/%C3%A4"), "uri:https://example.org/%C3%A4"),
        (URI("spiffe://example.org/ns/a/sa/B"), "uri:spiffe://example.org/ns/a/sa/B"),
        (URI("spiffe://td_1.example"), "uri:spiffe://td_1.example"),
        (mail("Ann.B+tag@Example.org"), "email:Ann.B+tag@example.org"),
    ],
)
def test_a_name_has_one_spelling(given_name: x509.GeneralName, text: str) -> None:
    found = names.check(given_name)
    assert names.text(found) == text
    assert names.check(found) == found


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "example.org.",
        ".example.org",
        "a..example.org",
        "-a.example.org",
        "a-.example.org",
        "a_b.example.org",
        "a b.example.org",
        "a/b",
        "a:443",
        "a" * 64 + ".org",
        ".".join(["a" * 49] * 6),
        "*",
        "*.",
        "*.*.example.org",
        "a.*.example.org",
        "a*.example.org",
        "*a.example.org",
        "**.example.org",
        "10.0.0.1",
        "1.2.3",
        "12345",
        "a.0x7f",
        "2130706433",
        "0x7f000001",
        "bücher.example",
        "\N{KELVIN SIGN}.example",
        "example\N{FULLWIDTH FULL STOP}org",
        "xn--a.example",
        "xn--.example",
        "xn--bcher-kvaa-.example",
        "xn--80ak6aa92e-.com",
        "xn--Bcher-KVA-zzzzzzzz.example",
        "xn--ls8h.example",  # a pile of poo: no letter of IDNA2008
        "ab--cd.example",
        "a\0.example.org",
        "a\n.example.org",
    ],
)
def test_what_is_no_hosts_name(host: str) -> None:
    with pytest.raises(CsrError):
        names.check(DNS._init_without_validation(host))


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "example.org",
        "//example.org/a",
        "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66",
        "mailto:a@example.org",
        "https://",
        "https:///path",
        "https://user@example.org/",
        "https://user:pass@example.org/",
        "https://example.org/#here",
        "https://example.org:0/",
        "https://example.org:65536/",
        "https://example.org:/",
        "https://example.org:a/",
        "https://*.example.org/",
        "https://exa mple.org/",
        "https://example.org/a b",
        "https://example.org/a\\b",
        "https://example.org/../b",
        "https://example.org/a/./b",
        "https://example.org/%2e%2E/b",
        "https://example.org/%2E%2E/b",
        "https://example.org/a%2Fb",
        "https://example.org/a%00b",
        "https://example.org/a%2f",
        "https://example.org/%41",
        "https://example.org/%",
        "https://example.org/ä",
        "https://[::1/",
        "https://[::1]x/",
        "https://[fe80::1%25eth0]/",
        "https://[v1.a]/",
        "https://010.0.0.1/",
        "https://2130706433/",
        "1https://example.org/",
        "https://example.org/" + "a" * 2048,
        "SPIFFE://example.org/a",
        "spiffe://Example.org/a",
        "spiffe://example.org/a/",
        "spiffe://example.org/",
        "spiffe://example.org//a",
        "spiffe://example.org/a/../b",
        "spiffe://example.org/./b",
        "spiffe://example.org/%61",
        "spiffe://example.org:80/a",
        "spiffe://example.org/a?b",
        "spiffe://example.org?b",
        "spiffe:///a",
        "spiffe://exa@mple.org/a",
        "spiffe://" + "a" * 256 + "/a",
    ],
)
def test_what_is_no_uri(uri: str) -> None:
    with pytest.raises(CsrError):
        names.check(URI._init_without_validation(uri))


@pytest.mark.parametrize("rest", ["/", "/#a", "/ü", "?a", "#a", ""])
def test_a_password_in_a_uri_is_not_shown(rest: str) -> None:
    with pytest.raises(CsrError, match="user or password") as found:
        names.check(URI._init_without_validation(f"https://ann:hunter2@example.org{rest}"))
    assert "hunter2" not in found.value.message


def test_a_refusal_says_what_is_wrong() -> None:
    with pytest.raises(CsrError, match="fragment"):
        names.check(URI("https://example.org/#here"))
    with pytest.raises(CsrError, match="A-label"):
        names.check(DNS._init_without_validation("bücher.example"))


@pytest.mark.parametrize(
    "mailbox",
    [
        "",
        "@example.org",
        "a@",
        "a",
        '"a b"@example.org',
        '"a"@example.org',
        "a b@example.org",
        "a..b@example.org",
        ".a@example.org",
        "a.@example.org",
        "a@b@example.org",
        "a@[10.0.0.1]",
        "a@10.0.0.1",
        "a@*.example.org",
        "a(comment)@example.org",
        "Ann <a@example.org>",
        "ä@example.org",
        "a@bücher.example",
        "a@example.org\0",
        "a" * 65 + "@example.org",
        "a@" + "b" * 63 + "." + "c" * 63 + "." + "d" * 63 + "." + "e" * 61,
    ],
)
def test_what_is_no_mailbox(mailbox: str) -> None:
    with pytest.raises(CsrError):
        names.check(mail(mailbox))


@pytest.mark.parametrize(
    "other",
    [
        x509.IPAddress(ipaddress.ip_network("10.0.0.0/8")),
        x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x05\x00"),
        x509.DirectoryName(x509.Name([])),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
    ],
)
def test_other_kinds_of_names_are_not_certified(other: x509.GeneralName) -> None:
    with pytest.raises(CsrError):
        names.check(other)


@pytest.mark.parametrize(
    "twice",
    [
        (DNS("example.org"), DNS("EXAMPLE.org")),
        (ip("::1"), ip("0:0:0:0:0:0:0:1")),
        (mail("A@example.org"), mail("a@example.org")),
        (URI("https://example.org/a"), URI("https://example.org/A")),
    ],
)
def test_a_name_is_there_once_whatever_its_case(twice: tuple[x509.GeneralName, ...]) -> None:
    with pytest.raises(CsrError, match="twice"):
        names.check_all(twice)


def test_there_are_a_hundred_names_at_most() -> None:
    hundred = [DNS(f"a{number}.example.org") for number in range(100)]
    assert len(names.check_all(hundred)) == 100
    with pytest.raises(CsrError, match="101"):
        names.check_all([*hundred, DNS("b.example.org")])


def test_a_spiffe_id_is_the_only_uri() -> None:
    one, other = URI("spiffe://example.org/a"), URI("https://example.org/a")
    assert names.check_all([one, DNS("a.example.org")])
    with pytest.raises(CsrError, match="SPIFFE"):
        names.check_all([one, other])


# --- patterns


@pytest.mark.parametrize(
    ("pattern", "fitting", "other"),
    [
        ("example.org", ["example.org"], ["a.example.org", "xexample.org", "org"]),
        ("*.example.org", ["a.example.org", "*.example.org"], ["example.org", "b.a.example.org", "xexample.org"]),
        ("**.example.org", ["a.example.org", "b.a.example.org", "*.a.example.org"], ["example.org", "xexample.org"]),
        ("*.Example.org", ["a.example.org"], []),
        ("*.internal", ["db.internal"], ["a.db.internal"]),
    ],
)
def test_a_pattern_for_hosts(pattern: str, fitting: list[str], other: list[str]) -> None:
    rules = NameRules(dns=(patterns.check("dns", pattern),))
    assert all(patterns.matches(DNS(host), rules) for host in fitting)
    assert not any(patterns.matches(DNS(host), rules) for host in other)


def test_a_pattern_for_addresses_is_a_network() -> None:
    rules = NameRules(ip=("10.0.0.0/8", "2001:db8::/32", "192.0.2.1"))
    assert all(patterns.matches(ip(one), rules) for one in ("10.255.0.1", "2001:db8::5", "192.0.2.1"))
    assert not any(
        patterns.matches(ip(one), rules) for one in ("11.0.0.1", "2001:db9::", "192.0.2.2", "::ffff:10.0.0.1")
    )


@pytest.mark.parametrize(
    ("pattern", "fitting", "other"),
    [
        ("ann@example.org", ["ann@example.org"], ["Ann@example.org", "bob@example.org"]),
        ("*@example.org", ["ann@example.org"], ["ann@a.example.org", "ann@xexample.org"]),
        ("*@*.example.org", ["ann@a.example.org"], ["ann@example.org"]),
    ],
)
def test_a_pattern_for_mailboxes(pattern: str, fitting: list[str], other: list[str]) -> None:
    rules = NameRules(email=(patterns.check("email", pattern),))
    assert all(patterns.matches(mail(one), rules) for one in fitting)
    assert not any(patterns.matches(mail(one), rules) for one in other)


S = "spiffe://example.org"


@pytest.mark.parametrize(
    ("pattern", "fitting", "other"),
    [
        (f"{S}/ns/*/sa/*", [f"{S}/ns/a/sa/b"], [f"{S}/ns/a/sa", f"{S}/ns/a/sa/b/c", f"{S}/ns/a/b/sa/c", f"{S}/ns"]),
        (f"{S}/ns/**", [f"{S}/ns/a", f"{S}/ns/a/b"], [f"{S}/ns", f"{S}/nsx/a", f"{S}.evil/ns/a"]),
        (f"{S}/**", [f"{S}/a"], [S, "spiffe://other.org/a", "https://example.org/a"]),
        (S, [S], [f"{S}/a"]),
        ("https://example.org/a", ["https://example.org/a"], ["https://example.org/a/", "https://example.org/a?b"]),
        (
            "https://example.org/*?q=1",
            ["https://example.org/a?q=1"],
            ["https://example.org/a", "https://example.org/a?q=2"],
        ),
        ("https://*.example.org/", ["https://a.example.org/"], ["https://example.org/", "https://a.example.org.evil/"]),
        (
            "HTTPS://example.org:8443/*",
            ["https://example.org:8443/a"],
            ["https://example.org/a", "https://example.org:8443/"],
        ),
    ],
)
def test_a_pattern_for_uris(pattern: str, fitting: list[str], other: list[str]) -> None:
    rules = NameRules(uri=(patterns.check("uri", pattern),))
    assert all(patterns.matches(URI(uri), rules) for uri in fitting)
    assert [uri for uri in other if patterns.matches(URI(uri), rules)] == []


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        ("dns", "*"),
        ("dns", "**"),
        ("dns", "*.*.example.org"),
        ("dns", "**.*.example.org"),
        ("dns", "*.**.example.org"),
        ("dns", "a*.example.org"),
        ("dns", "bücher.example"),
        ("dns", "10.0.0.1"),
        ("ip", "10.0.0.1/8"),
        ("ip", "10.0.0.*"),
        ("email", "example.org"),
        ("email", "*@"),
        ("email", "a*@example.org"),
        ("uri", "https://example.org/a*"),
        ("uri", "https://example.org/**/a"),
        ("uri", "example.org/**"),
        ("uri", "https://*/a"),
        ("uri", "spiffe://*.example.org/a"),
        ("uri", "https://u@example.org/"),
    ],
)
def test_what_is_no_pattern(kind: str, pattern: str) -> None:
    with pytest.raises(ValueError):
        patterns.check(kind, pattern)


# --- anything else

_PIECES = st.sampled_from(
    (
        *("a", "A", ".", "..", "-", "*", "*.", "xn--", "bcher-kva", "@", "/", "//", "://", "spiffe", "https", "%2F"),
        *("%", "?", "#", "[", "]", ":", "443", "10.0.0.1", "::1", "example", "org", " ", "\0", "ü", "\u212a", '"', "_"),
    )
)


def check_anything(text: str) -> None:
    """For fuzzing: whatever the text, a name is refused with CsrError, or is in a form that stays."""
    for kind in (DNS, URI, MAIL):
        try:
            found = names.check(kind._init_without_validation(text))
        except CsrError:
            continue
        assert names.check(found) == found
        assert found.value.isascii()
        assert found.value.isprintable()


@settings(max_examples=500, deadline=None)
@given(st.lists(_PIECES, max_size=14).map("".join) | st.text(max_size=80))
def test_any_text_is_a_name_in_its_spelling_or_refused(text: str) -> None:
    check_anything(text)

"""Names of servers: which are names, and which pattern is for which."""

from __future__ import annotations

import pytest

from hsmsign.model.errors import ConfigurationError
from hsmsign.tls.hosts import Table, asked, covers, pattern


@pytest.fixture
def table() -> Table[str]:
    return Table({name: name for name in ("shop.example.org", "*.shop.example.org", "*.example.org", "example.com")})


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (b"shop.example.org", "shop.example.org"),
        (b"SHOP.Example.ORG", "shop.example.org"),
        (b"shop.example.org.", "shop.example.org"),
        (b"shop.example.org..", None),
        (b"web.example.org", "*.example.org"),
        (b"xn--bcher-kva.example.org", "*.example.org"),
        (b"a.shop.example.org", "*.shop.example.org"),
        (b"a.b.example.org", None),
        (b"example.org", None),
        (b".example.org", None),
        (b"*.example.org", None),
        (b"example.com", "example.com"),
        (b"www.example.com", None),
        (b"", None),
        (b".", None),
        (b"b\xc3\xbccher.example.org", None),
        (b"a b.example.org", None),
        (b"web.example.org\x00", None),
        (b"a" * 64 + b".example.org", None),
        (b"127.0.0.1", None),
    ],
)
def test_the_name_itself_comes_before_a_wildcard_for_its_first_label(
    table: Table[str], name: bytes, found: str | None
) -> None:
    assert table.find(asked(name)) == found


@pytest.mark.parametrize(
    "text",
    ["", "*", "*.", "w*.example.org", "*w.example.org", "www.*.org", "*.*.org", "a..b", "-a.org", "bücher.example",
     "127.0.0.1", "::1", "[::1]", "a b", "http://a.org", "a.org:443", "a" * 64, "a." * 127 + "org"],
)  # fmt: skip
def test_what_no_client_asks_for_is_no_pattern(text: str) -> None:
    with pytest.raises(ConfigurationError):
        pattern(text)


def test_patterns_are_compared_in_lower_case() -> None:
    assert pattern("*.Example.ORG.") == "*.example.org"
    assert pattern("localhost") == "localhost"


def test_a_certificate_covers_what_a_client_would_believe() -> None:
    names = ["Example.org", "*.shop.example.org"]
    assert all(covers(names, one) for one in ("example.org", "a.shop.example.org", "*.shop.example.org"))
    assert not any(covers(names, one) for one in ("*.example.org", "shop.example.org", "b.a.shop.example.org"))

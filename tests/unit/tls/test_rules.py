"""Who may do what: by rules, and of paths that are clear."""

from __future__ import annotations

import pytest

from hsmsign.tls.reading import parse
from hsmsign.tls.rules import Call, Request
from tests.support.tls_site import GREEN, ORANGE, RULES, peer

KEY = f"sha256:{'ab' * 32}"


def allows(name: str, action: Request | Call, text: str = RULES, key: str = "sha256:00") -> bool:
    return parse(text, "rights.toml").decide(peer(name, key), action).allowed


def why(name: str, action: Request | Call, text: str = RULES) -> str:
    decision = parse(text, "rights.toml").decide(peer(name), action)
    assert not decision.allowed
    assert decision.rule is None
    return decision.why


def fits(pattern: str, path: str) -> bool:
    return allows(GREEN, Request("GET", path), f'[[rule]]\npeers = ["*"]\npaths = ["{pattern}"]')


def test_green_may_write_and_orange_may_read() -> None:
    assert allows(GREEN, Request("POST", "/articles/1"))
    assert allows(ORANGE, Request("GET", "/articles/1"))
    assert why(ORANGE, Request("POST", "/articles/1")) == "no rule allows it"
    assert why(GREEN, Request("DELETE", "/articles/1")) == "no rule allows it"
    assert why(GREEN, Request("GET", "/prices")) == "no rule allows it"


def test_whom_no_rule_is_about_may_nothing() -> None:
    assert why("spiffe://example.com/green", Request("GET", "/articles/1")) == "no rule is about this peer"
    assert why("dns:green", Call("/shop.v1.Shop/Read")) == "no rule is about this peer"


def test_a_decision_names_the_rule_and_its_line() -> None:
    decision = parse(RULES, "etc/rights.toml").decide(peer(ORANGE), Request("GET", "/x"))
    assert decision.rule is not None
    assert (decision.rule.place, decision.why) == ("rights.toml:7", "rights.toml:7 allows it")


def test_calls_are_allowed_by_rules_about_calls_only() -> None:
    assert allows(ORANGE, Call("/shop.v1.Shop/ReadAll"))
    assert why(ORANGE, Call("/shop.v1.Shop/Write")) == "no rule allows it"
    assert why(ORANGE, Call("/other.v1.Shop/Read")) == "no rule allows it"
    assert not allows("spiffe://example.org/blue", Request("GET", "/shop.v1.Shop/Read"))
    everything = '[[rule]]\npeers = ["*"]\npaths = ["/**"]'
    assert not allows(GREEN, Call("/shop.v1.Shop/Read"), everything)


@pytest.mark.parametrize("name", ["shop.v1.Shop/Read", "/shop.v1.Shop/Read/More", "/shop.v1.Shop//Read", "/Read", ""])
def test_what_is_no_name_of_a_method_is_denied(name: str) -> None:
    assert why(GREEN, Call(name), '[[rule]]\npeers = ["*"]\ncalls = ["/**"]') == "no /package.Service/Method"


def test_a_rule_may_name_a_key_which_its_holder_is_known_by_whatever_its_name() -> None:
    text = f'[[rule]]\npeers = ["{KEY}"]\nmethods = ["GET"]'
    assert allows(GREEN, Request("GET", "/"), text, KEY)
    assert not allows(GREEN, Request("GET", "/"), text)


def test_a_star_is_any_text_in_a_part_and_two_are_all_that_follows() -> None:
    assert fits("/a/*/c", "/a/b/c")
    assert not fits("/a/*/c", "/a/b/b/c")
    assert fits("/a/v*.json", "/a/v1.json")
    assert not fits("/a/v*.json", "/a/v1/x.json")
    assert fits("/a/**", "/a/b/c")
    assert fits("/a/**", "/a/")
    assert not fits("/a/**", "/a")
    assert not fits("/a/**", "/ab")
    assert fits("/", "/")
    assert fits("/a.b", "/a.b")
    assert not fits("/a.b", "/axb")
    assert not fits("/a", "/A")


def test_a_path_with_a_line_break_fits_nothing_though_a_pattern_ends_before_it() -> None:
    assert not fits("/a", "/a\n")
    assert not fits("/**", "/a\nb")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("/articles//1", "an empty part"),
        ("//articles/1", "an empty part"),
        ("/articles/../prices", "'.' or '..'"),
        ("/articles/./1", "'.' or '..'"),
        ("/articles/..", "'.' or '..'"),
        ("/articles/%2e%2E/prices", "'.' or '..'"),
        ("/articles/..;x/prices", "'.' or '..'"),
        ("/articles/..%3bx/prices", "'.' or '..'"),
        ("/articles%2f1", "an encoded slash"),
        ("/articles/..%2Fprices", "'.' or '..'"),
        ("/articles/a%5cb", "a backslash"),
        ("/articles/..\\prices", "a backslash"),
        ("/articles/%252e%252e/prices", "encoded twice"),
        ("/articles/%252f", "encoded twice"),
        ("/articles/%00", "no text"),
        ("/articles/a%0d%0ab", "no text"),
        ("/articles/%ff", "no text"),
        ("/articles/%zz", "encodes nothing"),
        ("/articles/%", "encodes nothing"),
        ("articles/1", "does not begin"),
        ("https://host/articles/1", "does not begin"),
        ("*", "does not begin"),
        ("", "does not begin"),
        (f"/articles/{'a' * 8192}", "more than 8192"),
    ],
)
def test_a_path_that_may_mean_several_things_is_denied(target: str, words: str) -> None:
    assert words in why(GREEN, Request.sent("GET", target))
    assert words in why(GREEN, Request.sent("GET", target), '[[rule]]\npeers = ["*"]\npaths = ["/**"]')


@pytest.mark.parametrize(
    "target", ["/articles/50%25", "/articles/a%20b", "/articles/%C3%A4", "/articles/..a", "/articles/1?x=/../"]
)
def test_a_path_is_compared_decoded_without_its_query(target: str) -> None:
    assert allows(GREEN, Request.sent("GET", target))
    assert allows(GREEN, Request.sent("GET", "/art%69cles/1"))


def test_methods_are_compared_in_their_case() -> None:
    anything = '[[rule]]\npeers = ["*"]\npaths = ["/**"]'
    assert allows(GREEN, Request("PURGE", "/"), anything)
    for method in ("get", "Get", "", "GET ", "GET\n"):
        assert why(GREEN, Request(method, "/"), anything) == "no method of HTTP"


def test_a_websocket_wants_a_right_of_its_own_which_no_method_of_http_can_use() -> None:
    assert not allows(ORANGE, Request("WEBSOCKET", "/articles/1", None, upgrade=True))
    assert allows(GREEN, Request("WEBSOCKET", "/articles/1", None, upgrade=True))
    assert why(GREEN, Request("WEBSOCKET", "/articles/1")) == "no method of HTTP"
    assert why(GREEN, Request("GET", "/articles/1", None, upgrade=True)) == "no method of HTTP"


def test_every_rule_about_a_peer_says_why_it_does_not_hold() -> None:
    rules = parse(RULES, "rights.toml")
    said = [(rule.place, obstacle) for rule, obstacle in rules.explain(peer(GREEN), Request("GET", "/prices"))]
    assert said == [("rights.toml:2", "about other paths: /articles/**"), ("rights.toml:11", "about calls of gRPC")]
    said = [(rule.place, obstacle) for rule, obstacle in rules.explain(peer(ORANGE), Call("/shop.v1.Shop/Write"))]
    assert said == [
        ("rights.toml:7", "about requests of HTTP"),
        ("rights.toml:11", "about other calls: /shop.v1.Shop/Read*"),
    ]


def test_more_peers_than_are_remembered_are_told_apart() -> None:
    rules = parse('[[rule]]\npeers = ["dns:*7"]\nmethods = ["GET"]', "r")
    for _ in range(2):
        for number in range(5000):
            assert rules.decide(peer(f"dns:{number}"), Request("GET", "/")).allowed == (number % 10 == 7)

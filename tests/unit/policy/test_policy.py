"""Who may do what: rules, and how they are put together."""

from __future__ import annotations

import datetime as dt
from itertools import count

import pytest

from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.caller import Caller
from hsmsign.model.errors import PermissionDeniedError
from hsmsign.model.key_facts import KeyFacts
from hsmsign.model.purpose import PurposeKind
from hsmsign.policy import Action, Hours, Policy, Rule, RuleSet

WEB = Caller("spiffe://corp/web/1", ("sha256:ab",))
KEY = KeyFacts.of("web-1", {"env": "test", "team": "web"}, KeyAlgorithm.EC_P256)
_LINES = count(1)


def rule(*principals: str, deny: bool = False, actions: tuple[Action, ...] = (Action.SIGN,), **more) -> Rule:
    return Rule(f"p:{next(_LINES)}", not deny, principals, actions, **more)


def may(caller: Caller, action: Action, key: KeyFacts | None, *rules: Rule, at: str = "2026-11-24T12:00") -> bool:
    now = dt.datetime.fromisoformat(at).replace(tzinfo=dt.UTC).timestamp()
    return Policy(RuleSet("p", rules), clock=lambda: now).decide(caller, action, key).allowed


def test_what_no_rule_allows_is_denied() -> None:
    assert not may(WEB, Action.SIGN, KEY)
    assert not may(WEB, Action.READ, KEY, rule("*"))
    assert not may(WEB, Action.SIGN, KEY, rule("spiffe://corp/db/*"))


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("spiffe://corp/web/1", True),
        ("spiffe://corp/web/*", True),
        ("spiffe://corp/*", True),
        ("*", True),
        ("sha256:ab", True),
        ("spiffe://corp/web/", False),
        ("spiffe://corp/web/.", False),
        ("spiffe://corp/web/[0-9]", False),
        ("spiffe://corp/web/1*2", False),
        ("SPIFFE://corp/web/1", False),
        ("piffe://corp/web/1", False),
    ],
)
def test_a_pattern_is_about_the_whole_name_and_only_a_star_is_special(pattern: str, matches: bool) -> None:
    assert may(WEB, Action.SIGN, KEY, rule(pattern)) is matches


def test_a_rule_that_denies_wins_wherever_it_stands() -> None:
    allow, deny = rule("*"), rule("spiffe://corp/web/*", deny=True)
    assert not may(WEB, Action.SIGN, KEY, allow, deny)
    assert not may(WEB, Action.SIGN, KEY, deny, allow)
    assert may(Caller("unix:0"), Action.SIGN, KEY, deny, allow)


def test_conditions_hold_together() -> None:
    narrow = {"keys": ("web-*", "api"), "labels": (("env", "te*"),), "algorithms": (KeyAlgorithm.EC_P256,)}
    assert may(WEB, Action.SIGN, KEY, rule("*", **narrow))
    for other in (
        KeyFacts.of("db-1", {"env": "test"}, KeyAlgorithm.EC_P256),
        KeyFacts.of("web-1", {"env": "prod"}, KeyAlgorithm.EC_P256),
        KeyFacts.of("web-1", {}, KeyAlgorithm.EC_P256),
        KeyFacts.of("web-1", {"env": "test"}, KeyAlgorithm.RSA_2048),
        KeyFacts("web-1"),
    ):
        assert not may(WEB, Action.SIGN, other, rule("*", **narrow)), other


def test_signing_a_digest_wants_both_rights() -> None:
    assert not may(WEB, Action.SIGN_DIGEST, KEY, rule("*"))
    assert not may(WEB, Action.SIGN_DIGEST, KEY, rule("*", actions=(Action.SIGN_DIGEST,)))
    both = rule("*", actions=(Action.SIGN, Action.SIGN_DIGEST))
    assert may(WEB, Action.SIGN_DIGEST, KEY, both)
    assert not may(WEB, Action.SIGN_DIGEST, KEY, both, rule("*", deny=True))


def test_what_denies_an_algorithm_denies_a_key_whose_algorithm_is_not_known_yet() -> None:
    deny = rule("*", deny=True, algorithms=(KeyAlgorithm.RSA_2048,), actions=(Action.CREATE,))
    assert not may(WEB, Action.CREATE, KeyFacts("web-1"), rule("*", actions=(Action.CREATE,)), deny)
    assert may(WEB, Action.CREATE, KEY, rule("*", actions=(Action.CREATE,)), deny)


def test_what_concerns_no_key_is_not_allowed_by_a_rule_about_keys() -> None:
    assert may(WEB, Action.AUDIT, None, rule("*", actions=(Action.AUDIT,)))
    assert not may(WEB, Action.AUDIT, None, rule("*", actions=(Action.AUDIT,), keys=("web-*",)))


@pytest.mark.parametrize(
    ("at", "holds"),
    [
        ("2026-11-24T06:59", False),
        ("2026-11-24T07:00", True),  # Tuesday, eight in Berlin
        ("2026-11-24T16:59", True),
        ("2026-11-24T17:00", False),
        ("2026-11-28T12:00", False),  # Saturday
        ("2026-07-21T06:00", True),  # summer time
        ("2026-07-21T16:00", False),
    ],
)
def test_hours_are_those_of_their_time_zone(at: str, holds: bool) -> None:
    office = Hours((0, 1, 2, 3, 4), 8 * 60, 18 * 60, "Europe/Berlin")
    assert may(WEB, Action.SIGN, KEY, rule("*", hours=office), at=at) is holds


@pytest.mark.parametrize(("at", "holds"), [("2026-11-24T12:00", True), ("2026-11-29T12:00", False)])
def test_hours_hold_as_well_for_what_concerns_no_key(at: str, holds: bool) -> None:
    office = rule("*", actions=(Action.AUDIT,), hours=Hours((0, 1, 2, 3, 4), 8 * 60, 18 * 60, "Europe/Berlin"))
    never = rule("*", actions=(Action.AUDIT,), hours=office.hours, deny=True)
    assert may(WEB, Action.AUDIT, None, office, at=at) is holds
    assert may(WEB, Action.AUDIT, None, rule("*", actions=(Action.AUDIT,)), never, at=at) is not holds
    now = dt.datetime.fromisoformat(at).replace(tzinfo=dt.UTC).timestamp()
    ((_, _, why),) = Policy(RuleSet("p", (office,)), clock=lambda: now).explain(WEB, Action.AUDIT, None)
    assert why == ("" if holds else "not at this hour")


def test_a_decision_is_remembered_but_not_past_its_hour() -> None:
    now = dt.datetime(2026, 11, 24, 16, 59, 30, tzinfo=dt.UTC).timestamp()
    policy = Policy(RuleSet("p", (rule("*", hours=Hours((1,), 0, 17 * 60, "UTC")),)), clock=lambda: now)
    assert policy.decide(WEB, Action.SIGN, KEY).allowed
    now += 29
    assert policy.decide(WEB, Action.SIGN, KEY).allowed
    now += 1
    assert not policy.decide(WEB, Action.SIGN, KEY).allowed


def test_a_refusal_names_the_caller_and_how_to_find_out_more() -> None:
    with pytest.raises(PermissionDeniedError, match=r"spiffe://corp/web/1 may not sign keys/web-1") as error:
        Policy(RuleSet("p", ())).require(WEB, Action.SIGN, KEY)
    assert "policy check --as spiffe://corp/web/1 --action sign --key web-1" in error.value.hint


def test_whoever_no_rule_allows_anything_is_not_known() -> None:
    policy = Policy(RuleSet("p", (rule("unix:1"), rule("unix:2", deny=True))))
    assert policy.knows(Caller("unix:1"))
    assert not policy.knows(Caller("unix:2"))


def test_a_rule_may_be_about_keys_with_a_purpose() -> None:
    tls = rule("*", purposes=(PurposeKind.TLS_SERVER, PurposeKind.TLS_CLIENT))
    assert may(WEB, Action.SIGN, KeyFacts("k", purpose=PurposeKind.TLS_SERVER), tls)
    assert not may(WEB, Action.SIGN, KeyFacts("k", purpose=PurposeKind.ANY), tls)
    # a key that is not there yet is for nothing that is known: what allows does not hold, what denies does
    assert not may(WEB, Action.CREATE, KeyFacts("k"), rule("*", purposes=(PurposeKind.CA,), actions=(Action.CREATE,)))
    everything = rule("*", actions=(Action.CREATE,))
    deny = rule("*", purposes=(PurposeKind.CA,), actions=(Action.CREATE,), deny=True)
    assert not may(WEB, Action.CREATE, KeyFacts("k"), everything, deny)
    assert may(WEB, Action.CREATE, KeyFacts("k", purpose=PurposeKind.ANY), everything, deny)

"""policy.toml: what is taken, what is refused, and in which words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.errors import ConfigurationError
from hsmsign.policy import Action, Hours, Limit, LimitScope, reading

GOOD = """
[roles]
web = ["spiffe://corp/web/*", "unix:33"]

# a comment
[[allow]]
principals = ["role:web", "dns:ci.corp"]
actions = ["sign", "read"]
keys = ["web-*", "keys/api"]
labels = { env = "prod" }
algorithms = ["ecdsa-p256"]
hours = { days = ["tue", "mon"], from = "08:00", to = "18:30", zone = "Europe/Berlin" }
note = "why it is there"

  [[ deny ]]  # always
  principals = ["*"]
  actions = ["destroy"]
"""
RULE = '[[allow]]\nprincipals = ["unix:1"]\nactions = ["sign"]\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "policy.toml"
    path.write_text(text)
    return path


def test_a_policy_becomes_its_rules_with_their_lines(tmp_path: Path) -> None:
    allow, deny = reading.read(written(tmp_path, GOOD)).rules
    assert (allow.place, deny.place) == ("policy.toml:6", "policy.toml:15")
    assert (allow.allows, deny.allows) == (True, False)
    assert allow.principals == ("spiffe://corp/web/*", "unix:33", "dns:ci.corp")
    assert allow.actions == (Action.SIGN, Action.READ)
    assert allow.keys == ("web-*", "api")
    assert allow.labels == (("env", "prod"),)
    assert allow.algorithms == (KeyAlgorithm.EC_P256,)
    assert allow.hours == Hours((0, 1), 480, 1110, "Europe/Berlin")
    assert deny.keys == ("*",)


def test_the_example_of_the_documentation_is_a_policy(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "policy.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    policy = reading.read(written(tmp_path, "\n".join(examples)))
    assert [rule.allows for rule in policy.rules] == [True, True, False]
    assert [limit.rate for limit in policy.limits] == [200.0]


def test_limits_are_read_in_signatures_a_second(tmp_path: Path) -> None:
    text = (
        '[[limit]]\nprincipals = ["*"]\nrate = "600/min"\n'
        '[[limit]]\nprincipals = ["unix:1"]\nkeys = ["keys/web-*"]\nper = "key"\n'
        'rate = "1/h"\nburst = 7\nconcurrency = 3\n'
    )
    assert reading.read(written(tmp_path, text)).limits == (
        Limit("policy.toml:1", ("*",), ("*",), LimitScope.BOTH, 10.0, 10),
        Limit("policy.toml:4", ("unix:1",), ("web-*",), LimitScope.KEY, 1 / 3600, 7, 3),
    )


def test_rules_written_in_another_way_are_counted(tmp_path: Path) -> None:
    text = 'allow = [{ principals = ["unix:1"], actions = ["sign"] }]\n'
    assert reading.read(written(tmp_path, text)).rules[0].place == "policy.toml, [[allow]] number 1"


def test_an_empty_policy_is_one_that_allows_nothing(tmp_path: Path) -> None:
    assert reading.read(written(tmp_path, "")).rules == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("allow", "is not TOML"),
        (RULE.replace("actions", "action"), "unknown key 'allow.1.action' (did you mean 'actions'?)"),
        ("[[alow]]\n", "unknown key 'alow' (did you mean 'allow'?)"),
        (RULE.replace('"sign"', '"sing"'), "allow.1.actions.1"),
        (RULE.replace('["sign"]', "[]"), "allow.1.actions"),
        (RULE.replace('["sign"]', '["*"]'), "allow.1.actions.1"),
        (RULE.replace('["unix:1"]', "[]"), "allow.1.principals"),
        (RULE.replace("unix:1", "hans"), "'hans' is no principal"),
        (RULE.replace("unix:1", "role:wep") + "[roles]\nweb = ['unix:1']\n", "no role 'wep' (did you mean 'web'?)"),
        ("[roles]\nweb = ['role:db']\n", "has a role as a member"),
        (RULE + 'algorithms = ["rsa"]\n', "allow.1.algorithms.1"),
        (RULE + 'hours = { from = "08:00", to = "18:00" }\n', "zone"),
        (RULE + 'hours = { from = "8", zone = "UTC" }\n', "no time of day"),
        (RULE + 'hours = { from = "18:00", to = "08:00", zone = "UTC" }\n', "end before they begin"),
        (RULE + 'hours = { zone = "Europe/Bern" }\n', "no time zone"),
        (RULE + 'hours = { zone = "../../etc/passwd" }\n', "no time zone"),
        ('[[limit]]\nprincipals = ["*"]\n', "it limits nothing"),
        ('[[limit]]\nprincipals = ["*"]\nrate = "fast"\n', "no rate"),
        ('[[limit]]\nprincipals = ["*"]\nrate = "0/s"\n', "no rate"),
        ('[[limit]]\nprincipals = ["*"]\nconcurrency = 4\nburst = 5\n', "a burst wants a rate"),
        ('[[limit]]\nprincipals = ["*"]\nrate = "5/s"\nper = "host"\n', "limit.1.per"),
        ('[[limit]]\nprincipals = ["role:web"]\nrate = "5/s"\n', "no role 'web'"),
        ('[[limit]]\nprincipal = ["*"]\nrate = "5/s"\n', "did you mean 'principals'?"),
        (RULE + 'hours = { day = ["mon"], zone = "UTC" }\n', "did you mean 'days'?"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        reading.read(written(tmp_path, text))
    assert words in error.value.message


def test_a_policy_that_is_not_there_is_no_empty_policy(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read the policy"):
        reading.read(tmp_path / "policy.toml")

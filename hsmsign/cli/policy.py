"""hsmsign policy …: what a policy says, without a daemon."""

from __future__ import annotations

import datetime as dt
import tomllib
from pathlib import Path

import click

from hsmsign.cli.common import READABLE, Session, pass_session, shared
from hsmsign.cli.failures import EX_NO
from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.caller import Caller
from hsmsign.model.errors import ConfigurationError
from hsmsign.model.key_facts import KeyFacts
from hsmsign.model.patterns import matcher
from hsmsign.model.purpose import PurposeKind
from hsmsign.policy import Action, Decision, Limit, Policy, Rule, RuleSet, reading

_KEYLESS = frozenset({Action.AUDIT})


@click.group()
def policy() -> None:
    """Who may do what with which key."""


@policy.command()
@click.option("--policy", "file", type=READABLE, metavar="FILE", help="The policy; else that of --config.")
@click.option("--config", type=READABLE, metavar="FILE", help="The daemon's hsmsign.toml; else ./hsmsign.toml.")
@click.option("--as", "names", multiple=True, metavar="PRINCIPAL", help="spiffe://…, dns:…, unix:UID; repeatable.")
@click.option("--action", type=click.Choice([one.value for one in Action]))
@click.option("--key", metavar="NAME", help="A key's name; it need not exist.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="A label of that key; repeatable.")
@click.option("--algorithm", type=click.Choice([one.value for one in KeyAlgorithm]), help="Of that key.")
@click.option("--purpose", type=click.Choice([one.value for one in PurposeKind]), help="Of that key; any by default.")
@click.option("--at", type=click.DateTime(["%Y-%m-%dT%H:%M"]), help="UTC; now by default.")
@shared
@pass_session
@click.pass_context
def check(
    context: click.Context,
    session: Session,
    file: Path | None,
    config: Path | None,
    names: tuple[str, ...],
    action: str | None,
    key: str | None,
    labels: tuple[str, ...],
    algorithm: str | None,
    purpose: str | None,
    at: dt.datetime | None,
) -> None:
    """Check a policy; with --as and --action, say whether it allows that, and by which rule.

    Exit code 0: good, or allowed; 1: denied; 78: the policy has a mistake.
    """
    rules = reading.read(file or _of(config or Path("hsmsign.toml")))
    if not names and action is None:
        session.show({"policy": rules.source, "rules": len(rules.rules)}, lambda: [f"{rules.source}: {_count(rules)}"])
        return
    if not names or action is None:
        raise click.UsageError("say both --as PRINCIPAL and --action ACTION, or neither")
    for name in names:
        _check_name(name)
    facts = None
    if key is not None:
        kinds = (KeyAlgorithm(algorithm) if algorithm else None, PurposeKind(purpose) if purpose else PurposeKind.ANY)
        facts = KeyFacts.of(_id(session, key), _labels(labels), *kinds)
    asked = Action(action)
    if facts is None and asked not in _KEYLESS:
        raise click.UsageError(f"{action!r} is about a key: say --key NAME")
    caller = Caller(names[0], names[1:])
    moment = at.replace(tzinfo=dt.UTC).timestamp() if at else dt.datetime.now(dt.UTC).timestamp()
    judge = Policy(rules, clock=lambda: moment)
    decision = judge.decide(caller, asked, facts)
    about = judge.explain(caller, asked, facts)
    limits = [one for one in rules.limits if facts is not None and _limits(one, caller, facts, asked)]
    session.show(_plain(decision, about, limits), lambda: _lines(decision, about, limits, caller, rules))
    if not decision.allowed:
        context.exit(EX_NO)


def _of(config: Path) -> Path:
    """The policy of a daemon's configuration."""
    try:
        said = tomllib.loads(config.read_text(encoding="utf-8")).get("policy", {})
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {config}: {error.strerror}", hint="say which policy: --policy FILE, or --config hsmsign.toml"
        ) from error
    except ValueError as error:
        raise ConfigurationError(f"{config} is not TOML: {error}") from error
    return config.parent / str(said.get("file", "policy.toml") if isinstance(said, dict) else "policy.toml")


def _check_name(name: str) -> None:
    try:
        reading.check_principal(name, pattern=False)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--as") from None


def _id(session: Session, key: str) -> str:
    return session.name(key).removeprefix("keys/").partition("/")[0]


def _labels(said: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for one in said:
        name, equals, value = one.partition("=")
        if not equals:
            raise click.BadParameter(f"{one!r} is not NAME=VALUE", param_hint="--label")
        found[name] = value
    return found


def _count(rules: RuleSet) -> str:
    allowing = sum(rule.allows for rule in rules.rules)
    return f"good, {allowing} rules that allow and {len(rules.rules) - allowing} that deny"


def _limits(limit: Limit, caller: Caller, key: KeyFacts, action: Action) -> bool:
    """Whether the limit is about such signatures."""
    signs = action in (Action.SIGN, Action.SIGN_DIGEST)
    return signs and any(map(matcher(limit.principals), caller.names)) and matcher(limit.keys)(key.id)


def _in_words(limit: Limit) -> str:
    said = [f"{limit.rate:g} a second, {limit.burst} at once"] if limit.rate else []
    said += [f"{limit.concurrency} under way"] if limit.concurrency else []
    return f"{', '.join(said)}, per {limit.per.value}"


def _plain(decision: Decision, about: list[tuple[Action, Rule, str]], limits: list[Limit]) -> dict[str, object]:
    return {
        "allowed": decision.allowed,
        "rule": decision.rule.place if decision.rule else None,
        "considered": [
            {
                "action": right.value,
                "rule": rule.place,
                "effect": _effect(rule),
                "holds": not obstacle,
                "because": obstacle,
            }
            for right, rule, obstacle in about
        ],
        "limits": [{"limit": limit.place, "words": _in_words(limit)} for limit in limits],
    }


def _effect(rule: Rule) -> str:
    return "allow" if rule.allows else "deny"


def _unless(obstacle: str) -> str:
    return f" not here: {obstacle}" if obstacle else ""


def _lines(
    decision: Decision, about: list[tuple[Action, Rule, str]], limits: list[Limit], caller: Caller, rules: RuleSet
) -> list[str]:
    if decision.rule is not None:
        verdict = f"{'allowed' if decision.allowed else 'DENIED'} by {decision.rule.place}"
    else:
        verdict = "DENIED: no rule allows it"
    lines = [verdict]
    if not about:
        lines.append(f"  no rule of {rules.source} is about {caller.name}")
    for right, rule, obstacle in about:
        lines.append(f"  {right.value}: {rule.place} {'allows' if rule.allows else 'denies'} it{_unless(obstacle)}")
    lines.extend(f"  limited by {limit.place}: {_in_words(limit)}" for limit in limits)
    return lines

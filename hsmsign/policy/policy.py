"""Decides who may do what with which key. What no rule allows is denied; what one denies is, whatever others say."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from hsmsign.model.caller import Caller
from hsmsign.model.errors import PermissionDeniedError
from hsmsign.model.key_facts import KeyFacts
from hsmsign.model.patterns import matcher
from hsmsign.policy.rules import Action, Hours, Rule, RuleSet

_REMEMBERED = 16_384
_ALSO_WANTS = {Action.SIGN_DIGEST: Action.SIGN}


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether, and by which rule; None where no rule speaks of it."""

    allowed: bool
    rule: Rule | None


class Policy:
    """A policy in force. Remembers what it decided."""

    def __init__(self, rules: RuleSet, *, clock: Callable[[], float] = time.time) -> None:
        """`clock` tells the time in seconds since 1970."""
        self._rules = tuple(_Compiled(rule) for rule in rules.rules)
        self._timed = any(rule.hours is not None for rule in rules.rules)
        self._clock = clock
        self._minute = 0
        self._known: dict[tuple[str, str, tuple[str, ...], KeyFacts | None], Decision] = {}

    def decide(self, caller: Caller, action: Action, key: KeyFacts | None) -> Decision:
        """Whether `caller` may do that with the key; None for what concerns no key."""
        if self._timed:
            self._look_at_the_clock()
        asked = (action._value_, caller.name, caller.also, key)
        known = self._known.get(asked)
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            known = self._known[asked] = self._decide(caller, action, key)
        return known

    def require(self, caller: Caller, action: Action, key: KeyFacts | None) -> None:
        """Raise PermissionDeniedError where the caller may not. It does not tell whether there is such a key."""
        if not self.decide(caller, action, key).allowed:
            raise denied(caller, action, key)

    def knows(self, caller: Caller) -> bool:
        """Whether some rule allows the caller anything."""
        return any(rule.rule.allows and rule.is_about(caller) for rule in self._rules)

    def explain(self, caller: Caller, action: Action, key: KeyFacts | None) -> list[tuple[Action, Rule, str]]:
        """Every rule about the caller, for each right that is wanted, with why it does not hold; nothing where it
        does."""
        now = self._clock()
        wanted = [_ALSO_WANTS[action], action] if action in _ALSO_WANTS else [action]
        about = [one for one in self._rules if one.is_about(caller)]
        return [(right, one.rule, one.obstacle(right, key, now)) for right in wanted for one in about]

    def _decide(self, caller: Caller, action: Action, key: KeyFacts | None) -> Decision:
        wanted = _ALSO_WANTS.get(action)
        if wanted is not None:
            first = self._decide(caller, wanted, key)
            if not first.allowed:
                return first
        now = self._clock()
        matching = [one.rule for one in self._rules if one.is_about(caller) and not one.obstacle(action, key, now)]
        denying = next((rule for rule in matching if not rule.allows), None)
        deciding = denying or next(iter(matching), None)
        return Decision(deciding is not None and deciding.allows, deciding)

    def _look_at_the_clock(self) -> None:
        """Hours begin and end with a minute."""
        minute = int(self._clock() // 60)
        if minute != self._minute:
            self._minute = minute
            self._known.clear()


def denied(caller: Caller, action: Action, key: KeyFacts | None) -> PermissionDeniedError:
    """The error for a caller who may not."""
    what = f" keys/{key.id}" if key is not None else ""
    known = f" --key {key.id}" if key is not None else ""
    return PermissionDeniedError(
        f"{caller.name} may not {action.value}{what}",
        hint=f"who keeps the policy sees why: hsmsign policy check --as {caller.name} --action {action.value}{known}",
        metadata={"principal": caller.name, "action": action.value},
    )


class _Compiled:
    """A rule with its patterns made ready."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._principals = matcher(rule.principals)
        self._keys = None if "*" in rule.keys else matcher(rule.keys)
        self._labels = tuple((label, matcher((pattern,))) for label, pattern in rule.labels)
        self._about_keys = self._keys is not None or bool(rule.labels or rule.algorithms or rule.purposes)

    def is_about(self, caller: Caller) -> bool:
        """Whether one of the caller's names matches."""
        return any(self._principals(name) for name in caller.names)

    def obstacle(self, action: Action, key: KeyFacts | None, now: float) -> str:
        """Why it does not hold for a caller that it is about; nothing where it does."""
        rule = self.rule
        if action not in rule.actions:
            return f"not about {action.value!r}"
        if key is None and self._about_keys:
            return "about keys"
        if key is not None and (obstacle := self._of_key(key)):
            return obstacle
        return "" if rule.hours is None or _holds(rule.hours, now) else "not at this hour"

    def _of_key(self, key: KeyFacts) -> str:
        if self._keys is not None and not self._keys(key.id):
            return f"about other keys: {', '.join(self.rule.keys)}"
        # a rule that denies holds as well for a key whose algorithm is not known yet
        unknown = key.algorithm is None and not self.rule.allows
        if self.rule.algorithms and key.algorithm not in self.rule.algorithms and not unknown:
            return f"about other algorithms: {', '.join(one.value for one in self.rule.algorithms)}"
        unknown = key.purpose is None and not self.rule.allows
        if self.rule.purposes and key.purpose not in self.rule.purposes and not unknown:
            return f"about other purposes: {', '.join(one.value for one in self.rule.purposes)}"
        labels = dict(key.labels)
        for (label, pattern), (_, matches) in zip(self.rule.labels, self._labels, strict=True):
            if label not in labels or not matches(labels[label]):
                return f"about keys with the label {label}={pattern}"
        return ""


def _holds(hours: Hours, now: float) -> bool:
    there = dt.datetime.fromtimestamp(now, ZoneInfo(hours.zone))
    return there.weekday() in hours.days and hours.start <= there.hour * 60 + there.minute < hours.end

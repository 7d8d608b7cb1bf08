"""Reads a policy file and checks it whole. Needs pydantic: the processes that decide get the rules as plain values."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.errors import ConfigurationError
from hsmsign.model.purpose import PurposeKind
from hsmsign.policy.rules import Action, Hours, Limit, LimitScope, Rule, RuleSet

_Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_DAYS: tuple[_Day, ...] = get_args(_Day)
_RATE = re.compile(r"[1-9][0-9]{0,8}/(s|min|h)")
_SECONDS = {"s": 1, "min": 60, "h": 3600}
_ROLE = "role:"
_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])|24:00")
_HEADER = re.compile(r"^\s*\[\[\s*(allow|deny|limit)\s*\]\]\s*(?:#.*)?$")
_SCHEMES = ("spiffe://", "dns:", "email:", "subject:", "sha256:", "unix:", "unix-group:", "token:")

Pattern = Annotated[str, StringConstraints(min_length=1, max_length=512)]
RoleName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Hours(_Table):
    """hours = { days = ["mon", …], from = "08:00", to = "18:00", zone = "Europe/Berlin" }"""

    days: tuple[_Day, ...] = _DAYS
    start: str = Field(alias="from", default="00:00")
    end: str = Field(alias="to", default="24:00")
    zone: str

    @model_validator(mode="after")
    def _check(self) -> Self:
        for text in (self.start, self.end):
            if not _TIME.fullmatch(text):
                raise ValueError(f"{text!r} is no time of day: say 08:00")
        if _minutes(self.start) >= _minutes(self.end):
            raise ValueError("they end before they begin: a night is two rules")
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(f"{self.zone!r} is no time zone: say Europe/Berlin, or UTC") from None
        return self

    def plain(self) -> Hours:
        days = tuple(sorted({_DAYS.index(day) for day in self.days}))
        return Hours(days, _minutes(self.start), _minutes(self.end), self.zone)


def _names(principals: tuple[str, ...]) -> tuple[str, ...]:
    for principal in principals:
        check_principal(principal)
    return principals


def _ids(keys: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(key.removeprefix("keys/") for key in keys)


class _Rule(_Table):
    """[[allow]] or [[deny]]"""

    principals: Annotated[tuple[Pattern, ...], Field(min_length=1)]
    actions: Annotated[tuple[Action, ...], Field(min_length=1)]
    keys: Annotated[tuple[Pattern, ...], Field(min_length=1)] = ("*",)
    labels: dict[str, Pattern] = {}
    algorithms: tuple[KeyAlgorithm, ...] = ()
    purposes: tuple[PurposeKind, ...] = ()
    hours: _Hours | None = None
    note: str = ""

    _check_names = field_validator("principals")(_names)
    _check_ids = field_validator("keys")(_ids)


class _Limit(_Table):
    """[[limit]]"""

    principals: Annotated[tuple[Pattern, ...], Field(min_length=1)]
    keys: Annotated[tuple[Pattern, ...], Field(min_length=1)] = ("*",)
    per: LimitScope = LimitScope.BOTH
    rate: str = ""
    burst: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    concurrency: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    note: str = ""

    _check_names = field_validator("principals")(_names)
    _check_ids = field_validator("keys")(_ids)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.rate and self.concurrency is None:
            raise ValueError('it limits nothing: say rate = "100/s", concurrency = 50, or both')
        if self.rate and not _RATE.fullmatch(self.rate):
            raise ValueError(f"{self.rate!r} is no rate: say 100/s, 600/min or 1000/h")
        if self.burst is not None and not self.rate:
            raise ValueError("a burst wants a rate")
        return self

    def a_second(self) -> float:
        """The rate in signatures a second; 0: none."""
        if not self.rate:
            return 0.0
        number, _, unit = self.rate.partition("/")
        return int(number) / _SECONDS[unit]


class _File(_Table):
    """policy.toml"""

    roles: dict[RoleName, Annotated[tuple[Pattern, ...], Field(min_length=1)]] = {}
    allow: tuple[_Rule, ...] = ()
    deny: tuple[_Rule, ...] = ()
    limit: tuple[_Limit, ...] = ()

    @model_validator(mode="after")
    def _known_roles(self) -> Self:
        for role, members in self.roles.items():
            for member in members:
                if member.startswith(_ROLE):
                    raise ValueError(f"role {role!r} has a role as a member; name its principals")
                check_principal(member)
        tables: tuple[_Rule | _Limit, ...] = (*self.allow, *self.deny, *self.limit)
        for rule in tables:
            for principal in rule.principals:
                role = principal.removeprefix(_ROLE)
                if role != principal and role not in self.roles:
                    near = difflib.get_close_matches(role, self.roles, n=1)
                    raise ValueError(f"there is no role {role!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
        return self


_TABLES: dict[str | int, type[_Table]] = {"allow": _Rule, "deny": _Rule, "limit": _Limit}


def check_principal(name: str, *, pattern: bool = True) -> None:
    """Raise ValueError for what can be no caller's name, nor (`pattern`) stand for any in a rule."""
    if name.startswith(_SCHEMES) or (pattern and (name == "*" or name.startswith(_ROLE))):
        return
    others = f"; or {_ROLE}NAME; or '*'" if pattern else ""
    raise ValueError(f"{name!r} is no principal: they begin with {', '.join(_SCHEMES)}{others}")


def read(path: Path) -> RuleSet:
    """Read a policy file. Raises ConfigurationError with everything that is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the policy {path}: {error.strerror}", hint="hsmsign init writes one; see docs/policy.md"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the policy {path} is not TOML: {error}") from error
    try:
        file = _File.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_explain(problem["loc"], problem["type"], problem["msg"]) for problem in error.errors())
        raise ConfigurationError(f"the policy {path}: {problems}", hint="see docs/policy.md") from None
    return RuleSet(str(path), _rules(file, path.name, text), _limits(file, path.name, text))


def _explain(location: tuple[int | str, ...], kind: str, message: str) -> str:
    # "allow.0.actions" is the first [[allow]]: count as people do
    place = ".".join(f"{part + 1}" if isinstance(part, int) else part for part in location)
    if kind == "extra_forbidden":
        table: type[_Table] = _TABLES.get(location[0], _File) if len(location) > 1 else _File
        fields = _Hours.model_fields if "hours" in location else table.model_fields
        names = [field.alias or name for name, field in fields.items()]
        near = difflib.get_close_matches(str(location[-1]), names, n=1)
        return f"unknown key {place!r}" + (f" (did you mean {near[0]!r}?)" if near else "")
    message = message.removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def _rules(file: _File, name: str, text: str) -> tuple[Rule, ...]:
    return tuple(
        Rule(
            place=place,
            allows=allows,
            principals=_members(file, rule),
            actions=rule.actions,
            keys=rule.keys,
            labels=tuple(sorted(rule.labels.items())),
            algorithms=rule.algorithms,
            purposes=rule.purposes,
            hours=rule.hours.plain() if rule.hours is not None else None,
        )
        for allows, kind, rules in ((True, "allow", file.allow), (False, "deny", file.deny))
        for rule, place in zip(rules, _places(kind, len(rules), name, text), strict=True)
    )


def _limits(file: _File, name: str, text: str) -> tuple[Limit, ...]:
    return tuple(
        Limit(
            place=place,
            principals=_members(file, limit),
            keys=limit.keys,
            per=limit.per,
            rate=limit.a_second(),
            burst=limit.burst or max(1, math.ceil(limit.a_second())),
            concurrency=limit.concurrency or 0,
        )
        for limit, place in zip(file.limit, _places("limit", len(file.limit), name, text), strict=True)
    )


def _members(file: _File, rule: _Rule | _Limit) -> tuple[str, ...]:
    """Its principals, roles replaced by who has them."""
    found: list[str] = []
    for principal in rule.principals:
        role = principal.removeprefix(_ROLE)
        found.extend(file.roles[role] if role != principal else (principal,))
    return tuple(found)


def _places(kind: str, count: int, name: str, text: str) -> list[str]:
    """Where each rule stands: TOML's reader does not say, but a rule nearly always has a line for its header."""
    lines = [
        number
        for number, line in enumerate(text.splitlines(), 1)
        if (found := _HEADER.match(line)) and found[1] == kind
    ]
    if len(lines) == count:
        return [f"{name}:{line}" for line in lines]
    return [f"{name}, [[{kind}]] number {number}" for number in range(1, count + 1)]


def _minutes(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)

"""Reads the tables `[profiles.NAME]` of a configuration and checks them whole. Needs pydantic.

    [profiles.web]
    base = "server"                       # all that it does not say itself
    principals = ["spiffe://corp/web/*"]
    names.dns = ["*.example.org"]
    validity = { default = "30d", max = "90d" }

A table with the name of a built-in profile changes that one.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import graphlib
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

from cryptography import x509
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
    ValidationError,
    field_validator,
)

from hsmsign.model.errors import ConfigurationError, InvalidArgumentError
from hsmsign.model.purpose import PATH_LENGTH_MAX, subtree
from hsmsign.pki import contradictions, patterns
from hsmsign.pki.profiles import (
    BUILT_IN,
    EXTENDED_USAGES,
    Attribute,
    CaRules,
    KeyRule,
    Profile,
    SubjectRule,
    SubjectWord,
    UnknownExtensions,
    Usage,
)

E = TypeVar("E", bound=enum.Enum)
_DURATION = re.compile(r"([1-9][0-9]{0,8})([smhdy])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "y": 365 * 86_400}
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_WORDS = {word.value: word for word in SubjectWord if word is not SubjectWord.FIXED}
_HINT = "see docs/profiles.md"


def _near(word: str, known: Mapping[str, Any] | list[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _word(kind: type[E]) -> Callable[[object], object]:
    """A validator for the values of an enum that says what is near."""
    known = {str(one.value): one for one in kind}

    def read(value: object) -> object:
        if isinstance(value, str) and value not in known:
            raise ValueError(f"{value!r} is none of {', '.join(known)}{_near(value, known)}")
        return value

    return read


def _seconds(value: object) -> object:
    if value == "0s":
        return 0
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f'{value!r} is no duration: say "90d", "12h", "5m", "30s" or "1y" (365 days)')
    return int(found[1]) * _UNITS[found[2]]


def _oid(value: str) -> str:
    try:
        x509.ObjectIdentifier(value)
    except ValueError:
        raise ValueError(f"{value!r} is no OID: they are like 1.3.6.1.4.1.99999.1") from None
    return value


def _extended_usage(value: object) -> object:
    if isinstance(value, str) and value not in EXTENDED_USAGES:
        if not value[:1].isdigit():
            words = ", ".join(EXTENDED_USAGES)
            raise ValueError(f"{value!r} is no extended usage: {words}, or an OID{_near(value, EXTENDED_USAGES)}")
        return _oid(value)
    return value


def _subtree(value: str) -> str:
    try:
        subtree(value)
    except InvalidArgumentError as error:
        raise ValueError(f"{error.message}: {error.hint}") from None
    return value


Text = Annotated[str, StringConstraints(min_length=1, max_length=512)]
Seconds = Annotated[int, BeforeValidator(_seconds)]
Oid = Annotated[Text, BeforeValidator(lambda value: _oid(value) if isinstance(value, str) else value)]
Tree = Annotated[Text, BeforeValidator(lambda value: _subtree(value) if isinstance(value, str) else value)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def said(self) -> dict[str, Any]:
        """What the table says, and nothing else."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class _Names(_Table):
    """names = { dns = ["*.example.org"], required = true, max = 10, wildcards = false }"""

    dns: tuple[Text, ...] = ()
    ip: tuple[Text, ...] = ()
    uri: tuple[Text, ...] = ()
    email: tuple[Text, ...] = ()
    required: StrictBool = True
    max: StrictInt = 100
    wildcards: StrictBool = False

    @field_validator("dns", "ip", "uri", "email")
    @classmethod
    def _patterns(cls, value: tuple[str, ...], info: Any) -> tuple[str, ...]:
        return tuple(patterns.check(info.field_name, one) for one in value)


class _Validity(_Table):
    """validity = { default = "90d", max = "398d", backdate = "5m" }"""

    default: Seconds = 0
    max: Seconds = 0
    backdate: Seconds = 0


class _Ca(_Table):
    """ca = { path_length = 0, permitted = ["dns:example.org"], excluded = [] }"""

    path_length: Annotated[StrictInt, Field(ge=0, le=PATH_LENGTH_MAX)] = 0
    permitted: tuple[Tree, ...] = ()
    excluded: tuple[Tree, ...] = ()


class _Profile(_Table):
    """[profiles.NAME]"""

    base: Text = ""
    authorities: tuple[Text, ...] = ()
    principals: tuple[Text, ...] = ()
    identity: tuple[Text, ...] = ()
    keys: tuple[Annotated[KeyRule, BeforeValidator(_word(KeyRule))], ...] = ()
    usages: tuple[Annotated[Usage, BeforeValidator(_word(Usage))], ...] = ()
    extended_usages: tuple[Annotated[Text, BeforeValidator(_extended_usage)], ...] = ()
    subject: dict[Annotated[Attribute, BeforeValidator(_word(Attribute))], Text] = {}
    names: _Names = _Names()
    validity: _Validity = _Validity()
    ca: _Ca = _Ca()
    policies: tuple[Oid, ...] = ()
    must_staple: StrictBool = False
    ocsp_no_check: StrictBool = False
    unknown_extensions: Annotated[UnknownExtensions, BeforeValidator(_word(UnknownExtensions))] = (
        UnknownExtensions.REFUSE
    )
    copy_: tuple[Oid, ...] = Field(alias="copy", default=())
    crl: StrictBool = True
    ocsp: StrictBool = True
    short_lived: StrictBool = False


_TABLES: dict[str, type[_Table]] = {"names": _Names, "validity": _Validity, "ca": _Ca}


def read_profiles(tables: Mapping[str, Any]) -> tuple[Profile, ...]:
    """The built-in profiles, changed where a table says so, and those that tables add, in their order.

    `tables` is what TOML has under `[profiles]`. Raises ConfigurationError with everything that is wrong.
    """
    problems: list[str] = []
    read: dict[str, _Profile] = {}
    for name, values in tables.items():
        if not _NAME.fullmatch(name):
            problems.append(f"profiles.{name[:80]}: a name has 1 to 63 of a-z, 0-9 and '-', and no '-' at its ends")
            continue
        try:
            read[name] = _Profile.model_validate(values)
        except ValidationError as error:
            problems += [_explain(name, one["loc"], one["type"], one["msg"]) for one in error.errors()]
    made = {profile.name: profile for profile in BUILT_IN}
    for name in _order({name: table.base for name, table in read.items()}, list(tables), problems):
        # one whose base is wrong is read when that is right
        base = made.get(read[name].base or name)
        if base is not None:
            made[name] = _apply(read[name], base, name)
            problems += [f"profiles.{name}.{problem}" for problem in contradictions.find(made[name])]
    if problems:
        raise ConfigurationError("; ".join(problems), hint=_HINT, metadata={"section": "profiles"})
    return tuple(made.values())


def _order(bases: Mapping[str, str], tables: list[str], problems: list[str]) -> list[str]:
    """The tables, each behind the one on which it stands. What stands on nothing goes to `problems`."""
    built_in = [profile.name for profile in BUILT_IN]
    known = sorted({*tables, *built_in})
    for name, base in bases.items():
        if not base and name not in built_in:
            problems.append(f"profiles.{name}.base: it is missing: say one of {', '.join(known)}")
        elif base and base not in known:
            problems.append(f"profiles.{name}.base: there is no profile {base!r}{_near(base, known)}")
    graph = {name: [base] if base and (base != name or base not in built_in) else [] for name, base in bases.items()}
    try:
        return [name for name in graphlib.TopologicalSorter(graph).static_order() if name in bases]
    except graphlib.CycleError as error:
        circle = error.args[1]
        problems.append(f"profiles.{circle[0]}.base: it leads back to itself: {' <- '.join(circle)}")
        return []


def _apply(table: _Profile, base: Profile, name: str) -> Profile:
    """The profile that a table makes of the one on which it stands."""
    said = table.said()
    said.pop("base", None)
    if "copy_" in said:
        said["copy"] = said.pop("copy_")
    if "subject" in said:
        rules = {rule.attribute: rule for rule in base.subject}
        rules |= {attribute: _subject_rule(attribute, text) for attribute, text in table.subject.items()}
        said["subject"] = tuple(rules.values())
    if "names" in said:
        said["names"] = dataclasses.replace(base.names, **table.names.said())
    if "validity" in said:
        said["validity"] = dataclasses.replace(base.validity, **table.validity.said())
    if "ca" in said:
        said["ca"] = dataclasses.replace(base.ca or CaRules(), **table.ca.said())
    if said.get("short_lived"):
        said = {"crl": False, "ocsp": False} | said
    return dataclasses.replace(base, name=name, **said)


def _subject_rule(attribute: Attribute, text: str) -> SubjectRule:
    word = _WORDS.get(text)
    return SubjectRule(attribute, word) if word else SubjectRule(attribute, SubjectWord.FIXED, text)


def _explain(name: str, location: tuple[int | str, ...], kind: str, message: str) -> str:
    # the first of a list is number 1: count as people do
    parts = [f"{part + 1}" if isinstance(part, int) else part for part in location if part != "[key]"]
    place = ".".join(("profiles", name, *parts))
    if kind == "extra_forbidden":
        table = _TABLES.get(str(location[0]), _Profile) if len(location) > 1 else _Profile
        known = [field.alias or key for key, field in table.model_fields.items()]
        return f"unknown key {place!r}{_near(str(location[-1]), known)}"
    return f"{place}: {message.removeprefix('Value error, ')}"

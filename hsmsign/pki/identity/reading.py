"""Reads the `[identity.NAME]` tables of hsmsign.toml. Needs pydantic: who verifies tokens gets the rules as values."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from hsmsign.model.errors import ConfigurationError
from hsmsign.pki.identity import claims as paths
from hsmsign.pki.identity import templates
from hsmsign.pki.identity.issuers import (
    ALGORITHMS,
    DEFAULT_ALGORITHMS,
    KEY_FIELD,
    SPIFFE,
    Algorithm,
    IssuerRules,
    Kind,
    NameTemplates,
    check_url,
)
from hsmsign.pki.identity.presets import PRESETS, Preset

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_FIELD = r"^[a-z][a-z0-9_]{0,63}$"
_DOMAIN = re.compile(r"spiffe://[a-z0-9._-]{1,255}")
_IN_DOMAIN = re.compile(r"spiffe://[a-z0-9._-]{1,255}/")
_DAY = 86_400

Text = Annotated[str, StringConstraints(min_length=1, max_length=512)]
Templates = Annotated[tuple[Text, ...], Field(max_length=20)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Names(_Table):
    """[identity.NAME.names]"""

    dns: Templates = ()
    uri: Templates = ()
    email: Templates = ()
    ip: Templates = ()
    common_name: Annotated[str, StringConstraints(max_length=512)] = ""


class _Issuer(_Table):
    """[identity.NAME]"""

    kind: Kind
    issuer: Text | None = None
    audience: Text
    jwks_url: Text | None = None
    jwks_file: Path | None = None
    jwks_ca: Path | None = None
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = DEFAULT_ALGORITHMS
    required: dict[str, Any] = {}
    claims: dict[Annotated[str, StringConstraints(pattern=_FIELD)], Text] = {}
    names: _Names | None = None
    max_age_seconds: Annotated[int, Field(ge=0, le=_DAY)] | None = None
    leeway_seconds: Annotated[int, Field(ge=0, le=300)] = 60
    once: bool = True


def read_issuers(tables: Mapping[str, Any], base: Path = Path()) -> tuple[IssuerRules, ...]:
    """Read the tables below `[identity]`. Raises ConfigurationError with everything that is wrong with them.

    Paths are relative to `base`, which is the folder of the configuration file.
    """
    problems: list[str] = []
    found: list[IssuerRules] = []
    for name, table in tables.items():
        try:
            issuer = _Issuer.model_validate(table)
        except ValidationError as error:
            problems += (f"identity.{name}{_explain(one)}" for one in error.errors())
            continue
        wrong = [f"identity.{name}: {problem}" for problem in _problems(name, issuer)]
        problems += wrong
        if not wrong:
            found.append(_rules(name, issuer, base))
    problems += _alike(found)
    if problems:
        raise ConfigurationError("; ".join(problems), hint="see docs/identity.md")
    return tuple(found)


def _explain(problem: Any) -> str:
    location = [str(part) for part in problem["loc"] if part != "[key]"]
    place = "".join(f".{part}" for part in location)
    if problem["type"] == "extra_forbidden":
        table: type[_Table] = _Names if location[0] == "names" else _Issuer
        near = difflib.get_close_matches(location[-1], table.model_fields, n=1)
        return f": unknown key {place[1:]!r}" + (f" (did you mean {near[0]!r}?)" if near else "")
    if location and location[0] == "algorithms" and problem["type"] == "literal_error":
        return f"{place}: tokens are signed with one of {', '.join(ALGORITHMS)}"
    return f"{place}: {problem['msg'].removeprefix('Value error, ')}"


def _problems(name: str, issuer: _Issuer) -> Iterator[str]:
    preset = PRESETS[issuer.kind]
    if not _NAME.fullmatch(name):
        yield "its name has 1 to 63 of a-z 0-9 -, and begins and ends with a letter or digit"
    if not issuer.issuer and not preset.issuer:
        yield "say whose tokens they are: issuer is their `iss`"
    yield from _audience_problems(issuer.audience)
    yield from _key_problems(issuer, preset)
    yield from _claim_problems(issuer, preset)
    names = _names(issuer, preset)
    if names == NameTemplates():
        yield 'it vouches for no name: say names.dns = ["{FIELD}.example.org"], names.uri or another'
    yield from templates.problems(names, _fields(issuer, preset))


def _audience_problems(audience: str) -> Iterator[str]:
    rest = audience.replace(KEY_FIELD, "", 1)
    if "{" in rest or "}" in rest:
        yield f"audience: {audience!r} has {{key}} in it once, and no other brace"


def _key_problems(issuer: _Issuer, preset: Preset) -> Iterator[str]:
    url = _jwks_url(issuer, preset)
    if bool(url) == (issuer.jwks_file is not None):
        yield "say where the keys of the issuer are: jwks_url or jwks_file, one of them"
    elif url:
        try:
            check_url(url)
        except ValueError as error:
            yield f"jwks_url: {error}"
    if issuer.jwks_ca is not None and not url.startswith("https:"):
        yield "jwks_ca: it is for a jwks_url with https"


def _claim_problems(issuer: _Issuer, preset: Preset) -> Iterator[str]:
    fields = _fields(issuer, preset)
    for field, path in issuer.claims.items():
        try:
            paths.split(path)
        except ValueError as error:
            yield f"claims.{field}: {error}"
    try:
        required = dict(_required(issuer.required, fields))
    except ValueError as error:
        yield f"required: {error}"
        return
    narrow = {path for path, patterns in required.items() if all(one.strip("*") for one in patterns)}
    if preset.narrowed_by and not narrow & {fields[one] for one in preset.narrowed_by}:
        ways = " or ".join(preset.narrowed_by)
        yield f"everybody gets tokens of this issuer: required has to say which are yours, by {ways}"
    name = issuer.issuer or ""
    if issuer.kind is Kind.SPIFFE and not name.startswith(SPIFFE):
        # else the keys of one trust domain would vouch for another one's workloads
        if not all(_IN_DOMAIN.match(one) for one in required.get(fields["sub"], ("",))):
            yield f'say of which trust domain: required.sub = "{SPIFFE}example.org/*"'
    elif issuer.kind is Kind.SPIFFE and not _DOMAIN.fullmatch(name):
        yield f"issuer: a trust domain is {SPIFFE}example.org, in small letters, without a path"


def _alike(found: list[IssuerRules]) -> Iterator[str]:
    seen: dict[tuple[str, str], str] = {}
    for one in found:
        other = seen.setdefault((one.issuer, one.audience), one.name)
        if other != one.name:
            yield f"identity.{one.name}: it has the issuer and the audience of identity.{other}; give each its own"


def _rules(name: str, issuer: _Issuer, base: Path) -> IssuerRules:
    preset = PRESETS[issuer.kind]
    fields = _fields(issuer, preset)
    return IssuerRules(
        name=name,
        kind=issuer.kind,
        issuer=issuer.issuer or preset.issuer,
        audience=issuer.audience,
        jwks_url=_jwks_url(issuer, preset),
        jwks_file=_apart(base, issuer.jwks_file) if issuer.jwks_file is not None else None,
        jwks_ca=_apart(base, issuer.jwks_ca) if issuer.jwks_ca is not None else None,
        algorithms=tuple(issuer.algorithms),
        required=tuple(_required(issuer.required, fields)),
        claims=tuple(fields.items()),
        names=_names(issuer, preset),
        max_age_seconds=preset.max_age_seconds if issuer.max_age_seconds is None else issuer.max_age_seconds,
        leeway_seconds=issuer.leeway_seconds,
        once=issuer.once,
    )


def _apart(base: Path, file: Path) -> Path:
    """The file, in a folder of its own: who reads it, reads that whole folder. Raises ConfigurationError."""
    path = base / file
    if base.resolve().is_relative_to(path.parent.resolve()):
        raise ConfigurationError(
            f"{file} lies beside the configuration, or above it, and the worker would see all that is there",
            hint="put it into a folder of its own, as identity/keys.json",
        )
    return path


def _fields(issuer: _Issuer, preset: Preset) -> dict[str, str]:
    return preset.claims | issuer.claims


def _names(issuer: _Issuer, preset: Preset) -> NameTemplates:
    return preset.names if issuer.names is None else NameTemplates(**issuer.names.model_dump())


def _jwks_url(issuer: _Issuer, preset: Preset) -> str:
    """Where the keys are, if not in a file. Another issuer than the known one has its keys somewhere else."""
    if issuer.jwks_url is not None:
        return issuer.jwks_url
    own = issuer.jwks_file is not None or issuer.issuer not in (None, preset.issuer)
    return "" if own else preset.jwks_url


def _required(table: Mapping[str, Any], fields: Mapping[str, str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Paths of claims and their patterns. Raises ValueError. Tables in the table are the names of a path."""
    for names, value in _leaves(table, ()):
        # one key alone is a field, or a path with its dots and quotation marks
        alone = names[0] if len(names) == 1 else ""
        path = fields.get(alone) or paths.join(paths.split(alone) if alone else names)
        patterns = (value,) if isinstance(value, str) else value
        if not isinstance(patterns, list | tuple) or not patterns or not all(_pattern(one) for one in patterns):
            raise ValueError(f"{path} is a text, or a list of texts of 1 to 512 characters, * in it for anything")
        yield path, tuple(patterns)


def _leaves(table: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*above, name))
        else:
            yield (*above, name), value


def _pattern(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 512

"""Reads ca.toml and checks it whole. Needs pydantic: the worker gets what it says as plain values."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from hsmsign.model.errors import ConfigurationError
from hsmsign.pki.identity.reading import read_issuers
from hsmsign.pki.reading_profiles import Seconds, read_profiles
from hsmsign.pki.settings import CrlTimes, OcspTimes, PkiConfig

_HINT = "see docs/ca.md"
_DAY = 86_400


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Crl(_Table):
    """[crl]"""

    every: Seconds = _DAY
    lifetime: Seconds = 7 * _DAY
    delta_every: Seconds = 0
    settle: Seconds = 5

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not 1 <= self.every <= self.lifetime // 2:
            raise ValueError("a CRL lives at least twice as long as it takes until the next: lifetime >= 2 * every")
        if self.delta_every and self.delta_every > self.every // 2:
            raise ValueError("deltas come at least twice between two full ones: delta_every <= every / 2")
        if self.settle < 1:
            raise ValueError("settle is at least 1s")
        return self


class _Ocsp(_Table):
    """[ocsp]"""

    lifetime: Seconds = 4 * 3600
    refresh: Seconds = 2 * 3600
    responder_lifetime: Seconds = 30 * _DAY
    responder_id: Literal["key", "name"] = "key"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not 60 <= self.refresh <= self.lifetime * 3 // 4:
            raise ValueError("an answer is made anew well before it ends: 60s <= refresh <= 3/4 of lifetime")
        if self.responder_lifetime < 2 * self.lifetime:
            raise ValueError("a responder's certificate lives at least twice as long as its answers")
        return self


class _File(_Table):
    """ca.toml"""

    url: Annotated[str, StringConstraints(max_length=512)] = ""
    crl: _Crl = _Crl()
    ocsp: _Ocsp = _Ocsp()
    profiles: dict[str, Any] = {}
    identity: dict[str, Any] = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.url:
            parts = urlsplit(self.url)
            if parts.scheme != "http" or not parts.hostname or parts.query or parts.fragment or parts.username:
                # what is behind it proves itself, and checking a certificate of https would want itself (RFC 5280, 8)
                raise ValueError(f"url: {self.url!r} is no http:// URL of a host: say http://pki.example.org")
        return self


_TABLES: dict[str, type[_Table]] = {"crl": _Crl, "ocsp": _Ocsp}


def read(path: Path) -> PkiConfig:
    """Read ca.toml. Raises ConfigurationError with everything that is wrong with it."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {path}: {error.strerror}", hint='hsmsign init writes one; without a CA: ca.file = ""'
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from error
    try:
        file = _File.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_explain(one["loc"], one["type"], one["msg"]) for one in error.errors())
        raise ConfigurationError(f"{path}: {problems}", hint=_HINT) from None
    try:
        profiles = read_profiles(file.profiles)
        identity = read_issuers(file.identity, path.parent)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error.message}", hint=error.hint or _HINT) from None
    known = {one.name for one in identity}
    for profile in profiles:
        if missing := [one for one in profile.identity if one not in known]:
            raise ConfigurationError(
                f"{path}: profiles.{profile.name}.identity: there is no [identity.{missing[0]}]", hint=_HINT
            )
    return PkiConfig(
        url=file.url,
        profiles=profiles,
        identity=identity,
        crl=CrlTimes(**{name: float(value) for name, value in file.crl.model_dump().items()}),
        ocsp=OcspTimes(
            lifetime=float(file.ocsp.lifetime),
            refresh=float(file.ocsp.refresh),
            responder_lifetime=float(file.ocsp.responder_lifetime),
            responder_id=file.ocsp.responder_id,
        ),
    )


def _explain(location: tuple[int | str, ...], kind: str, message: str) -> str:
    place = ".".join(str(part) for part in location)
    if kind == "extra_forbidden":
        table = _TABLES.get(str(location[0]), _File) if len(location) > 1 else _File
        near = difflib.get_close_matches(str(location[-1]), list(table.model_fields), n=1)
        return f"unknown key {place!r}" + (f" (did you mean {near[0]!r}?)" if near else "")
    message = message.removeprefix("Value error, ")
    return f"{place}: {message}" if place else message

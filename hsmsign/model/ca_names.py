"""Resource names of the certificate authority: `cas/issuing`, `cas/issuing/versions/2`, `certificates/4F0A…`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hsmsign.model.errors import ResourceNameError

_ID = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")
_VERSION = re.compile(r"cas/([^/]+)/versions/([1-9][0-9]{0,8})")
_SERIAL = re.compile(r"[0-9a-f]{1,40}")
_NUMBER_MAX = 999_999_999
_GRAMMAR = (
    "it is cas/ID or cas/ID/versions/N; an ID has 1 to 63 of a-z 0-9 . _ - and begins and ends with a letter or digit"
)


@dataclass(frozen=True, slots=True)
class AuthorityName:
    """An authority, or with a `number` (from 1 on) one version of it. Raises ResourceNameError where either is outside
    the grammar."""

    id: str
    number: int | None = None

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id) or not (self.number is None or 1 <= self.number <= _NUMBER_MAX):
            raise _bad(f"cas/{self.id}" if self.number is None else f"cas/{self.id}/versions/{self.number}")

    def __str__(self) -> str:
        return f"cas/{self.id}" if self.number is None else f"cas/{self.id}/versions/{self.number}"


def authority(text: str) -> AuthorityName:
    """Read the name of an authority or of a version. Raises ResourceNameError."""
    found = _VERSION.fullmatch(text)
    if found:
        return AuthorityName(found[1], int(found[2]))
    if not text.startswith("cas/"):
        raise _bad(text)
    return AuthorityName(text.removeprefix("cas/"))


def authority_id(text: str) -> str:
    """Read the name of an authority as a whole; its id. Raises ResourceNameError, also for a version's."""
    name = authority(text)
    if name.number is not None:
        raise ResourceNameError(f"{text!r} names a version where an authority is wanted", hint=f"say cas/{name.id}")
    return name.id


def version(text: str) -> AuthorityName:
    """Read the name of a version. Raises ResourceNameError, also for an authority's."""
    name = authority(text)
    if name.number is None:
        raise ResourceNameError(f"{text!r} names an authority where a version is wanted", hint=f"say {text}/versions/N")
    return name


def certificate(text: str) -> str:
    """Read the name of a certificate; its serial number in hexadecimal, as the store has it. Colons, upper case and
    leading zeros, as other programs print them, are understood. Raises ResourceNameError."""
    serial = text.removeprefix("certificates/").replace(":", "").lower().lstrip("0")
    if not _SERIAL.fullmatch(serial):
        raise ResourceNameError(
            f"{_shown(text)} is no serial number of a certificate", hint="say certificates/SERIAL, in hexadecimal"
        )
    return serial


def serial_text(serial: int) -> str:
    """A serial number as the store and the names have it."""
    return f"{serial:x}"


def _bad(text: str) -> ResourceNameError:
    return ResourceNameError(f"{_shown(text)} is no name of an authority", hint=_GRAMMAR)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")

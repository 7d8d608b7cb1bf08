"""Resource names: `keys/web-1` and `keys/web-1/versions/2` (AIP-122)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hsmsign.model.errors import ResourceNameError

_ID = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")
_GRAMMAR = (
    "a name is keys/ID or keys/ID/versions/N; an ID has 1 to 63 of a-z 0-9 . _ - and begins and ends with"
    " a letter or digit"
)


def _bad(text: str) -> ResourceNameError:
    shown = text if len(text) <= 80 else text[:77] + "..."
    return ResourceNameError(f"{shown!r} is not a key name", hint=_GRAMMAR)


@dataclass(frozen=True, slots=True)
class KeyName:
    """The name of a key. Raises ResourceNameError where `id` is outside the grammar."""

    id: str

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise _bad(self.id)

    def __str__(self) -> str:
        return f"keys/{self.id}"

    def version(self, number: int) -> VersionName:
        """The name of one version of this key; the first is 1."""
        return VersionName(self, number)


@dataclass(frozen=True, slots=True)
class VersionName:
    """The name of one version of a key."""

    key: KeyName
    number: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= 2**31 - 1:
            raise _bad(f"{self.key}/versions/{self.number}")

    def __str__(self) -> str:
        return f"{self.key}/versions/{self.number}"


def parse(text: str) -> KeyName | VersionName:
    """Read a full resource name. Raises ResourceNameError."""
    parts = text.split("/")
    if len(parts) == 2 and parts[0] == "keys":
        return KeyName(parts[1])
    if len(parts) == 4 and parts[0] == "keys" and parts[2] == "versions" and re.fullmatch(r"[1-9][0-9]{0,9}", parts[3]):
        return VersionName(KeyName(parts[1]), int(parts[3]))
    raise _bad(text)


def parse_key(text: str) -> KeyName:
    """Read the name of a key. Raises ResourceNameError, also for the name of a version."""
    name = parse(text)
    if isinstance(name, VersionName):
        raise ResourceNameError(f"{text!r} names a version where a key is wanted", hint=f"say {name.key}")
    return name


def expand(text: str) -> str:
    """What a person types, as a full name: `web-1` means `keys/web-1`."""
    return text if text.startswith("keys/") else f"keys/{text}"

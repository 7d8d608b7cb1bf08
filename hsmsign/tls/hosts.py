"""Names of servers: as clients ask for them (RFC 6066, section 3), as certificates have them (RFC 9525, section 6)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from hsmsign.model.errors import ConfigurationError

T = TypeVar("T")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_LONGEST = 253


def asked(name: bytes) -> str:
    """A name that a client asked for, to be looked up: in lower case, without the dot of the root; empty for what is
    no name of a host."""
    try:
        text = name.decode("ascii").lower().removesuffix(".")
    except UnicodeDecodeError:
        return ""
    return text if _is_name(text) else ""


def pattern(text: str) -> str:
    """A name, or `*.` and a name, as it is looked up. Raises ConfigurationError for anything else."""
    if not text.isascii():
        raise ConfigurationError(
            f"{text!r} is no name of a server", hint="write it as clients do: xn--… (IDNA, A-labels)"
        )
    plain = text.lower().removesuffix(".")
    if _is_address(plain.strip("[]")):
        raise ConfigurationError(f"{text} is an address, and clients ask for names", hint="serve it by default")
    behind = plain.removeprefix("*.")
    if "*" in behind:
        raise ConfigurationError(
            f"{text!r} has a '*' that is not the whole first label", hint="*.example.org is what there is (RFC 9525)"
        )
    if not _is_name(behind):
        raise ConfigurationError(f"{text!r} is no name of a server", hint="say web.example.org, or *.example.org")
    return plain


def covers(names: Iterable[str], wanted: str) -> bool:
    """Whether the DNS names of a certificate cover a pattern."""
    there = {name.lower().removesuffix(".") for name in names}
    return wanted in there or (not wanted.startswith("*.") and _wildcard(wanted) in there)


class Table(Generic[T]):
    """Finds what is for a name: the name itself before a `*` in the place of its first label."""

    def __init__(self, entries: Mapping[str, T]) -> None:
        """By pattern."""
        self._entries = dict(entries)

    def find(self, name: str) -> T | None:
        """What is for a name as `asked` gives it."""
        found = self._entries.get(name)
        return self._entries.get(_wildcard(name)) if found is None else found


def _wildcard(name: str) -> str:
    return f"*.{name.partition('.')[2]}"


def _is_name(text: str) -> bool:
    return 0 < len(text) <= _LONGEST and all(map(_LABEL.fullmatch, text.split("."))) and not _is_address(text)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True

"""Where a claim is in a token, and what of it can be text.

A path is written as in TOML: names with dots between, a name that has a dot itself in quotes:
`google.compute_engine.zone`, `"kubernetes.io".pod.name`. So no claim can be taken for another one, whatever names an
issuer lets its users choose.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence

_NAME = re.compile(r'"([^"]+)"|([^".]+)')


@functools.lru_cache(1024)
def split(path: str) -> tuple[str, ...]:
    """The names of a path. Raises ValueError for what is none."""
    names: list[str] = []
    at = 0
    while found := _NAME.match(path, at):
        names.append(found[1] or found[2])
        at = found.end()
        if at == len(path):
            return tuple(names)
        if path[at] != ".":
            break
        at += 1
    raise ValueError(f'{path!r} is no path to a claim: say google.compute_engine.zone or "kubernetes.io".namespace')


def join(names: Sequence[str]) -> str:
    """The path of these names. Raises ValueError where one cannot be written."""
    if any(not name or '"' in name for name in names):
        raise ValueError("a claim's name is not empty and has no quotation mark")
    return ".".join(f'"{name}"' if "." in name else name for name in names)


def find(claims: Mapping[str, object], path: str) -> object:
    """The claim at a path, which `split` understands; None where there is none."""
    found: object = claims
    for name in split(path):
        if not isinstance(found, Mapping):
            return None
        found = found.get(name)
    return found


def text(value: object) -> str | None:
    """A string as it is, a whole number in digits; None for everything else, which has no one way to be written."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def texts(value: object) -> tuple[str, ...]:
    """What a claim can be compared with: its text, true or false, or those of its elements where it is a list."""
    values = value if isinstance(value, list) else [value]
    found = [str(one).lower() if isinstance(one, bool) else text(one) for one in values]
    return tuple(one for one in found if one is not None)

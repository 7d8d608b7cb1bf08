"""Paths of HTTP, and full names of gRPC methods: what is clear enough to be compared, and the patterns for it.

A part of a path is what is between two `/`. In a pattern, one `*` in a part stands for any text in that part, and
`**` as the last part for all that may follow. Everything is compared decoded, and in its case.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

_MAX = 8192
"""Characters of a path: more than any server takes in a request line, so that nothing is compared for long."""
_DOTS = re.compile(r"(?:^|/)\.{1,2}(?:;[^/]*)?(?=/|$)")
_ENCODED_AGAIN = re.compile(r"%(?:2[ef]|5c|00|25)", re.IGNORECASE)
_ENCODED_SLASH = re.compile(rb"%(?:2f|5c)", re.IGNORECASE)
_BAD_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_UNCLEAR = re.compile(r"[\x00-\x1f\x7f\\\ufffd\ud800-\udfff]")
_CALL = re.compile(r"/[A-Za-z0-9_.]+/[A-Za-z0-9_]+")
_CALLS = re.compile(r"/[A-Za-z0-9_.]*\*?[A-Za-z0-9_.]*/[A-Za-z0-9_]*\*?[A-Za-z0-9_]*")
_PERCENT = re.compile(r"%[0-9A-Fa-f]{2}")


def unclear(path: str, raw: bytes | None = None) -> str:
    """Why nobody can be sure which resource a path means, or nothing. `path` is decoded, as the application has it;
    `raw` is as it was sent, where the server keeps that."""
    if len(path) > _MAX:
        return f"a path of more than {_MAX} characters"
    if not path.startswith("/"):
        return "a path that does not begin with '/'"
    if _UNCLEAR.search(path):
        return "a path with a backslash, or with bytes that are no text"
    if "//" in path:
        return "a path with an empty part ('//')"
    if _DOTS.search(path):
        return "a path with a part '.' or '..'"
    if _ENCODED_AGAIN.search(path):
        return "a path that is encoded twice"
    if raw is not None and _ENCODED_SLASH.search(raw):
        return "a path with an encoded slash"
    if raw is not None and _BAD_PERCENT.search(raw):
        return "a path with a '%' that encodes nothing"
    return ""


def unclear_call(name: str) -> str:
    """Why a text is no full name of a gRPC method, or nothing."""
    return "" if _CALL.fullmatch(name) else "no /package.Service/Method"


def check_path(pattern: str) -> None:
    """Raise ValueError for what is no pattern of paths, or can fit none."""
    parts = pattern.split("/")
    if _PERCENT.search(pattern):
        raise ValueError(f"{pattern!r} is percent-encoded: write it decoded")
    if why := unclear("/".join("x" if part == "**" else part for part in parts)):
        raise ValueError(f"{pattern!r} fits nothing: {why} is never allowed")
    _check_stars(pattern, parts)


def check_call(pattern: str) -> None:
    """Raise ValueError for what is no pattern of gRPC methods."""
    if pattern != "/**" and not _CALLS.fullmatch(pattern):
        raise ValueError(f"{pattern!r} is no gRPC method: say /shop.v1.Shop/Read, /shop.v1.Shop/* or /**")
    _check_stars(pattern, pattern.split("/"))


def _check_stars(pattern: str, parts: list[str]) -> None:
    for at, part in enumerate(parts):
        if part == "**" and at == len(parts) - 1:
            continue
        if part.count("*") > 1:
            raise ValueError(f"{pattern!r}: a part has one '*' at most; '**' stands alone, and last")


def matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Whether a path fits one of them, whole. Takes time in proportion to the path."""
    compiled = re.compile("|".join(f"(?:{_expression(pattern)})" for pattern in patterns), re.DOTALL)
    return lambda path: compiled.fullmatch(path) is not None


def _expression(pattern: str) -> str:
    parts = pattern.split("/")
    made = "/".join("[^/]*".join(re.escape(text) for text in part.split("*")) for part in parts[:-1])
    last = ".*" if parts[-1] == "**" else "[^/]*".join(re.escape(text) for text in parts[-1].split("*"))
    return f"{made}/{last}"

"""Patterns of names: `*` stands for any text, nothing else is special."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable


def matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Whether a text matches one of them, whole."""
    parts = [".*".join(re.escape(part) for part in pattern.split("*")) for pattern in patterns]
    compiled = re.compile("|".join(f"(?:{part})" for part in parts), re.DOTALL)
    return lambda text: compiled.fullmatch(text) is not None

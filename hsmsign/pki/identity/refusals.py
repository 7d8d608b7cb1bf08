"""The words in which a token is refused. They never hold the token, and little of what it says."""

from __future__ import annotations

from typing import Literal

from hsmsign.model.errors import IdentityTokenError

Check = Literal[
    "size",
    "form",
    "type",
    "header",
    "algorithm",
    "issuer",
    "audience",
    "key",
    "signature",
    "expired",
    "not-before",
    "issued-at",
    "age",
    "subject",
    "claims",
    "names",
]
"""What a token can fail: `metadata["check"]` of the error."""

_SHOWN = 80


def refusal(check: Check, message: str, *, issuer: str = "", hint: str = "") -> IdentityTokenError:
    """The error for a token that fails a check; `issuer` is its configuration's name, nothing before that is known."""
    return IdentityTokenError(message, hint=hint, metadata={"issuer": issuer, "check": check})


def shown(value: object) -> str:
    """Something that a stranger sent, printable and short."""
    text = ascii(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."

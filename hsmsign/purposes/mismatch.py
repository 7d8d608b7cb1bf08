"""Why a message is not what the key is for."""

from __future__ import annotations


class Mismatch(Exception):
    """The message is not of the kind, or beyond the key's limits; says what was expected."""

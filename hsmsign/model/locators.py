"""PKCS #11 locators: how the process wall spells an object (native/core/frame.h)."""

from __future__ import annotations


def by_id(object_id: bytes) -> bytes:
    """The locator of the one object with this CKA_ID (1 to 255 bytes), whatever its label."""
    return bytes([len(object_id)]) + object_id + b"\0"


def is_by_id(locator: bytes) -> bool:
    """Whether it is one of those."""
    return len(locator) >= 3 and locator == by_id(locator[1:-1])

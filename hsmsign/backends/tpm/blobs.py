"""How a TPM key is spelled in the store, and as the locator of an order: everything that is needed to use it on
the TPM that made it, and nothing that is of use elsewhere."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from hsmsign.model.errors import KeyDamagedError

_MAGIC = b"TPM\x01"
_WRAPPED, _PERSISTENT = b"W", b"P"
_CHECK = 8


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A key that only its parent, inside the TPM, can unwrap (TPM 2.0 Part 1, section 22)."""

    parent: bytes
    """The parent's Name: another one means another TPM, or that this one was cleared."""
    auth_id: bytes
    """What its authorization value is derived from, together with the backend's secret."""
    pcrs: str
    """`sha256:0,7`, or empty."""
    public: bytes
    """TPM2B_PUBLIC, marshalled."""
    private: bytes
    """TPM2B_PRIVATE, marshalled: encrypted by the parent."""


@dataclass(frozen=True, slots=True)
class PersistentKey:
    """A key that somebody else made and that the TPM keeps."""

    handle: int
    name: bytes


def encode(key: WrappedKey | PersistentKey) -> bytes:
    """The locator: at most 1024 bytes."""
    if isinstance(key, PersistentKey):
        body = _PERSISTENT + struct.pack(">I", key.handle) + _short(key.name)
    else:
        body = _WRAPPED + _short(key.parent) + _short(key.auth_id) + _short(key.pcrs.encode())
        body += struct.pack(">H", len(key.public)) + key.public + key.private
    whole = _MAGIC + body
    return whole + hashlib.sha256(whole).digest()[:_CHECK]


def is_ours(locator: bytes) -> bool:
    """Whether it begins as one of these."""
    return locator.startswith(_MAGIC)


def decode(locator: bytes) -> WrappedKey | PersistentKey:
    """The key. Raises KeyDamagedError where any bit is not what `encode` gave."""
    whole, check = locator[:-_CHECK], locator[-_CHECK:]
    if not whole.startswith(_MAGIC) or hashlib.sha256(whole).digest()[:_CHECK] != check:
        raise KeyDamagedError(
            "what the store keeps of this TPM key is not what was put there", hint="restore the store from a backup"
        )
    kind, body = whole[len(_MAGIC) : len(_MAGIC) + 1], whole[len(_MAGIC) + 1 :]
    if kind == _PERSISTENT:
        return PersistentKey(int.from_bytes(body[:4], "big"), _take(body[4:])[0])
    parent, body = _take(body)
    auth_id, body = _take(body)
    pcrs, body = _take(body)
    length = int.from_bytes(body[:2], "big")
    return WrappedKey(parent, auth_id, pcrs.decode(), body[2 : 2 + length], body[2 + length :])


def _short(value: bytes) -> bytes:
    return bytes([len(value)]) + value


def _take(body: bytes) -> tuple[bytes, bytes]:
    return body[1 : 1 + body[0]], body[1 + body[0] :]

"""Checkpoints as signed notes (C2SP signed-note and tlog-checkpoint), so that existing witnesses can cosign them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Self

from hsmsign.audit.merkle import HASH_SIZE
from hsmsign.model.errors import AuditError

_DASH = "\u2014"
_ED25519, _ECDSA = 1, 2
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_NOTE_MAX = 1 << 16
_ED25519_PREFIX = bytes.fromhex("302a300506032b6570032100")
"""Of a SubjectPublicKeyInfo (RFC 8410, section 4); the key itself comes after it."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head: this log had so many records then, and this root."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> Self:
        """From the text of a note. Raises AuditError."""
        lines = text.split("\n")
        if len(lines) < 4 or lines[-1] or not all(lines[:-1]) or not _NUMBER.fullmatch(lines[1]):
            raise AuditError("this is no checkpoint: origin, size and root are wanted, a line each")
        return cls(lines[0], int(lines[1]), read_base64(lines[2], HASH_SIZE))


@dataclass(frozen=True, slots=True)
class Verifier:
    """The public key of a log, by the name that it signs with."""

    name: str
    kind: int
    key: bytes
    """32 bytes of Ed25519, or the SubjectPublicKeyInfo of an EC key."""

    @classmethod
    def of(cls, name: str, public_key: bytes) -> Self:
        """From a SubjectPublicKeyInfo, DER, of an Ed25519 or EC key."""
        raw = public_key.removeprefix(_ED25519_PREFIX)
        return cls(name, _ECDSA, public_key) if raw == public_key else cls(name, _ED25519, raw)

    @classmethod
    def parse(cls, text: str) -> Self:
        """From NAME+ID+KEY, as `str` gives it. Raises AuditError."""
        name, _, rest = text.strip().partition("+")
        id, _, key = rest.partition("+")
        data = read_base64(key)
        if not name or len(data) < 2 or data[0] not in (_ED25519, _ECDSA):
            raise AuditError("this is no verifier key: NAME+ID+KEY with an Ed25519 or ECDSA key is wanted")
        found = cls(name, data[0], data[1:])
        if found.id.hex() != id:
            raise AuditError("the verifier key is damaged: its id is not that of its key")
        return found

    @property
    def id(self) -> bytes:
        """Four bytes that stand in a signature line."""
        if self.kind == _ECDSA:
            return hashlib.sha256(self.key).digest()[:4]
        return hashlib.sha256(self.name.encode() + b"\n\x01" + self.key).digest()[:4]

    def __str__(self) -> str:
        key = base64.b64encode(bytes([self.kind]) + self.key).decode()
        return f"{self.name}+{self.id.hex()}+{key}"

    def line(self, signature: bytes) -> str:
        """The signature line of a note."""
        return f"{_DASH} {self.name} {base64.b64encode(self.id + signature).decode()}\n"

    def open(self, note: bytes) -> Checkpoint:
        """The checkpoint in a note that this key signed. Raises AuditError for one that it did not sign."""
        text, lines = _split(note)
        signatures = [data[4:] for name, data in lines if name == self.name and data[:4] == self.id]
        if not signatures:
            raise AuditError(f"the checkpoint is not signed by {self.name}", hint="is it another log's?")
        if not all(self._is_good(signature, text.encode()) for signature in signatures):
            raise AuditError(f"the checkpoint's signature by {self.name} is wrong")
        return Checkpoint.parse(text)

    def _is_good(self, signature: bytes, text: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519
        from cryptography.hazmat.primitives.serialization import load_der_public_key

        try:
            if self.kind == _ED25519:
                ed25519.Ed25519PublicKey.from_public_bytes(self.key).verify(signature, text)
                return True
            key = load_der_public_key(self.key)
            if isinstance(key, ec.EllipticCurvePublicKey):
                key.verify(signature, text, ec.ECDSA(hashes.SHA256()))
                return True
        except (InvalidSignature, ValueError):
            pass
        return False


def read(note: bytes, verifier: Verifier | None) -> Checkpoint:
    """The checkpoint in a note; with a verifier, only where that signed it. Raises AuditError."""
    return verifier.open(note) if verifier is not None else unsigned(note)


def unsigned(note: bytes) -> Checkpoint:
    """The checkpoint in a note, whoever signed it. Raises AuditError."""
    return Checkpoint.parse(_split(note)[0])


def _split(note: bytes) -> tuple[str, list[tuple[str, bytes]]]:
    """A note's text and its signature lines."""
    try:
        said = note.decode("utf-8") if len(note) <= _NOTE_MAX else ""
    except UnicodeDecodeError:
        said = ""
    text, blank, rest = said.rpartition("\n\n")
    lines = rest.split("\n")
    if not blank or lines.pop() or not lines:
        raise AuditError("this is no signed note: a text, an empty line and signatures are wanted")
    found = []
    for line in lines:
        dash, _, rest = line.partition(" ")
        name, _, data = rest.partition(" ")
        if dash != _DASH or not name:
            raise AuditError("this is no signed note: a line below the text is no signature")
        found.append((name, read_base64(data)))
    return text + "\n", found


def read_base64(text: str, size: int = 0) -> bytes:
    """What is written as base64, in the one way that there is; so many bytes. Raises AuditError."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not data or (size and len(data) != size) or base64.b64encode(data).decode() != text:
        raise AuditError("what should be base64 is not, or has another length than it should")
    return data

"""Audit logs that tests make themselves."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from hsmsign.audit.log import AuditLog
from hsmsign.audit.notes import Checkpoint, Verifier
from hsmsign.audit.records import Records

_KEY = ed25519.Ed25519PrivateKey.generate()
VERIFIER = Verifier.of(
    "example.com/log",
    _KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
)
_RECORDS = Records()


def fill(log: AuditLog, count: int) -> None:
    """Append so many records."""
    log.append([_RECORDS.event("test", number=number) for number in range(count)])
    log.sync()


def signed(log: AuditLog) -> bytes:
    """Sign a checkpoint."""
    head = log.head()
    made = Checkpoint(VERIFIER.name, head.size, head.root)
    return f"{made.text}\n{VERIFIER.line(_KEY.sign(made.text.encode()))}".encode()


def checkpoint(log: AuditLog) -> bytes:
    """Sign a checkpoint, have the log keep it."""
    note = signed(log)
    log.keep(note)
    return note


def make(folder: Path, *counts: int) -> list[bytes]:
    """A log with so many records, and a checkpoint after each of the counts."""
    log = AuditLog.open(folder)
    notes = []
    for count in counts:
        fill(log, count)
        notes.append(checkpoint(log))
    log.close()
    return notes

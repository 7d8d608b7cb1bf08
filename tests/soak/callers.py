"""Callers of a daemon that is not treated well. Each remembers every signature that it was answered."""

from __future__ import annotations

import os
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256

from hsmsign.client import Client
from hsmsign.model.algorithms import InputKind
from hsmsign.model.errors import HsmsignError, InvalidArgumentError, PermissionDeniedError

_NEVER = frozenset({"INTERNAL", "PIN_REFUSED", "PIN_LOCKED"})
"""Reasons that no fault of the soak excuses."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A signature that a caller was given."""

    key_version: str
    digest: bytes
    """SHA-256 of what was signed."""
    recorded: bytes
    """SHA-256 of what was sent: the message, or the digest itself."""
    signature: bytes


@dataclass(slots=True)
class Ledger:
    """What all callers saw."""

    answers: list[Answer] = field(default_factory=list)
    public_keys: dict[str, bytes] = field(default_factory=dict)
    """SubjectPublicKeyInfo by version."""
    errors: Counter[str] = field(default_factory=Counter)
    """How often each reason was told."""
    wrong: list[str] = field(default_factory=list)
    """What no fault excuses."""

    def signed(self, version: str, data: bytes, kind: InputKind, signature: bytes) -> None:
        """A signature came."""
        digest = data if kind is InputKind.DIGEST else sha256(data).digest()
        self.answers.append(Answer(version, digest, sha256(data).digest(), signature))


class Callers:
    """Threads, each with a client and a way of calling."""

    def __init__(self, connect: Callable[[], Client], keys: list[str]) -> None:
        self.ledger = Ledger()
        self._connect = connect
        self._keys = keys
        self._over = threading.Event()
        self._go = threading.Event()
        self._threads: list[threading.Thread] = []

    def begin(self) -> None:
        """Start them; `rest` and `go_on` hold them."""
        self._go.set()
        for work in (self._single, self._single, self._batches, self._stream, self._keeper, self._rude):
            thread = threading.Thread(target=self._run, args=(work,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def end(self) -> None:
        """Let each finish its call."""
        self._over.set()
        self._go.set()
        for thread in self._threads:
            thread.join(60)
            if thread.is_alive():
                self.ledger.wrong.append("a call came to no end in a minute")

    def _run(self, work: Callable[[Client], None]) -> None:
        with self._connect() as client:
            while not self._over.is_set():
                try:
                    work(client)
                except HsmsignError as error:
                    self.ledger.errors[error.reason] += 1
                    if error.reason in _NEVER:
                        self.ledger.wrong.append(f"{work.__name__}: {error}")
                    self._over.wait(0.02)
                except Exception as error:  # noqa: BLE001 - it is told at the end
                    self.ledger.wrong.append(f"{work.__name__}: {error!r}")

    def _key(self) -> str:
        return self._keys[os.urandom(1)[0] % len(self._keys)]

    def _know(self, client: Client, version: str) -> None:
        if version not in self.ledger.public_keys:
            self.ledger.public_keys[version] = client.public_key_info(version).der

    def _single(self, client: Client) -> None:
        message = os.urandom(40)
        made = client.sign(self._key(), message=message)
        self.ledger.signed(made.key_version, message, InputKind.MESSAGE, made.value)

    def _batches(self, client: Client) -> None:
        digests = [os.urandom(32) for _ in range(64)]
        made = client.sign_batch(self._key(), digests)
        self._entries(made.key_version, digests, list(made))

    def _stream(self, client: Client) -> None:
        digests = [os.urandom(32) for _ in range(128)]
        version = f"{self._key()}/versions/1"
        entries: list[bytes | HsmsignError] = []
        try:
            entries.extend(client.sign_stream(version, digests, group_size=16, deadline=20))
        finally:  # what came before it broke counts
            self._entries(version, digests, entries)

    def _entries(self, version: str, digests: list[bytes], entries: list[bytes | HsmsignError]) -> None:
        for digest, entry in zip(digests, entries, strict=False):
            if isinstance(entry, bytes):
                self.ledger.signed(version, digest, InputKind.DIGEST, entry)
            else:
                self.ledger.errors[entry.reason] += 1

    def _keeper(self, client: Client) -> None:
        """A short life: made, used, rotated, used, destroyed."""
        name = f"keys/short-{uuid.uuid4().hex[:12]}"
        client.create_key(name, "ecdsa-p256")
        for _ in range(2):
            made = client.sign(name, message=b"short")
            self._know(client, made.key_version)
            self.ledger.signed(made.key_version, b"short", InputKind.MESSAGE, made.value)
            client.rotate_key(name)
        client.destroy_key(name)
        self._over.wait(0.1)

    def _rude(self, client: Client) -> None:
        """Asks for what is never given."""
        for refused in (
            lambda: client.sign("keys/tls", message=b"a certificate, perhaps"),
            lambda: client.sign("keys/tls", digest=bytes(32)),
            lambda: client.sign("keys/soak-0", digest=bytes(31)),
        ):
            with suppress(PermissionDeniedError, InvalidArgumentError):
                refused()
                self.ledger.wrong.append("something was signed that is never signed")
        self._over.wait(0.05)

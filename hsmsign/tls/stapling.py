"""OCSP stapling for an `ssl.SSLContext` (RFC 6066, section 8), whatever serves with it and wherever its key is.

    stapler = Stapler(context, chain).start()

The answer is kept in the native part: no handshake waits for anybody, and one that is out of date is not sent.
"""

from __future__ import annotations

import datetime as dt
import logging
import ssl
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from cryptography.hazmat.primitives.serialization import Encoding

from hsmsign.model.errors import ConfigurationError, HsmsignError, StapleError, UnauthenticatedError
from hsmsign.model.pause import Pause
from hsmsign.tls import native, ocsp
from hsmsign.tls.native import ask_for_staples, staple_of
from hsmsign.tls.ocsp import Answer, Fetch, FromFile, Pair, from_daemon, from_file, from_responder

__all__ = [
    "Health",
    "Stapler",
    "ask_for_staples",
    "check_staple",
    "from_daemon",
    "from_file",
    "from_responder",
    "staple",
    "staple_of",
]

_LOOK_EVERY = 60.0
"""Seconds: a machine may have been suspended, and a file replaced."""
_LONGEST_PAUSE = 300.0
"""Seconds between two tries: a responder that is back is not left waiting while clients turn away."""
_STOP_SECONDS = 20.0


def staple(context: ssl.SSLContext, answer: bytes, chain: bytes, *, issuer: bytes | None = None) -> Answer:
    """Have a server's context send an OCSP answer (DER) along from now on, until it is out of date.

    `chain` is the context's, PEM, its own certificate first; `issuer`, PEM, where that is not in it. Raises StapleError
    for an answer that is not good, current, about this certificate and signed by its issuer (or a responder of that),
    ConfigurationError for a chain of another certificate, CapabilityMissingError where Python's `ssl` has an OpenSSL of
    its own."""
    pair = _pair(context, chain, issuer)
    good = ocsp.check(answer, pair)
    _put(context, good, pair)
    return good


def check_staple(connection: ssl.SSLSocket | ssl.SSLObject, issuers: bytes) -> Answer | None:
    """For a client whose context was given to `ask_for_staples`: what its server stapled, once that is checked; None
    where it stapled nothing. `issuers`, PEM, has the CA that issued the server's certificate.

    Raises StapleError for an answer that is not good, and for none where the certificate promises one;
    UnauthenticatedError where TLS verified no certificate."""
    pair = Pair.of_peer(connection, issuers)
    if pair is None:
        raise UnauthenticatedError(
            "the server has no verified certificate", hint="shake hands first, with CERT_REQUIRED"
        )
    der = staple_of(connection)
    if der is not None:
        return ocsp.check(der, pair)
    if pair.must_staple:
        raise StapleError("the server's certificate promises an OCSP answer (RFC 7633), and none came")
    return None


@dataclass(frozen=True, slots=True)
class Health:
    """How a context's staple does."""

    ok: bool
    """Whether clients are content: an answer is sent, or the certificate does not promise one."""
    stapled: bool
    """Whether an answer is sent now."""
    must_staple: bool
    """Whether the certificate promises one (RFC 7633)."""
    until: dt.datetime | None
    """When the last good answer is, or was, out of date."""
    error: str
    """Why the last try failed; empty where it went well."""


class Stapler:
    """Keeps the staple of a context fresh, in a thread of its own, until the context is gone or `stop` is called.

    A new answer is asked for in the middle of the life of the one before; where that fails it is asked again, after
    longer and longer pauses, and the one before is sent for as long as it holds.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        chain: bytes,
        fetch: Fetch | None = None,
        *,
        issuer: bytes | None = None,
        look_every: float = _LOOK_EVERY,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`chain`, and `issuer` where it is not in that, are PEM. `fetch` is `from_file(path)`,
        `from_responder(url)`, `from_daemon(client)` or a function of yours; without it the responder that the
        certificate names is asked. A file is read every `look_every` seconds. Raises what `staple` does but
        StapleError."""
        self._pair = _pair(context, chain, issuer)
        self._context = weakref.ref(context, lambda _: self._over.set())
        self._fetch = fetch or from_responder()
        self._look_every = look_every
        self._clock = clock
        self._over = threading.Event()
        self._pause = Pause(_LONGEST_PAUSE)
        self._due = 0.0
        self._answer: Answer | None = None
        self._error = ""
        self._thread: threading.Thread | None = None
        self._log = logging.getLogger("hsmsign.tls.stapling")

    def start(self) -> Self:
        """Fetch the first answer, and begin to keep it fresh. Raises StapleError where there is no good one and the
        certificate promises one: clients would refuse the server."""
        error = self._renew()
        if self._pair.must_staple and not self.health().stapled:
            raise StapleError(
                f"the certificate of {self._name()} must come with an OCSP answer (RFC 7633), and there is none: "
                f"{self._error}",
                hint=getattr(error, "hint", "") or "see that its responder can be asked, then start again",
            )
        self._thread = threading.Thread(target=self._run, name="hsmsign-stapler", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """End the thread; the answer is still sent until it is out of date."""
        self._over.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_STOP_SECONDS)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def health(self) -> Health:
        """How it does."""
        until = None if self._answer is None else self._answer.next_update
        stapled = until is not None and self._clock() < until.timestamp()
        must = self._pair.must_staple
        return Health(stapled or not must, stapled, must, until, self._error)

    def _run(self) -> None:
        while not self._over.wait(min(max(self._pause.left, self._due - self._clock(), 0.0), self._look_every)):
            if not self._pause.left and self._clock() >= self._due:
                self._renew()

    def _renew(self) -> Exception | None:
        """Fetch a new answer, if it is newer than the one before. What fails is told, and no more."""
        context = self._context()
        if context is None:
            return None
        try:
            answer = ocsp.check(self._fetch(self._pair), self._pair, now=self._clock())
            if self._answer is None or answer.this_update >= self._answer.this_update:
                _put(context, answer, self._pair)
                self._answer = answer
            self._due = self._next(self._answer)
        except Exception as error:  # noqa: BLE001 - a fetch of somebody's may raise anything, and this must go on
            self._failed(context, error)
            return error
        self._error = ""
        self._pause.done(0.0)
        return None

    def _failed(self, context: ssl.SSLContext, error: Exception) -> None:
        self._error = error.message if isinstance(error, HsmsignError) else str(error) or type(error).__name__
        if isinstance(error, StapleError) and error.metadata.get("verdict") == "revoked":
            _put(context, None, self._pair)
            self._answer = None
        again = self._pause.failed()
        self._log.warning("no new staple for %s, again in %.0f s: %s", self._name(), again, self._error)

    def _next(self, answer: Answer) -> float:
        """When to ask again: half of an answer's life goes by; a file may be another one at any time."""
        if isinstance(self._fetch, FromFile):
            return self._clock() + self._look_every
        middle = answer.this_update + (answer.next_update - answer.this_update) / 2
        return max(middle.timestamp(), self._clock() + 1.0)

    def _name(self) -> str:
        return self._pair.leaf.subject.rfc4514_string() or f"serial number {self._pair.leaf.serial_number:x}"


def _put(context: ssl.SSLContext, answer: Answer | None, pair: Pair) -> None:
    leaf = pair.leaf.public_bytes(Encoding.DER)
    if answer is None:
        native.put_staple(context, b"", 0, b"")
    else:
        native.put_staple(context, answer.der, answer.next_update.timestamp(), leaf)


def _pair(context: ssl.SSLContext, chain: bytes, issuer: bytes | None) -> Pair:
    pair = Pair.of_pem(chain + b"\n" + (issuer or b""))
    if pair.leaf.public_bytes(Encoding.DER) != native.certificate_of(context):
        raise ConfigurationError(
            "the chain is of another certificate than the SSLContext has", hint="load the same into both"
        )
    return pair

"""OCSP for applications: asks how a certificate does, and believes nobody but its issuer (RFC 6960)."""

from __future__ import annotations

import datetime as dt
import http.client
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID

from hsmsign.model.errors import ConfigurationError, StapleError, UnavailableError
from hsmsign.tls import native
from hsmsign.tls.native import Checked, Verdict
from hsmsign.tls.peer import verified_der

if TYPE_CHECKING:
    from hsmsign.client import Client

_SECONDS = 10.0
_MAX_ANSWER = 1 << 16
_REFUSALS = {1: "malformedRequest", 2: "internalError", 3: "tryLater", 5: "sigRequired", 6: "unauthorized"}
_WORDS = {
    Verdict.REVOKED: "it says that the certificate is revoked",
    Verdict.UNKNOWN: "it says that its responder does not know the certificate",
    Verdict.MALFORMED: "it cannot be read",
    Verdict.FORGED: "it is signed neither by the issuer of the certificate nor by a responder of that",
    Verdict.OTHER: "it is about another certificate",
    Verdict.EARLY: "it is of the future",
    Verdict.ENDLESS: "it does not say until when it holds",
}

Fetch = Callable[["Pair"], bytes]
"""Gets the OCSP answer (DER) for a certificate. May raise HsmsignError and OSError; it is checked by whoever asks."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate, and the one that it was issued with."""

    leaf: x509.Certificate
    issuer: x509.Certificate

    @classmethod
    def of_pem(cls, pem: bytes) -> Pair:
        """Of a chain in PEM: its first certificate, and its issuer among the others. Raises ConfigurationError."""
        try:
            leaf, *others = x509.load_pem_x509_certificates(pem)
        except ValueError as error:
            raise ConfigurationError(f"the chain has no certificates in PEM: {error}") from error
        return cls._of(leaf, others)

    @classmethod
    def of_peer(cls, connection: object, issuers: bytes) -> Pair | None:
        """Of the certificate of the other side of an `ssl.SSLSocket` or `ssl.SSLObject`, as TLS verified it, and its
        issuer among these, PEM; None where it has none. Raises ConfigurationError."""
        der = verified_der(connection)
        return (
            None
            if der is None
            else cls._of(x509.load_der_x509_certificate(der), x509.load_pem_x509_certificates(issuers))
        )

    @classmethod
    def _of(cls, leaf: x509.Certificate, others: list[x509.Certificate]) -> Pair:
        for other in others:
            try:
                leaf.verify_directly_issued_by(other)
            except (ValueError, TypeError):
                continue
            except Exception:  # noqa: BLE001, S112 - InvalidSignature, and what keys of others may raise
                continue
            return cls(leaf, other)
        raise ConfigurationError(
            f"the issuer of {leaf.subject.rfc4514_string() or 'the certificate'} is not there",
            hint="put it behind its certificate in the chain, or name it",
        )

    @property
    def must_staple(self) -> bool:
        """Whether clients are told to refuse it without an answer (RFC 7633)."""
        try:
            found = self.leaf.extensions.get_extension_for_class(x509.TLSFeature).value
        except x509.ExtensionNotFound:
            return False
        return x509.TLSFeatureType.status_request in found

    @property
    def responder(self) -> str | None:
        """Where the certificate says that is answered: its first address for OCSP that is one of HTTP."""
        try:
            found = self.leaf.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
        except x509.ExtensionNotFound:
            return None
        places = (
            one.access_location.value
            for one in found
            if one.access_method == AuthorityInformationAccessOID.OCSP
            and isinstance(one.access_location, x509.UniformResourceIdentifier)
        )
        return next((place for place in places if place.startswith(("http://", "https://"))), None)

    def question(self) -> bytes:
        """The OCSP request, DER: without a nonce, so that caches may answer."""
        # SHA-1 names the issuer here and proves nothing; it is what every responder knows
        builder = ocsp.OCSPRequestBuilder().add_certificate(self.leaf, self.issuer, hashes.SHA1())  # noqa: S303
        return builder.build().public_bytes(Encoding.DER)


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer: signed by whom it has to be, about the right certificate, and current when it was checked."""

    der: bytes
    this_update: dt.datetime
    next_update: dt.datetime


def check(der: bytes, pair: Pair, *, now: float | None = None) -> Answer:
    """An answer that says that the certificate is good. Raises StapleError for any other. `now` is in seconds since
    1970."""
    leaf, issuer = (one.public_bytes(Encoding.DER) for one in (pair.leaf, pair.issuer))
    said = native.check_answer(der, leaf, issuer, time.time() if now is None else now)
    if said.verdict is not Verdict.GOOD:
        raise StapleError(
            f"the OCSP answer is not used: {_why(said)}",
            hint="compare: openssl ocsp -respin FILE -text -noverify",
            metadata={"verdict": said.verdict.name.lower()},
        )
    return Answer(der, _time(said.this_update), _time(said.next_update))


@dataclass(frozen=True, slots=True)
class FromFile:
    """From a file, DER: `hsmsign ocsp staple --follow` keeps one."""

    path: Path

    def __call__(self, pair: Pair) -> bytes:
        """What stands in it. Raises UnavailableError."""
        try:
            with self.path.open("rb") as file:
                return file.read(_MAX_ANSWER)
        except OSError as error:
            raise UnavailableError(f"cannot read the OCSP answer {self.path}: {error.strerror}") from error


def from_file(path: Path | str) -> FromFile:
    """From a file, DER: `hsmsign ocsp staple --follow` keeps one."""
    return FromFile(Path(path))


def from_daemon(client: Client) -> Fetch:
    """From the daemon whose authority issued the certificate; the client must stay open."""
    return lambda pair: client.ca.ocsp(pair.question())


def from_responder(url: str | None = None, *, seconds: float = _SECONDS) -> Fetch:
    """From the responder that the certificate names, or another one, over HTTP; in about so many seconds, or not."""
    if url is not None and urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise ConfigurationError(f"{url} is no address of an OCSP responder", hint="it begins with http://")

    def fetch(pair: Pair) -> bytes:
        where = url or pair.responder
        if where is None:
            raise ConfigurationError(
                "the certificate names no OCSP responder", hint="name one, or use a certificate that does"
            )
        headers = {"Content-Type": "application/ocsp-request", "Accept": "application/ocsp-response"}
        request = urllib.request.Request(where, pair.question(), headers)  # noqa: S310 - http only, see above
        try:
            with urllib.request.urlopen(request, timeout=seconds) as answer:  # noqa: S310
                return _read(answer, time.monotonic() + seconds)
        except urllib.error.HTTPError as error:
            raise UnavailableError(f"the OCSP responder {where} answers {error.code} {error.reason}") from error
        except urllib.error.URLError as error:
            raise UnavailableError(f"the OCSP responder {where} cannot be asked: {error.reason}") from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise UnavailableError(f"the OCSP responder {where} cannot be asked: {error}") from error

    return fetch


def _read(answer: http.client.HTTPResponse, end: float) -> bytes:
    """All of an answer, however small the pieces in which it comes. Raises TimeoutError."""
    content = b""
    while len(content) < _MAX_ANSWER and (piece := answer.read1(_MAX_ANSWER)):
        content += piece
        if time.monotonic() > end:
            raise TimeoutError("it answers too slowly")
    return content


def _why(said: Checked) -> str:
    if said.verdict is Verdict.NOT_GIVEN:
        return f"the responder refused ({_REFUSALS.get(said.refusal, said.refusal)})"
    if said.verdict is Verdict.LATE:
        return f"it held until {_time(said.next_update):%Y-%m-%d %H:%M:%S} UTC"
    return _WORDS[said.verdict]


def _time(seconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)

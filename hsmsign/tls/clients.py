"""Which clients a server takes: those of its CAs, and not those that a CRL has (RFC 5280, section 5).

What OpenSSL does with it fails closed: a client whose CA has no CRL here, or one that is out of date, is refused.
"""

from __future__ import annotations

import datetime as dt
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from hsmsign.model import revocation
from hsmsign.model.errors import ConfigurationError, StapleError, UnauthenticatedError
from hsmsign.tls import native, ocsp
from hsmsign.tls.ocsp import Answer, Fetch

_PLACE = revocation.Place("crl=", "ca=")


def require_clients(
    context: ssl.SSLContext, ca: Path | str, crl: Path | str | None = None, *, chain: bool = False
) -> None:
    """Have a server's context refuse clients without a certificate of these CAs, and revoked ones. Files in PEM.

    `crl` has a CRL of each CA that issues certificates for clients; with `chain`, of each CA above them, too. Files are
    read now: a context that serves keeps what it has, so that a new CRL wants a new context (`ServerNames.reload`).
    Raises ConfigurationError for what cannot be read, and for CRLs that are signed by none of the CAs."""
    pem = _read(ca, "client CA")
    try:
        authorities = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ConfigurationError(f"{ca} has no certificates in PEM: {error}", hint="the CAs of the clients") from error
    crls = [] if crl is None else revocation.load(_read(crl, "client CRL"), authorities, _PLACE)
    context.load_verify_locations(cadata=b"".join(one.public_bytes(Encoding.DER) for one in authorities))
    for one in crls:
        native.add_crl(context, one.public_bytes(Encoding.DER))
    if crls:
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN if chain else ssl.VERIFY_CRL_CHECK_LEAF
    context.verify_mode = ssl.CERT_REQUIRED


def crls_until(context: ssl.SSLContext) -> dt.datetime | None:
    """When the first CRL of a context is out of date, and clients are refused for it; None where it has none."""
    trust = native.trust_of(context)
    return dt.datetime.fromtimestamp(trust.crls_until, dt.UTC) if trust.crls else None


def check_client(connection: ssl.SSLSocket | ssl.SSLObject, issuers: bytes, fetch: Fetch | None = None) -> Answer:
    """Ask by OCSP how the certificate of a client does, after its handshake. `issuers`, PEM, has the CA that issued it;
    `fetch` is as `Stapler` takes it: without it the responder that the certificate names is asked. Blocks meanwhile.

    Raises UnauthenticatedError where the client has no certificate, or one that is not good, and UnavailableError where
    nobody answers: turn it away then, too."""
    pair = ocsp.Pair.of_peer(connection, issuers)
    if pair is None:
        raise UnauthenticatedError("the client did not prove who it is", hint="come with a client certificate")
    try:
        return ocsp.check((fetch or ocsp.from_responder())(pair), pair)
    except StapleError as error:
        who = pair.leaf.subject.rfc4514_string() or f"serial number {pair.leaf.serial_number:x}"
        raise UnauthenticatedError(
            f"the certificate of {who} is not known to be good: {error.message}", metadata=error.metadata
        ) from error


def _read(path: Path | str, what: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read the {what} {path}: {error.strerror}", hint="PEM is wanted") from error

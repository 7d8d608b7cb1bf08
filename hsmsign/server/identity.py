"""Who calls: what a caller proved, not what it says."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsmsign.model.errors import UnauthenticatedError

_REMEMBERED = 4096
_HINT = "come with a client certificate (mutual TLS), or over the daemon's Unix socket"


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller by its proven name.

    `spiffe://…` (URI SAN), `dns:NAME` (DNS SAN), `sha256:HEX` (of the certificate's public key), or
    `unix:UID` (peer credentials).
    """

    name: str


class Context(Protocol):
    """What of a gRPC context tells who calls."""

    def peer(self) -> str:
        """The address."""
        ...

    def auth_context(self) -> Any:
        """What TLS has proven."""
        ...


class Identifier:
    """Names callers. Remembers certificates and connections that it has seen lately."""

    def __init__(self, doorman_prefix: str | None) -> None:
        self._door = None if doorman_prefix is None else f"unix-abstract:{doorman_prefix}/"
        self._of_peer = functools.lru_cache(_REMEMBERED)(self._unix)
        self._of_certificate = functools.lru_cache(_REMEMBERED)(_from_certificate)

    def __call__(self, context: Context) -> Caller:
        """The caller. Raises UnauthenticatedError for one that proved nothing."""
        peer = context.peer()
        if peer.startswith("unix"):
            return self._of_peer(peer)
        certificate = context.auth_context().get("x509_pem_cert")
        if not certificate:
            raise UnauthenticatedError("the caller did not prove who it is", hint=_HINT)
        return self._of_certificate(certificate[0])

    def _unix(self, peer: str) -> Caller:
        plain = unquote(peer)
        if self._door is not None and plain.startswith(self._door):
            parts = plain[len(self._door) :].split("/")
            if len(parts) == 4 and all(part.isascii() and part.isdigit() for part in parts):
                return Caller(f"unix:{int(parts[0])}")
        raise UnauthenticatedError("the caller came past the door where it proves who it is", hint=_HINT)


def _from_certificate(pem: bytes) -> Caller:
    """gRPC has checked the chain and the dates; here only the name is read."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        uris, names = _alternative_names(certificate)
        key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except Exception as error:  # the parser has many ways to refuse what a stranger sends
        raise UnauthenticatedError("the client certificate cannot be read", hint=_HINT) from error
    spiffe = [uri for uri in uris if uri.startswith("spiffe://")]
    if len(spiffe) > 1:
        raise UnauthenticatedError(
            f"the client certificate has {len(spiffe)} SPIFFE IDs",
            hint="an X.509-SVID has one (SPIFFE, X509-SVID, section 2)",
        )
    if spiffe:
        return Caller(spiffe[0])
    if names:
        return Caller(f"dns:{names[0].lower()}")
    return Caller(f"sha256:{hashlib.sha256(key).hexdigest()}")


def _alternative_names(certificate: x509.Certificate) -> tuple[list[str], list[str]]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return [], []
    return found.get_values_for_type(x509.UniformResourceIdentifier), found.get_values_for_type(x509.DNSName)

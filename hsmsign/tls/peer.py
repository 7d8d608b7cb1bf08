"""Who is at the other end of a TLS connection: what its certificate proves, once TLS has verified it."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from cryptography import x509

from hsmsign.model.certificate_names import names_of
from hsmsign.model.errors import UnauthenticatedError

_HINT = "come with another client certificate"


class GrpcContext(Protocol):
    """What of a gRPC context tells who calls; of a `grpc.ServicerContext`, or one of `grpc.aio`."""

    def auth_context(self) -> Any:
        """What TLS has proven."""
        ...


@dataclass(frozen=True, slots=True)
class Peer:
    """The verified identity of a TLS client."""

    name: str
    """`spiffe://…` (URI SAN), else `dns:NAME`, else `email:ADDRESS`, else `sha256:HEX` of its public key."""
    key: str
    """`sha256:HEX` of its public key (SubjectPublicKeyInfo): as well proven as the name."""
    subject: str
    """The distinguished name (RFC 4514), to be shown; no rule goes by it."""
    not_before: float
    """When its certificate begins to hold, in seconds since 1970."""
    not_after: float
    """When it ends: which it may do while its connection lasts."""

    @property
    def names(self) -> tuple[str, ...]:
        """What rules go by."""
        return (self.name,) if self.name == self.key else (self.name, self.key)

    @classmethod
    def of_der(cls, der: bytes) -> Peer:
        """Whoever holds a certificate that was verified: nothing is verified here. Raises UnauthenticatedError for one
        that names several holders, or cannot be read."""
        return cls._of(x509.load_der_x509_certificate, der)

    @classmethod
    def of_pem(cls, pem: bytes) -> Peer:
        """As `of_der`, of the first one in a PEM."""
        return cls._of(x509.load_pem_x509_certificate, pem)

    @classmethod
    def _of(cls, load: Callable[[bytes], x509.Certificate], data: bytes) -> Peer:
        try:
            certificate = load(data)
            begins, ends = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
        except Exception as error:  # the parser has many ways to refuse what a stranger sends
            raise UnauthenticatedError("the client certificate cannot be read", hint=_HINT) from error
        names = names_of(certificate)
        return cls(names.name or names.key, names.key, names.subject, begins, ends)

    @classmethod
    def of_tls(cls, connection: object) -> Peer | None:
        """Of an `ssl.SSLSocket` or `ssl.SSLObject`; None where it proved nothing. Raises UnauthenticatedError."""
        der = verified_der(connection)
        return None if der is None else cls.of_der(der)

    @classmethod
    def of_grpc(cls, context: GrpcContext) -> Peer | None:
        """Of a gRPC call, whose server wants client certificates (`require_client_auth=True`): Python's gRPC has no
        way to ask for one and not to verify it. None where the caller proved nothing. Raises UnauthenticatedError."""
        proven = context.auth_context() or {}
        certificate = proven.get("x509_pem_cert")
        if not certificate or list(proven.get("transport_security_type", ())) != [b"ssl"]:
            return None
        return cls.of_pem(certificate[0])


def verified_der(connection: object) -> bytes | None:
    """The peer's certificate as TLS verified it; None where there is none, or the context verifies none."""
    # with CERT_NONE, a client's side of a connection has a certificate too, which nobody has looked at
    if not isinstance(connection, ssl.SSLSocket | ssl.SSLObject) or connection.context.verify_mode == ssl.CERT_NONE:
        return None
    try:
        return connection.getpeercert(binary_form=True)
    except (ValueError, OSError):  # no handshake yet, or the connection is gone
        return None

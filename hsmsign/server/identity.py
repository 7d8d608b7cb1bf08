"""Who calls: what a caller proved, not what it says."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote

from cryptography import x509

from hsmsign.model.caller import Caller
from hsmsign.model.certificate_names import names_of
from hsmsign.model.errors import UnauthenticatedError
from hsmsign.model.revocation import NO_CRLS, Crls

_REMEMBERED = 4096
_HINT = "come with a client certificate (mutual TLS), or over the daemon's Unix socket"


class Context(Protocol):
    """What of a gRPC context tells who calls."""

    def peer(self) -> str:
        """The address."""
        ...

    def auth_context(self) -> Any:
        """What TLS has proven."""
        ...


@dataclass(frozen=True, slots=True)
class _Holder:
    """Whoever has the key of a client certificate."""

    caller: Caller
    not_after: float
    issuer: bytes
    serial: int


class Identifier:
    """Names callers, at every call: a certificate may end, or be revoked, while its connection lasts.

    Remembers certificates and connections that it has seen lately.
    """

    def __init__(
        self,
        doorman_prefix: str | None,
        *,
        tls12: bool = False,
        crls: Callable[[], Crls] = lambda: NO_CRLS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`tls12`: whether TLS 1.2 will do; `crls`: those in force now."""
        self._door = None if doorman_prefix is None else f"unix-abstract:{doorman_prefix}/"
        self._of_peer = functools.lru_cache(_REMEMBERED)(self._unix)
        self._of_certificate = functools.lru_cache(_REMEMBERED)(_holder)
        self._versions = frozenset({b"TLSv1.3", b"TLSv1.2"} if tls12 else {b"TLSv1.3"})
        self._crls = crls
        self._clock = clock

    def __call__(self, context: Context) -> Caller:
        """The caller. Raises UnauthenticatedError for one that proved nothing, or whose proof has ended."""
        peer = context.peer()
        if peer.startswith("unix"):
            return self._of_peer(peer)
        proven = context.auth_context()
        certificate = proven.get("x509_pem_cert")
        if not certificate:
            raise UnauthenticatedError("the caller did not prove who it is", hint=_HINT)
        version = proven.get("ssl_tls_version")
        if not version or version[0] not in self._versions:
            raise UnauthenticatedError(
                "this daemon wants TLS 1.3", hint='use a newer TLS library, or set server.tls.min_version = "1.2"'
            )
        holder = self._of_certificate(certificate[0])
        now = self._clock()
        if now > holder.not_after:
            raise UnauthenticatedError(
                f"the certificate of {holder.caller.name} has expired", hint="connect again with a new one"
            )
        self._crls().check(holder.caller.name, holder.issuer, holder.serial, now)
        return holder.caller

    def _unix(self, peer: str) -> Caller:
        plain = unquote(peer)
        if self._door is not None and plain.startswith(self._door):
            parts = plain[len(self._door) :].split("/")
            if len(parts) == 4 and all(part.isascii() and part.isdigit() for part in parts):
                return Caller(f"unix:{int(parts[0])}", (f"unix-group:{int(parts[1])}",))
        raise UnauthenticatedError("the caller came past the door where it proves who it is", hint=_HINT)


def _holder(pem: bytes) -> _Holder:
    """gRPC has checked the chain, and the dates when the connection began; here the names are read."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        ends, issuer = certificate.not_valid_after_utc.timestamp(), certificate.issuer.public_bytes()
    except Exception as error:  # the parser has many ways to refuse what a stranger sends
        raise UnauthenticatedError("the client certificate cannot be read", hint=_HINT) from error
    names = names_of(certificate)
    name = names.name or (f"subject:{names.subject}" if names.subject else names.key)
    return _Holder(Caller(name, () if name == names.key else (names.key,)), ends, issuer, certificate.serial_number)

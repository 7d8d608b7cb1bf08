"""Holds what is to be signed against what the key is for."""

from __future__ import annotations

from dataclasses import dataclass

from hsmsign.model.algorithms import Scheme
from hsmsign.model.errors import PurposeError
from hsmsign.model.purpose import Purpose, PurposeKind
from hsmsign.purposes import authority, disguises, jwt, signed, tls
from hsmsign.purposes.mismatch import Mismatch


@dataclass(frozen=True, slots=True)
class Signer:
    """A key version that is to sign with a scheme."""

    name: str
    purpose: Purpose
    scheme: Scheme
    public_key: bytes
    """SubjectPublicKeyInfo, DER."""


def check(signer: Signer, message: bytes) -> None:
    """Raise PurposeError where the message is not what the key is for."""
    try:
        _check(signer, message)
        return
    except Mismatch as mismatch:
        wanted = str(mismatch)
    except signed.UNREADABLE:  # some parts are parsed only when they are looked at
        wanted = "DER that can be read to its end"
    raise PurposeError(
        f"{signer.name} is for {signer.purpose.kind.value!r} and does not sign this: it wants {wanted}",
        hint="sign it with a key that is for it; a key's purpose: hsmsign key show",
        metadata={"purpose": signer.purpose.kind.value},
    )


def _check(signer: Signer, message: bytes) -> None:
    purpose, scheme = signer.purpose, signer.scheme
    match purpose.kind:
        case PurposeKind.ANY:
            return
        case PurposeKind.TLS_SERVER:
            tls.check_server(message)
            _not_for_a_ca(message, scheme)
        case PurposeKind.TLS_CLIENT:
            tls.check_client(message)
            _not_for_a_ca(message, scheme)
        case PurposeKind.CA:
            authority.check(message, purpose, scheme, signer.public_key)
        case PurposeKind.CSR:
            authority.check_request(message, scheme, signer.public_key)
        case PurposeKind.OCSP:
            authority.check_response(message, scheme, signer.public_key)
        case PurposeKind.JWT:
            jwt.check(message, purpose, scheme)
        case PurposeKind.AUDIT:
            raise Mismatch("checkpoints of the audit log, which the daemon itself makes")


def _not_for_a_ca(message: bytes, scheme: Scheme) -> None:
    """What is signed in TLS 1.2 begins with bytes that the caller chose: something else could be hidden in it."""
    if disguises.like_x509(message) or authority.is_to_be_signed(message, scheme):
        raise Mismatch("a handshake that could not be a certificate as well")

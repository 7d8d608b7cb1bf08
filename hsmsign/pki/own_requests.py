"""Requests about keys of this daemon: no signature has to prove that the private key is there."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_public_key

from hsmsign.model.errors import InvalidArgumentError
from hsmsign.pki import names
from hsmsign.pki.requests import Request
from hsmsign.pki.weakness import PublicKey

_TEXT_MAX = 1024


@dataclass(frozen=True, slots=True)
class OwnKey:
    """A key of this daemon, and what a certificate for it is to say."""

    spki: bytes
    """SubjectPublicKeyInfo, DER."""
    subject: str = ""
    """RFC 4514."""
    names: tuple[str, ...] = ()
    """`dns:…`, `ip:…`, `email:…`, `uri:…`"""

    def request(self) -> Request:
        """The same as a request. Raises InvalidArgumentError, CsrError."""
        found = subject(self.subject)
        common = [one.value for one in found.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
        return Request(
            der=b"",
            public_key=cast(PublicKey, load_der_public_key(self.spki)),
            spki=self.spki,
            subject=found,
            common_name=str(common[0]) if common else "",
            names=_names(self.names),
            extensions=(),
        )


def subject(text: str) -> x509.Name:
    """A distinguished name, which may be empty. Raises InvalidArgumentError."""
    try:
        return x509.Name.from_rfc4514_string(text[:_TEXT_MAX]) if text else x509.Name([])
    except ValueError:
        raise InvalidArgumentError(
            "the subject is no distinguished name (RFC 4514)",
            hint="say for example: CN=web.example.org",
            metadata={"field": "subject"},
        ) from None


def _names(texts: Sequence[str]) -> tuple[x509.GeneralName, ...]:
    if len(texts) > names.NAMES_MAX:
        raise InvalidArgumentError(f"a certificate has at most {names.NAMES_MAX} names", metadata={"field": "names"})
    return names.check_all([_name(text) for text in texts]) if texts else ()


def _name(text: str) -> x509.GeneralName:
    kind, _, value = text[:_TEXT_MAX].partition(":")
    try:
        match kind:
            case "dns":
                return x509.DNSName(value)
            case "ip":
                return x509.IPAddress(ipaddress.ip_address(value))
            case "email":
                return x509.RFC822Name(value)
            case "uri":
                return x509.UniformResourceIdentifier(value)
    except ValueError:
        pass
    raise InvalidArgumentError(
        f"{text[:80]!r} is no name",
        hint="say dns:web.example.org, ip:10.0.0.1, email:…, uri:…; a host's name that is not ASCII as xn--…",
        metadata={"field": "names"},
    )

"""Who the holder of a certificate is: the house's one rule, for callers of the daemon and for those of applications.

The SPIFFE ID, else the first DNS name, else the first mailbox, all of the SubjectAltName (RFC 5280, section 4.2.1.6).
Nobody signs a distinguished name with one meaning, so that it is not among them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsmsign.model.errors import UnauthenticatedError

_HINT = "come with another client certificate"


@dataclass(frozen=True, slots=True)
class CertificateNames:
    """What a certificate says of its holder."""

    name: str
    """`spiffe://…`, `dns:NAME` or `email:ADDRESS`; empty where the SubjectAltName has none of them."""
    key: str
    """`sha256:HEX` of its public key (SubjectPublicKeyInfo)."""
    subject: str
    """Its distinguished name (RFC 4514), to be shown."""


def names_of(certificate: x509.Certificate) -> CertificateNames:
    """Read them. Raises UnauthenticatedError for a certificate that names several, or cannot be read."""
    try:
        key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        subject = certificate.subject.rfc4514_string()
        name = _name(certificate)
    except UnauthenticatedError:
        raise
    except Exception as error:  # the parser has many ways to refuse what a stranger sends
        raise UnauthenticatedError("the client certificate cannot be read", hint=_HINT) from error
    return CertificateNames(name, f"sha256:{hashlib.sha256(key).hexdigest()}", subject)


def _name(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    spiffe = [uri for uri in names.get_values_for_type(x509.UniformResourceIdentifier) if uri.startswith("spiffe://")]
    if len(spiffe) > 1:
        raise UnauthenticatedError(
            f"the client certificate has {len(spiffe)} SPIFFE IDs",
            hint="an X.509-SVID has one (SPIFFE, X509-SVID, section 2)",
        )
    if spiffe:
        return spiffe[0]
    for kind, word in ((x509.DNSName, "dns"), (x509.RFC822Name, "email")):
        if found := names.get_values_for_type(kind):
            return f"{word}:{found[0].lower()}"
    return ""

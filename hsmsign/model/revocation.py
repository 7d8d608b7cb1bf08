"""Client certificates that their CA took back (RFC 5280, section 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import CRLEntryExtensionOID, ExtensionOID

from hsmsign.model.errors import ConfigurationError, UnauthenticatedError

_END = b"-----END X509 CRL-----"
_KNOWN = frozenset({ExtensionOID.AUTHORITY_KEY_IDENTIFIER, ExtensionOID.CRL_NUMBER})
_KNOWN_OF_ENTRIES = frozenset({CRLEntryExtensionOID.CRL_REASON, CRLEntryExtensionOID.INVALIDITY_DATE})


@dataclass(frozen=True, slots=True)
class Crl:
    """What the CRLs of one name say together."""

    serials: frozenset[int]
    """All that one of them lists: what was taken back stays taken back."""
    next_update: float
    """Seconds since 1970; after that nobody knows whom they revoke."""


@dataclass(frozen=True, slots=True)
class Place:
    """How whoever reads of a mistake knows the files."""

    crls: str
    authorities: str


DAEMON = Place("server.tls.client_crl", "server.tls.client_ca")


@dataclass(frozen=True, slots=True)
class _Part:
    """What one CRL says."""

    key: bytes
    """The public key (SubjectPublicKeyInfo, DER) of the CA that signed it."""
    serials: frozenset[int]
    this_update: float
    next_update: float


@dataclass(frozen=True, slots=True)
class Crls:
    """All of them, by the name (DER) of who issued them. None: certificates are not checked."""

    by_issuer: Mapping[bytes, Crl] | None

    def check(self, name: str, issuer: bytes, serial: int, now: float) -> None:
        """Raise UnauthenticatedError for a certificate that is revoked, or of which that cannot be known."""
        if self.by_issuer is None:
            return
        crl = self.by_issuer.get(issuer)
        if crl is None:
            raise UnauthenticatedError(
                f"there is no CRL of who issued the certificate of {name}",
                hint="the daemon's server.tls.client_crl wants one of each client CA",
            )
        if serial in crl.serials:
            raise UnauthenticatedError(f"the certificate of {name} was revoked", hint="get a new one")
        if now > crl.next_update:
            raise UnauthenticatedError(
                f"the CRL of who issued the certificate of {name} is out of date",
                hint="put a new one where the daemon's server.tls.client_crl is",
            )


NO_CRLS = Crls(None)


def read(pem: bytes, authorities: Sequence[x509.Certificate]) -> Crls:
    """CRLs in PEM, each signed by one of these CAs. Those of one name are put together, whatever their order and
    however many keys the CA has had. Raises ConfigurationError."""
    found: dict[bytes, list[_Part]] = {}
    for crl, part in _checked(pem, authorities, DAEMON):
        found.setdefault(crl.issuer.public_bytes(), []).append(part)
    return Crls({issuer: _together(parts) for issuer, parts in found.items()})


def load(pem: bytes, authorities: Sequence[x509.Certificate], place: Place) -> list[x509.CertificateRevocationList]:
    """The same CRLs as they are, for who leaves to OpenSSL what they say. Raises ConfigurationError."""
    return [crl for crl, _ in _checked(pem, authorities, place)]


def _checked(
    pem: bytes, authorities: Sequence[x509.Certificate], place: Place
) -> list[tuple[x509.CertificateRevocationList, _Part]]:
    found = []
    for block in _blocks(pem):
        try:
            crl = x509.load_pem_x509_crl(block)
            key = _signer(crl, authorities, place)
            found.append((crl, _plain(crl, key, place)))
        except ValueError as error:
            raise ConfigurationError(
                f"a CRL cannot be read: {error}", hint=f"{place.crls} wants PEM, label X509 CRL"
            ) from error
    if not found:
        raise ConfigurationError(
            "there is no CRL in the file", hint=f"{place.crls} wants PEM, label X509 CRL, one of each client CA"
        )
    return found


def _together(parts: Sequence[_Part]) -> Crl:
    """All serials, until the first of the keys wants a new CRL: a certificate does not say which key's CRL it is on."""
    newest: dict[bytes, _Part] = {}
    for part in parts:
        other = newest.get(part.key)
        if other is None or (part.this_update, -part.next_update) > (other.this_update, -other.next_update):
            newest[part.key] = part
    serials = frozenset[int]().union(*(part.serials for part in parts))
    return Crl(serials, min(part.next_update for part in newest.values()))


def _blocks(pem: bytes) -> list[bytes]:
    return [block + _END for block in pem.split(_END)[:-1]]


def _signer(crl: x509.CertificateRevocationList, authorities: Sequence[x509.Certificate], place: Place) -> bytes:
    """The key of the CA that signed it."""
    who = crl.issuer.rfc4514_string()
    critical = [extension.oid for extension in crl.extensions if extension.critical]
    if unknown := set(critical) - _KNOWN:
        # a delta, or one of a part of the certificates: what it does not list may be revoked elsewhere
        raise ConfigurationError(
            f"the CRL of {who} is of a kind that is not known here ({unknown.pop().dotted_string})"
        )
    for authority in authorities:
        if authority.subject != crl.issuer:
            continue
        try:
            signed = crl.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
        except (TypeError, InvalidSignature):
            continue
        if signed:
            return authority.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    raise ConfigurationError(
        f"the CRL of {who} is signed by none of the client CAs", hint=f"is its CA in {place.authorities}?"
    )


def _plain(crl: x509.CertificateRevocationList, key: bytes, place: Place) -> _Part:
    end = crl.next_update_utc
    if end is None:
        raise ConfigurationError(
            f"the CRL of {crl.issuer.rfc4514_string()} does not say until when it holds",
            hint="RFC 5280, section 5.1.2.5",
        )
    serials = set()
    for entry in crl:
        critical = {extension.oid for extension in entry.extensions if extension.critical}
        if critical - _KNOWN_OF_ENTRIES:
            raise ConfigurationError(
                f"the CRL of {crl.issuer.rfc4514_string()} lists certificates of others (an indirect CRL)",
                hint=f"{place.crls} wants a CRL of each client CA itself",
            )
        serials.add(entry.serial_number)
    return _Part(key, frozenset(serials), crl.last_update_utc.timestamp(), end.timestamp())

"""Certificates (RFC 5280, section 4): what is to be signed for a draft, and the whole with its signature.

    sign = await ...                                    # a device's signature over
    tbs = to_be_signed(draft, issuer, serial)           # this
    der = assemble(tbs, issuer.scheme, signature)

Roots and intermediate CAs go the same way; theirs are drawn up by `ca_draft`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import AuthorityInformationAccessOID

from hsmsign.model import signed_der
from hsmsign.model.algorithms import Scheme
from hsmsign.model.errors import AuthorityStateError, InvalidArgumentError
from hsmsign.pki import extensions, weakness
from hsmsign.pki.capturing import PrivateKey, captured, hash_of, padding_of
from hsmsign.pki.drafting import Draft
from hsmsign.pki.weakness import PublicKey

_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Issuer:
    """A CA, as the certificates that it issues need it."""

    name: x509.Name
    public_key: PublicKey = field(repr=False)
    scheme: Scheme
    key_identifier: bytes
    """Its subjectKeyIdentifier."""
    not_before: datetime
    not_after: datetime
    """Of its certificate, in UTC."""
    path_length: int | None = None
    """Of its certificate; None: as many CAs below it as may be."""
    ca_urls: tuple[str, ...] = ()
    """Where its certificate is."""
    crl_urls: tuple[str, ...] = ()
    """Where its CRL is: several for the same one."""
    ocsp_urls: tuple[str, ...] = ()


def fitted(draft: Draft, issuer: Issuer) -> Draft:
    """The draft, within the limits of the issuer: no certificate outlives the one above it, or is older.

    `capped` says whether notAfter was brought forward. Raises AuthorityStateError where the issuer has ended, or may
    certify no such CA.
    """
    if issuer.not_after < draft.drawn or issuer.not_after <= draft.not_before:
        raise AuthorityStateError(
            f"the certificate of {issuer.name.rfc4514_string()} ended at {issuer.not_after:%Y-%m-%d %H:%M:%SZ}",
            hint="give the authority a new version, which issues from then on",
        )
    if draft.is_ca and issuer.path_length is not None and not _is_own(draft, issuer):
        _check_depth(draft, issuer, issuer.path_length)
    not_before, not_after = max(draft.not_before, issuer.not_before), min(draft.not_after, issuer.not_after)
    if (not_before, not_after) == (draft.not_before, draft.not_after):
        return draft
    if not_before >= not_after:
        raise AuthorityStateError(
            f"the certificate of {issuer.name.rfc4514_string()} begins at {issuer.not_before:%Y-%m-%d %H:%M:%SZ}",
            hint="wait for it, or see to the clock",
        )
    return dataclasses.replace(
        draft, not_before=not_before, not_after=not_after, capped=draft.capped or not_after < draft.not_after
    )


def to_be_signed(draft: Draft, issuer: Issuer, serial: int) -> bytes:
    """The TBSCertificate, DER, for a draft that it makes `fitted`.

    Raises AuthorityStateError as that does, and ValueError for a serial number that is not of 1 to 159 bits (RFC 5280,
    section 4.1.2.2).
    """
    draft = fitted(draft, issuer)
    # all at once: the builder copies itself for each that is added
    builder = (
        x509.CertificateBuilder(extensions=[*draft.extensions, *_of_issuer(draft, issuer)])
        .issuer_name(issuer.name)
        .subject_name(draft.subject)
        .public_key(draft.public_key)
        .serial_number(serial)
        .not_valid_before(draft.not_before)
        .not_valid_after(draft.not_after)
    )

    def sign(key: PrivateKey) -> object:
        return builder.sign(key, hash_of(issuer.scheme), rsa_padding=padding_of(issuer.scheme))

    return captured(sign, issuer.public_key, issuer.scheme)


def assemble(tbs: bytes, scheme: Scheme, signature: bytes) -> bytes:
    """The certificate, DER. An ECDSA signature is DER, too."""
    return signed_der.wrap(tbs, scheme, signature)


def ca_draft(
    subject: x509.Name,
    public_key: PublicKey,
    *,
    now: datetime,
    validity: timedelta,
    path_length: int | None,
    permitted: Sequence[str] = (),
    excluded: Sequence[str] = (),
    policies: Sequence[str] = (),
) -> Draft:
    """What the certificate of an authority here says: a root's, one's below another, a cross-certificate.

    `permitted` and `excluded` are subtrees as `hsmsign.model.purpose` reads them, `policies` OIDs. Raises
    InvalidArgumentError and WeakKeyError.
    """
    if not subject.rdns or (path_length is not None and path_length < 0) or validity <= _SECOND:
        raise InvalidArgumentError(
            "a CA has a subject, a path length of 0 or more, and a validity",
            hint="say for example CN=Example Root,O=Example",
            metadata={"field": "subject"},
        )
    weakness.check_key(public_key)
    try:
        further = (*extensions.of_names(permitted, excluded), *extensions.of_policies(policies))
    except ValueError:
        raise InvalidArgumentError(
            "a certificate policy is no OID", hint="they are like 1.3.6.1.4.1.99999.1", metadata={"field": "policies"}
        ) from None
    start = now.astimezone(UTC).replace(microsecond=0)
    return Draft(
        profile="",
        subject=subject,
        public_key=public_key,
        spki=_spki(public_key),
        drawn=start,
        not_before=start,
        not_after=start + validity - validity % _SECOND - _SECOND,
        extensions=(*extensions.of_ca(path_length), *further, extensions.of_key(public_key)),
        names=(),
        key=weakness.describe(public_key),
        is_ca=True,
        path_length=path_length,
    )


def _check_depth(draft: Draft, issuer: Issuer, most: int) -> None:
    if draft.path_length is None or draft.path_length >= most:
        wanted = "any number" if draft.path_length is None else draft.path_length
        allowed = f"a path length of at most {most - 1}" if most else "no CAs"
        raise AuthorityStateError(
            f"{issuer.name.rfc4514_string()} certifies {allowed} below it, and this CA has a path length of {wanted}",
            hint="choose a smaller path length, or another issuer",
        )


def _is_own(draft: Draft, issuer: Issuer) -> bool:
    """Whether the issuer certifies itself."""
    return draft.is_ca and draft.subject == issuer.name and draft.spki == _spki(issuer.public_key)


def _spki(public_key: PublicKey) -> bytes:
    return public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _of_issuer(draft: Draft, issuer: Issuer) -> list[extensions.Extension]:
    """What depends on the issuer. A self-signed certificate says nothing of where to find out about it."""
    made = [_authority_key(issuer.key_identifier)]
    if not _is_own(draft, issuer):
        made += _access(issuer.ca_urls, issuer.ocsp_urls if draft.ocsp else ())
        made += _crl_points(issuer.crl_urls if draft.crl else ())
    return made


@functools.lru_cache(64)
def _authority_key(identifier: bytes) -> extensions.Extension:
    return extensions.extension(x509.AuthorityKeyIdentifier(identifier, None, None))


@functools.lru_cache(64)
def _access(ca_urls: tuple[str, ...], ocsp_urls: tuple[str, ...]) -> tuple[extensions.Extension, ...]:
    """authorityInfoAccess (RFC 5280, section 4.2.2.1), where it says anything."""
    said = [(AuthorityInformationAccessOID.OCSP, url) for url in ocsp_urls]
    said += [(AuthorityInformationAccessOID.CA_ISSUERS, url) for url in ca_urls]
    if not said:
        return ()
    found = [x509.AccessDescription(method, x509.UniformResourceIdentifier(url)) for method, url in said]
    return (extensions.extension(x509.AuthorityInformationAccess(found)),)


@functools.lru_cache(1024)
def _crl_points(urls: tuple[str, ...]) -> tuple[extensions.Extension, ...]:
    """cRLDistributionPoints: one point with all its places (RFC 5280, section 4.2.1.13)."""
    if not urls:
        return ()
    places = [x509.UniformResourceIdentifier(url) for url in urls]
    return (extensions.extension(x509.CRLDistributionPoints([x509.DistributionPoint(places, None, None, None)])),)

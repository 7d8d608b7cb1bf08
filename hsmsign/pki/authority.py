"""Certificate authorities as values: what the store has of them, read."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key

from hsmsign.model.algorithms import Scheme
from hsmsign.model.errors import AuthorityStateError
from hsmsign.pki.certificates import Issuer
from hsmsign.pki.weakness import PublicKey
from hsmsign.store.pki_rows import AuthorityRow, AuthorityState, AuthorityVersionRow


@dataclass(frozen=True, slots=True)
class Urls:
    """Where relying parties find things, below a base URL; nothing where there is none."""

    base: str

    def certificate(self, version: Version) -> tuple[str, ...]:
        """The certificate of a version, DER (AIA, caIssuers)."""
        return self._below(f"ca/{version.row.authority}/{version.row.number}.cer")

    def crl(self, version: Version, shard: int) -> tuple[str, ...]:
        """The full CRL of a shard."""
        return self._below(f"crl/{_crl_file(version, shard)}.crl")

    def delta(self, version: Version, shard: int) -> tuple[str, ...]:
        """Its delta."""
        return self._below(f"crl/{_crl_file(version, shard)}.delta.crl")

    def ocsp(self) -> tuple[str, ...]:
        """The OCSP responder."""
        return self._below("ocsp")

    def _below(self, path: str) -> tuple[str, ...]:
        return (f"{self.base.rstrip('/')}/{path}",) if self.base else ()


def _crl_file(version: Version, shard: int) -> str:
    row = version.row
    return f"{row.authority}/{row.number}" + (f"/{shard}" if row.shards > 1 else "")


@dataclass(frozen=True)
class Version:
    """A version of an authority."""

    row: AuthorityVersionRow = field(repr=False)

    @property
    def name(self) -> str:
        """cas/ID/versions/N"""
        return f"cas/{self.row.authority}/versions/{self.row.number}"

    @property
    def key(self) -> str:
        """keys/ID"""
        return self.row.key_version.partition("/versions/")[0]

    @cached_property
    def scheme(self) -> Scheme:
        """With what it signs."""
        return Scheme[self.row.scheme]

    @cached_property
    def public_key(self) -> PublicKey:
        """What checks its signatures."""
        return cast(PublicKey, load_der_public_key(self.row.public_key))

    @cached_property
    def maybe_certificate(self) -> x509.Certificate | None:
        """Its certificate; None while it waits for one."""
        return None if self.row.certificate is None else x509.load_der_x509_certificate(self.row.certificate)

    @property
    def certificate(self) -> x509.Certificate:
        """Its certificate. Raises AuthorityStateError while it waits for one."""
        if self.maybe_certificate is None:
            raise AuthorityStateError(
                f"{self.name} waits for its certificate",
                hint=f"have its request signed, then: hsmsign ca import-chain {self.row.authority} CHAIN.pem",
            )
        return self.maybe_certificate

    @property
    def subject(self) -> x509.Name:
        """Its name. Raises AuthorityStateError while it waits for its certificate."""
        return self.certificate.subject

    @property
    def wanted_subject(self) -> str:
        """Its name as it was asked for (RFC 4514), which it has also while it waits for its certificate."""
        return str(self.row.wanted.get("subject", ""))

    @property
    def is_external(self) -> bool:
        """Whether an outside CA certifies it."""
        return bool(self.row.wanted.get("external"))

    @cached_property
    def key_identifier(self) -> bytes:
        """As its certificate has it (RFC 5280, section 4.2.1.2), for what it issues."""
        try:
            return self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        except x509.ExtensionNotFound:
            return x509.SubjectKeyIdentifier.from_public_key(self.public_key).digest

    @cached_property
    def path_length(self) -> int | None:
        """How many CAs may stand below it; None: any number."""
        try:
            return self.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
        except x509.ExtensionNotFound:
            return None

    @cached_property
    def is_root(self) -> bool:
        """Whether its certificate is self-signed."""
        return self.certificate.issuer == self.certificate.subject

    @cached_property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """Those above it, the nearest first."""
        return _read(self.row.chain)

    @cached_property
    def crosses(self) -> tuple[x509.Certificate, ...]:
        """Certificates that others made for its key."""
        return _read(self.row.crosses)

    def pem(self) -> str:
        """Its certificate, PEM; nothing while it waits for one."""
        found = self.maybe_certificate
        return "" if found is None else found.public_bytes(Encoding.PEM).decode()

    @cached_property
    def sent_along(self) -> str:
        """What a server sends behind a certificate that it issued, PEM: itself and those above it, no roots."""
        above = (self.certificate, *self.chain)
        return "".join(one.public_bytes(Encoding.PEM).decode() for one in above if one.issuer != one.subject)

    def issuer(self, urls: Urls, shard: int = 0) -> Issuer:
        """What certificates, CRLs and answers say of it. Raises AuthorityStateError."""
        return Issuer(
            name=self.subject,
            public_key=self.public_key,
            scheme=self.scheme,
            key_identifier=self.key_identifier,
            not_before=self.certificate.not_valid_before_utc,
            not_after=self.certificate.not_valid_after_utc,
            path_length=self.path_length,
            ca_urls=urls.certificate(self),
            crl_urls=urls.crl(self, shard),
            ocsp_urls=urls.ocsp(),
        )

    def must_issue(self) -> None:
        """Raise AuthorityStateError where it issues nothing."""
        if self.row.state is AuthorityState.RETIRED:
            raise AuthorityStateError(
                f"{self.name} is retired and issues nothing", hint="choose another: hsmsign ca update --primary"
            )
        self.certificate  # noqa: B018 - raises where there is none


@dataclass(frozen=True, slots=True)
class Authority:
    """An authority with its versions, the oldest first."""

    row: AuthorityRow
    versions: tuple[Version, ...]

    @property
    def name(self) -> str:
        """cas/ID"""
        return f"cas/{self.row.id}"

    @property
    def primary(self) -> Version:
        """The version that issues; of one that has none yet, the newest. Raises AuthorityStateError."""
        wanted = self.row.primary_version
        found = next((one for one in self.versions if one.row.number == wanted), None)
        if found is None and wanted is None and self.versions:
            found = self.versions[-1]
        if found is None:
            raise AuthorityStateError(f"{self.name} has no version that issues")
        return found


def _read(pem: str) -> tuple[x509.Certificate, ...]:
    return tuple(x509.load_pem_x509_certificates(pem.encode())) if pem else ()

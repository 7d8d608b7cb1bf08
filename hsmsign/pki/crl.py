"""CRLs (RFC 5280, section 5), in pieces: one of a million entries is never in memory as a whole.

    opening  before  entries ... entries  after  closing
             '-------- TBSCertList ----------'

`frame` makes what stands in the TBSCertList around its entries, `close` what stands around the TBSCertList once it is
signed. How long the entries are has to be known first; what they are has not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from hsmsign.model.algorithms import Scheme
from hsmsign.model.signed_der import SEQUENCE, algorithm, element, ending, header
from hsmsign.pki.crl_entries import encode_extensions, encode_time

_VERSION = bytes.fromhex("020101")
"""v2, whose number is 1."""
_EXTENSIONS = 0xA0
"""[0] EXPLICIT."""


@dataclass(frozen=True, slots=True)
class ShardName:
    """The part of an authority's certificates that a CRL speaks of (RFC 5280, section 5.2.5).

    Raises ValueError where it says nothing, or that there are only user's and only CAs' certificates.
    """

    urls: tuple[str, ...] = ()
    """The certificates of this part have one of these as their CRL distribution point."""
    user_certificates_only: bool = False
    ca_certificates_only: bool = False

    def __post_init__(self) -> None:
        self.extension()

    def extension(self) -> x509.IssuingDistributionPoint:
        """The same as the extension of a CRL."""
        names = [x509.UniformResourceIdentifier(url) for url in self.urls]
        return x509.IssuingDistributionPoint(
            full_name=names or None,
            relative_name=None,
            only_contains_user_certs=self.user_certificates_only,
            only_contains_ca_certs=self.ca_certificates_only,
            only_some_reasons=None,
            indirect_crl=False,
            only_contains_attribute_certs=False,
        )


@dataclass(frozen=True, slots=True)
class CrlFacts:
    """What a CRL says beside its entries.

    Times have a time zone; what is less than a second is cut off. Raises ValueError where two facts contradict each
    other, or a time has no zone.
    """

    issuer: x509.Name
    key_identifier: bytes
    """The issuer's subjectKeyIdentifier."""
    scheme: Scheme
    number: int
    this_update: datetime
    next_update: datetime
    base: int | None = None
    """In a delta: the number of the full CRL that it adds to (RFC 5280, section 5.2.4)."""
    shard: ShardName | None = None
    freshest: tuple[str, ...] = ()
    """In a full CRL: where its deltas are (RFC 5280, section 5.2.6)."""

    def __post_init__(self) -> None:
        if self.this_update.tzinfo is None or self.next_update.tzinfo is None:
            raise ValueError("thisUpdate and nextUpdate of a CRL need a time zone")
        if self.next_update <= self.this_update:
            raise ValueError("the nextUpdate of a CRL is after its thisUpdate")
        if self.number < 0 or (self.base is not None and not 0 <= self.base <= self.number):
            raise ValueError("a CRL's number is 0 or above, and a delta's is not below its base's")
        if self.base is not None and self.freshest:
            raise ValueError("a delta CRL does not say where deltas are (RFC 5280, section 5.2.6)")


def frame(facts: CrlFacts, entries_size: int) -> tuple[bytes, bytes]:
    """What stands before entries of so many bytes within the TBSCertList, its own header included, and what after."""
    opening = b"".join(
        (
            _VERSION,
            algorithm(facts.scheme),
            facts.issuer.public_bytes(),
            encode_time(facts.this_update),
            encode_time(facts.next_update),
            # nothing revoked, no list of it (RFC 5280, section 5.1.2.6)
            header(SEQUENCE, entries_size) if entries_size else b"",
        )
    )
    after = element(_EXTENSIONS, element(SEQUENCE, encode_extensions(_extensions(facts))))
    return header(SEQUENCE, len(opening) + entries_size + len(after)) + opening, after


def close(scheme: Scheme, tbs_size: int, signature: bytes) -> tuple[bytes, bytes]:
    """What stands before a TBSCertList of so many bytes in the CertificateList, and what after; both DER."""
    closing = ending(scheme, signature)
    return header(SEQUENCE, tbs_size + len(closing)), closing


def build(facts: CrlFacts, entries: bytes) -> bytes:
    """The whole TBSCertList around entries that are encoded, for a CRL that is small."""
    before, after = frame(facts, len(entries))
    return before + entries + after


def _extensions(facts: CrlFacts) -> Iterator[x509.Extension[x509.ExtensionType]]:
    """In this order, critical where RFC 5280, section 5.2, wants it."""
    yield _extension(x509.AuthorityKeyIdentifier(facts.key_identifier, None, None))
    yield _extension(x509.CRLNumber(facts.number))
    if facts.base is not None:
        yield _extension(x509.DeltaCRLIndicator(facts.base), critical=True)
    if facts.shard is not None:
        yield _extension(facts.shard.extension(), critical=True)
    if facts.freshest:
        names = [x509.UniformResourceIdentifier(url) for url in facts.freshest]
        yield _extension(x509.FreshestCRL([x509.DistributionPoint(names, None, None, None)]))


def _extension(value: x509.ExtensionType, *, critical: bool = False) -> x509.Extension[x509.ExtensionType]:
    return x509.Extension(value.oid, critical, value)

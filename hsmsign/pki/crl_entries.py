"""The entries of a CRL (RFC 5280, section 5.1.2.6), its times and its list of extensions, encoded.

They are written by the declarative ASN.1 of `cryptography`, a few microseconds an entry, because the CRL builder holds
a whole CRL in memory. Its interface is not stable yet: nothing else here uses it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from cryptography import x509
from cryptography.hazmat import asn1

_GENERALIZED_FROM = 2050
"""Years before this one are UTCTime (RFC 5280, section 5.1.2.4)."""
_SERIAL_BITS = 159
"""20 octets, of which one bit is the sign (RFC 5280, section 4.1.2.2)."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A certificate that is revoked. Times have a time zone; what is less than a second is cut off.

    Raises ValueError for a serial number that no certificate can have and for a time without a zone.
    """

    serial: int
    revoked: datetime
    reason: x509.ReasonFlags | None = None
    """`unspecified` is the same as None: it is left out (RFC 5280, section 5.3.1)."""
    invalidity: datetime | None = None
    """Since when it is not to be trusted (RFC 5280, section 5.3.2)."""

    def __post_init__(self) -> None:
        if self.serial <= 0 or self.serial.bit_length() > _SERIAL_BITS:
            raise ValueError(f"no certificate has a serial number below 1 or of more than {_SERIAL_BITS} bits")
        if self.revoked.tzinfo is None or (self.invalidity is not None and self.invalidity.tzinfo is None):
            raise ValueError(f"the times of serial number {self.serial:x} need a time zone")


@asn1.sequence
class _Extension:
    oid: x509.ObjectIdentifier
    critical: Annotated[bool, asn1.Default(False)]
    value: bytes


@asn1.sequence
class _Extensions:
    listed: list[_Extension]


@asn1.sequence
class _Content:
    """The same bytes, the list as it is."""

    listed: asn1.TLV


@asn1.sequence
class _Plain:
    serial: int
    revoked: asn1.UTCTime | asn1.GeneralizedTime


@asn1.sequence
class _Extended:
    serial: int
    revoked: asn1.UTCTime | asn1.GeneralizedTime
    extensions: asn1.TLV


def encode_entries(entries: Iterable[Entry]) -> bytes:
    """The entries one behind the other, DER, without the SEQUENCE around them."""
    return b"".join(map(_encoded, entries))


def encode_time(time: datetime) -> bytes:
    """A Time (RFC 5280, section 4.1.2.5): UTCTime before 2050, then GeneralizedTime; whole seconds, DER."""
    return asn1.encode_der(_time(time))


def encode_extensions(extensions: Iterable[x509.Extension[Any]]) -> bytes:
    """Extensions one behind the other, without the SEQUENCE around them, DER."""
    return b"".join(asn1.encode_der(_extension(one)) for one in extensions)


def _encoded(entry: Entry) -> bytes:
    revoked, extensions = _time(entry.revoked), _extensions(entry.reason, entry.invalidity)
    if extensions is None:
        return asn1.encode_der(_Plain(serial=entry.serial, revoked=revoked))
    return asn1.encode_der(_Extended(serial=entry.serial, revoked=revoked, extensions=extensions))


def _time(time: datetime) -> asn1.UTCTime | asn1.GeneralizedTime:
    time = time.astimezone(UTC)
    if time.microsecond:
        time = time.replace(microsecond=0)
    return asn1.UTCTime(time) if time.year < _GENERALIZED_FROM else asn1.GeneralizedTime(time)


@functools.lru_cache(256)
def _extensions(reason: x509.ReasonFlags | None, invalidity: datetime | None) -> asn1.TLV | None:
    """What stands in the entries with this reason; most of a CRL shares a handful of them."""
    found: list[x509.ExtensionType] = []
    if reason is not None and reason is not x509.ReasonFlags.unspecified:
        found.append(x509.CRLReason(reason))
    if invalidity is not None:
        found.append(x509.InvalidityDate(invalidity))
    if not found:
        return None
    listed = [_extension(x509.Extension(one.oid, False, one)) for one in found]
    return asn1.decode_der(_Content, asn1.encode_der(_Extensions(listed=listed))).listed


def _extension(extension: x509.Extension[Any]) -> _Extension:
    return _Extension(oid=extension.oid, critical=extension.critical, value=extension.value.public_bytes())

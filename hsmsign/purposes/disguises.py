"""Whether what is signed in TLS 1.2 could be X.509 to somebody.

A key exchange begins with bytes that the caller chose (RFC 8422, section 5.4). Programs that verify certificates read
more than DER: lengths that are longer than need be or not said at all (X.690, section 8.1.3), tags of several bytes
where one would do (OpenSSL takes them). So nothing may look like the beginning of a certificate, however loosely read.
"""

from __future__ import annotations

_SEQUENCE = 0x30
_FIRST = (0x02, 0x30, 0xA0, 0xA1, 0xA2)
"""What stands first in a TBSCertificate, a TBSCertList, a CertificationRequestInfo or a ResponseData: an INTEGER, a
SEQUENCE, or [0], [1], [2]."""
_MANY = 0x1F
_INDEFINITE = 0x80


def like_x509(message: bytes) -> bool:
    """Whether it is a SEQUENCE in any form of BER, as long as the message, that begins as something of X.509 does.

    Of messages that begin with 32 random bytes that is one in 3.3 million (5 in 2**24: a length that is not said), and
    one in 1.7 million where a length of one byte could be theirs: with X25519 and X448.
    """
    tag, at = _tag(message, 0)
    if tag != _SEQUENCE or at >= len(message):
        return False
    said, at = message[at], at + 1
    if said > _INDEFINITE:
        count = said - _INDEFINITE
        size, at = int.from_bytes(message[at : at + count]), at + count
    else:
        size = len(message) - at if said == _INDEFINITE else said
    return at + size == len(message) and _tag(message, at)[0] in _FIRST


def _tag(message: bytes, at: int) -> tuple[int, int]:
    """An identifier in its shortest form, whatever form it has, and where it ends; -1 for what has no short one."""
    if at >= len(message):
        return -1, at
    first, at = message[at], at + 1
    if first & _MANY != _MANY:
        return first, at
    while at < len(message) and message[at] == 0x80:
        at += 1
    if at >= len(message) or message[at] >= _MANY:
        return -1, at
    return first & ~_MANY | message[at], at + 1

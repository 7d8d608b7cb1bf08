"""What is signed in a TLS handshake.

TLS 1.3 says what a signature is for in what is signed (RFC 8446, section 4.4.3). TLS 1.2 does not: a server signs
two randoms and its ephemeral key (RFC 8422, section 5.4), a client the handshake so far (RFC 5246, section 7.4.8).
Only ephemeral EC keys are known here: they have a fixed length, so nothing else can be hidden in them.
"""

from __future__ import annotations

from hsmsign.purposes.mismatch import Mismatch

_RANDOMS = 64
_NAMED_CURVE = 3
_POINTS = {0x0017: (65, 4), 0x0018: (97, 4), 0x0019: (133, 4), 0x001D: (32, None), 0x001E: (56, None)}
"""Length and first byte of a public key by its group: P-256, P-384, P-521, X25519, X448."""
_HASHES = (32, 48)
"""Lengths of a transcript's hash: those of the cipher suites of TLS 1.3."""
_HELLO, _SERVER_HELLO, _CERTIFICATE, _CERTIFICATE_REQUEST, _KEY_EXCHANGE = 1, 2, 11, 13, 16


def check_server(message: bytes) -> None:
    """Raise Mismatch unless a TLS server signs such a message."""
    if not (_is_verify(message, b"server") or _is_key_exchange(message)):
        raise Mismatch("CertificateVerify of a TLS 1.3 server, or ServerKeyExchange (ECDHE) of TLS 1.2")


def check_client(message: bytes) -> None:
    """Raise Mismatch unless a TLS client signs such a message."""
    if not (_is_verify(message, b"client") or _is_handshake(message)):
        raise Mismatch("CertificateVerify of a TLS 1.3 or TLS 1.2 client")


def _is_verify(message: bytes, side: bytes) -> bool:
    start = b" " * 64 + b"TLS 1.3, " + side + b" CertificateVerify\0"
    return message.startswith(start) and len(message) - len(start) in _HASHES


def _is_key_exchange(message: bytes) -> bool:
    params = message[_RANDOMS:]
    if len(params) < 4 or params[0] != _NAMED_CURVE:
        return False
    length, first = _POINTS.get(int.from_bytes(params[1:3]), (0, None))
    point = params[4:]
    return 0 < length == len(point) == params[3] and first in (None, point[0])


def _is_handshake(message: bytes) -> bool:
    """From ClientHello to ClientKeyExchange, each message whole (RFC 5246, section 7.4)."""
    kinds = []
    at = 0
    while at + 4 <= len(message):
        kinds.append(message[at])
        at += 4 + int.from_bytes(message[at + 1 : at + 4])
    return (
        at == len(message)
        and kinds[:2] == [_HELLO, _SERVER_HELLO]
        and kinds[-1] == _KEY_EXCHANGE
        and kinds.count(_HELLO) == kinds.count(_SERVER_HELLO) == kinds.count(_KEY_EXCHANGE) == 1
        and _CERTIFICATE in kinds
        and _CERTIFICATE_REQUEST in kinds
    )

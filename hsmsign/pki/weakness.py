"""Public keys that are known to be weak, or of a kind that is not certified.

What is known of RSA keys is the work of badkeys (https://badkeys.info/): its checks that are arithmetic on the modulus
or use data that it ships. Its blocklists (of the Debian keys of 2008, for one) are not shipped and not asked.

RSA keys are for a thread: 2048 or 4096 bits are checked in about 0.6 ms, the first one in 10 ms, one with an exponent
of 256 bits in 2 ms. EC and Ed25519 keys take microseconds.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from hsmsign.model.errors import WeakKeyError

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

RSA_BITS_MIN, RSA_BITS_MAX = 2048, 8192
EXPONENT_BITS_MAX = 256
"""FIPS 186-5, appendix A.1.1: 2^16 < e < 2^256, and odd."""
_EXPONENT_MIN = 65_537
_MAKE_ANOTHER = "make a new key, with software that is kept up to date"
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
_FIELD = 2**255 - 19
_ORDER_8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022
_SMALL_ORDER = frozenset({0, 1, _FIELD - 1, _ORDER_8, _FIELD - _ORDER_8})
"""y of the points of Curve25519 (RFC 8032) whose order divides 8: signatures by them can be made by anybody."""


def check_key(public_key: object) -> PublicKey:
    """The key, if nothing is known against it. Raises WeakKeyError, with the name of the check in `metadata`.

    Curves of EC keys are left to the profile; `cryptography` has refused points that are on none.
    """
    known = check_kind(public_key)
    if isinstance(known, rsa.RSAPublicKey):
        _check_rsa(known.public_numbers())
    elif isinstance(known, ed25519.Ed25519PublicKey):
        _check_ed25519(known.public_bytes_raw())
    return known


def check_kind(public_key: object) -> PublicKey:
    """The key, if it is of a kind and size that can be certified at all: cheap, and before its signature is checked.

    Raises WeakKeyError.
    """
    if not isinstance(public_key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
        raise _weak("kind", "the key is of a kind that is not certified", "use an EC, RSA or Ed25519 key")
    if isinstance(public_key, rsa.RSAPublicKey) and not RSA_BITS_MIN <= public_key.key_size <= RSA_BITS_MAX:
        raise _weak(
            "size",
            f"the RSA key has {public_key.key_size} bits",
            f"make one of {RSA_BITS_MIN} to {RSA_BITS_MAX} bits; 3072 are good",
        )
    return public_key


def takes_long(public_key: PublicKey) -> bool:
    """Whether `check_key` is for a thread, not for an event loop."""
    return isinstance(public_key, rsa.RSAPublicKey)


def describe(public_key: PublicKey) -> str:
    """The kind of key, for people: `EC P-256`, `RSA 2048`, `Ed25519`."""
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        return f"EC {_CURVES.get(public_key.curve.name, public_key.curve.name)}"
    return f"RSA {public_key.key_size}" if isinstance(public_key, rsa.RSAPublicKey) else "Ed25519"


def _check_rsa(numbers: rsa.RSAPublicNumbers) -> None:
    n, e = numbers.n, numbers.e
    if n % 2 == 0:
        raise _weak("modulus", "the RSA key is none: its modulus is even", _MAKE_ANOTHER)
    if e < _EXPONENT_MIN or e % 2 == 0 or e.bit_length() > EXPONENT_BITS_MAX:
        raise _weak(
            "exponent",
            "the RSA key has a public exponent that is even, below 65537 or above 2^256",
            "make a new key with the exponent 65537",
        )
    from hsmsign.pki.rsa_checks import CHECKS  # not small, and not every authority is asked about RSA keys

    for check, found in CHECKS.items():
        if check(n, e=e) is not False:
            raise _weak(check.__name__, f"the RSA key is known to be weak: {found}", _MAKE_ANOTHER)


def _check_ed25519(raw: bytes) -> None:
    y = int.from_bytes(raw, "little") & ((1 << 255) - 1)
    if y >= _FIELD or y in _SMALL_ORDER:
        raise _weak("point", "the Ed25519 key is a point of small order, or none as RFC 8032 writes it", _MAKE_ANOTHER)


def _weak(check: str, message: str, hint: str) -> WeakKeyError:
    return WeakKeyError(message, hint=hint, metadata={"check": check})

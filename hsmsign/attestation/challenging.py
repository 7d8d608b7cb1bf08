"""A challenge that only one TPM can open: TPM2_MakeCredential without a TPM (Part 1, section 24 and annexes B, C).

Whoever opens it has an endorsement key and, in the same TPM, the attestation key that the challenge names. That the
two belong together nothing else shows.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hmac
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode

from hsmsign.attestation import structures
from hsmsign.attestation.verifying import Evidence, verify
from hsmsign.model.attestation import Challenge
from hsmsign.model.errors import AttestationError

_SECRET_SIZE = 32


def challenge(
    document: bytes, *, ek_roots: Sequence[x509.Certificate], time: dt.datetime | None = None
) -> tuple[Challenge, bytes]:
    """A challenge for the TPM of an attestation, and the secret in it, which `verify` is given with the answer.

    The endorsement certificate is checked first. Raises AttestationError.
    """
    attested = verify(document, ek_roots=ek_roots, time=time)
    if attested.evidence is not Evidence.TPM2_CERTIFY:
        raise AttestationError("only a TPM can be challenged, and this attestation is not by one")
    secret = os.urandom(_SECRET_SIZE)
    try:
        return Challenge(*make_credential(attested.ek_public, attested.ak_name, secret)), secret
    except ValueError as error:
        raise AttestationError(f"the TPM cannot be challenged: {error}") from error


def make_credential(ek_public: bytes, name: bytes, secret: bytes) -> tuple[bytes, bytes]:
    """TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET for whoever has the endorsement key (TPMT_PUBLIC) and an object of
    that name. Raises ValueError."""
    ek = structures.public(ek_public)
    if not ek.symmetric_bits:
        raise ValueError("the endorsement key is no storage key")
    seed, encrypted = _seed(ek)
    cipher = Cipher(AES(_kdfa(ek, seed, b"STORAGE", name, ek.symmetric_bits)), CFB(bytes(16))).encryptor()
    identity = cipher.update(_sized(secret)) + cipher.finalize()
    outer = hmac.HMAC(_kdfa(ek, seed, b"INTEGRITY", b"", ek.name_hash.digest_size * 8), ek.name_hash)
    outer.update(identity + name)
    return _sized(_sized(outer.finalize()) + identity), _sized(encrypted)


def _seed(ek: structures.Public) -> tuple[bytes, bytes]:
    """A seed, and how only the holder of the endorsement key learns it."""
    key, algorithm = ek.key, ek.name_hash
    if isinstance(key, rsa.RSAPublicKey):
        seed = os.urandom(algorithm.digest_size)
        oaep = padding.OAEP(padding.MGF1(algorithm), algorithm, b"IDENTITY\0")
        return seed, key.encrypt(seed, oaep)
    ephemeral = ec.generate_private_key(key.curve)
    shared = ephemeral.exchange(ec.ECDH(), key)
    ours, theirs = _point(ephemeral.public_key()), _point(key)
    party = b"IDENTITY\0" + ours[0] + theirs[0]
    seed = ConcatKDFHash(algorithm, algorithm.digest_size, party).derive(shared)  # KDFe (Part 1, section 11.4.10.3)
    return seed, _sized(ours[0]) + _sized(ours[1])


def _point(key: ec.EllipticCurvePublicKey) -> tuple[bytes, bytes]:
    numbers, size = key.public_numbers(), (key.curve.key_size + 7) // 8
    return numbers.x.to_bytes(size, "big"), numbers.y.to_bytes(size, "big")


def _kdfa(ek: structures.Public, seed: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """KDFa (Part 1, section 11.4.10.2): SP 800-108 in counter mode."""
    kdf = KBKDFHMAC(
        algorithm=ek.name_hash,
        mode=Mode.CounterMode,
        length=bits // 8,
        rlen=4,
        llen=4,
        location=CounterLocation.BeforeFixed,
        label=label,
        context=context,
        fixed=None,
    )
    return kdf.derive(seed)


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data

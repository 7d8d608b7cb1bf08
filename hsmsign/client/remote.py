"""Private keys that are elsewhere: what `cryptography` calls a private key, with a device behind it.

Each is a real subclass of the abstract class of its family, so that X.509, CSR, CRL and OCSP builders,
PyJWT and josepy take it. None can be exported: PrivateKeyExportError says so.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NoReturn, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import load_der_public_key

from hsmsign.client.values import PublicKeyInfo
from hsmsign.model.algorithms import Family, KeyAlgorithm, Scheme
from hsmsign.model.errors import PrivateKeyExportError

if TYPE_CHECKING:
    from hsmsign.client.client import Client

MESSAGE_MAX = 1 << 20
"""Messages up to this size (what a daemon takes) travel as they are, so that it can see what a key signs; of larger
ones the digest does."""


class _Remote:
    """What the three families share: the client, the version that signs, the public key."""

    def __init__(self, client: Client, info: PublicKeyInfo) -> None:
        self._client = client
        self._info = info
        self._public: Any = load_der_public_key(info.der)

    @property
    def key_version(self) -> str:
        """The version that signs: `keys/ID/versions/N`."""
        return self._info.key_version

    @property
    def algorithm(self) -> KeyAlgorithm:
        """What kind of key it is."""
        return self._info.algorithm

    def public_key(self) -> Any:
        """The public key; no call is made."""
        return self._public

    def private_bytes(self, encoding: object = None, format: object = None, encryption_algorithm: object = None) -> Any:
        """Always raises PrivateKeyExportError."""
        self._refuse_export()

    def private_bytes_raw(self) -> bytes:
        """Always raises PrivateKeyExportError."""
        self._refuse_export()

    def private_numbers(self) -> Any:
        """Always raises PrivateKeyExportError."""
        self._refuse_export()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} cannot be pickled: connect in the other process and ask for the key there")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key_version} at {self._client.endpoint.target}>"

    def _refuse_export(self) -> NoReturn:
        raise PrivateKeyExportError(
            f"the private key of {self.key_version} is on a device and cannot be exported",
            hint="sign with key.sign(...); the public part is key.public_key()",
        )

    def _sign(self, data: bytes, algorithm: hashes.HashAlgorithm | utils.Prehashed, scheme: Scheme) -> bytes:
        data = bytes(data)
        if isinstance(algorithm, utils.Prehashed):
            return self._client.sign(self.key_version, digest=data, scheme=scheme).value
        if len(data) <= MESSAGE_MAX and data:
            return self._client.sign(self.key_version, message=data, scheme=scheme).value
        digest = hashlib.new(algorithm.name, data).digest()
        return self._client.sign(self.key_version, digest=digest, scheme=scheme).value


class RemoteEllipticCurvePrivateKey(_Remote, ec.EllipticCurvePrivateKey):
    """An EC key on a device. Signs with ECDSA and the hash of its curve; the signature is DER."""

    @property
    def curve(self) -> ec.EllipticCurve:
        """The curve."""
        curve: ec.EllipticCurve = self._public.curve
        return curve

    @property
    def key_size(self) -> int:
        """Bits of the curve's field."""
        return self.curve.key_size

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:
        """Always raises UnsupportedAlgorithm: keys here sign and do nothing else."""
        raise UnsupportedAlgorithm(f"{self.key_version} signs only; key agreement is not offered")

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """Sign, as `cryptography` has it. Raises UnsupportedAlgorithm for a hash that is not the curve's."""
        if not isinstance(signature_algorithm, ec.ECDSA):
            raise UnsupportedAlgorithm(f"{self.key_version} signs with ECDSA, not {signature_algorithm!r}")
        if getattr(signature_algorithm, "deterministic_signing", False):
            raise UnsupportedAlgorithm(
                f"{self.key_version} is on a device, which chooses its nonces itself: leave out deterministic_signing"
            )
        scheme = self.algorithm.schemes[0]
        used, wanted = _hash_name(signature_algorithm.algorithm), scheme.hash
        if wanted is None or used != wanted.value:
            raise UnsupportedAlgorithm(
                f"{self.key_version} ({self.algorithm.value}) signs with {wanted.name if wanted else '?'}, not {used}:"
                f" say ec.ECDSA(hashes.{wanted.name if wanted else '?'}())"
            )
        return self._sign(data, signature_algorithm.algorithm, scheme)


class RemoteRSAPrivateKey(_Remote, rsa.RSAPrivateKey):
    """An RSA key on a device. Signs with PKCS #1 v1.5 or PSS and SHA-256, SHA-384 or SHA-512."""

    @property
    def key_size(self) -> int:
        """Bits of the modulus."""
        size: int = self._public.key_size
        return size

    def decrypt(self, ciphertext: bytes, padding: Any) -> bytes:
        """Always raises UnsupportedAlgorithm: keys here sign and do nothing else."""
        raise UnsupportedAlgorithm(f"{self.key_version} signs only; decryption is not offered")

    def sign(self, data: Any, padding: Any, algorithm: Any) -> bytes:
        """Sign, as `cryptography` has it. Raises UnsupportedAlgorithm for what no scheme has."""
        if isinstance(algorithm, utils.NoDigestInfo):
            raise UnsupportedAlgorithm("PKCS #1 v1.5 without DigestInfo is not offered: name a hash")
        used = _hash_name(algorithm)
        if used not in ("sha256", "sha384", "sha512"):
            raise UnsupportedAlgorithm(f"{self.key_version} signs with SHA256, SHA384 or SHA512, not {used}")
        return self._sign(data, algorithm, Scheme[f"RSA_{_padding_name(padding, used)}_{used.upper()}"])


class RemoteEd25519PrivateKey(_Remote, ed25519.Ed25519PrivateKey):
    """An Ed25519 key on a device. Signs whole messages, as large as the daemon takes (1 MiB)."""

    def sign(self, data: Any) -> bytes:
        """Sign the message."""
        return self._client.sign(self.key_version, message=bytes(data), scheme=Scheme.ED25519).value


RemoteSigner = RemoteEllipticCurvePrivateKey | RemoteRSAPrivateKey | RemoteEd25519PrivateKey


def remote_signer(client: Client, info: PublicKeyInfo) -> RemoteSigner:
    """The private key that belongs to a version's public key."""
    if info.algorithm.family is Family.EC:
        return RemoteEllipticCurvePrivateKey(client, info)
    if info.algorithm.family is Family.RSA:
        return RemoteRSAPrivateKey(client, info)
    return RemoteEd25519PrivateKey(client, info)


def _hash_name(algorithm: hashes.HashAlgorithm | utils.Prehashed) -> str:
    # Prehashed keeps its hash to itself; its public part is the length only
    return str((algorithm._algorithm if isinstance(algorithm, utils.Prehashed) else algorithm).name)


def _padding_name(chosen: object, hash_name: str) -> str:
    """The scheme's word for a padding. PSS must be as the schemes pin it: MGF1 and salt by the same hash."""
    if isinstance(chosen, padding.PKCS1v15):
        return "PKCS1"
    if not isinstance(chosen, padding.PSS):
        raise UnsupportedAlgorithm(f"RSA signs with padding.PKCS1v15() or padding.PSS(...), not {chosen!r}")
    size = getattr(hashes, hash_name.upper()).digest_size
    salt, mgf = chosen._salt_length, chosen.mgf
    if not isinstance(mgf, padding.MGF1) or mgf._algorithm.name != hash_name:
        raise UnsupportedAlgorithm(f"PSS takes MGF1 with the same hash: padding.MGF1(hashes.{hash_name.upper()}())")
    if salt is not padding.PSS.DIGEST_LENGTH and salt != size:
        raise UnsupportedAlgorithm(
            f"PSS takes a salt as long as the hash: salt_length=padding.PSS.DIGEST_LENGTH, or {size}"
        )
    return "PSS"

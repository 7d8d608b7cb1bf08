"""Device keys as SSH has them: blobs of public keys, algorithms, blobs of signatures."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificate,
    load_der_public_key,
    load_ssh_public_identity,
)

from hsmsign.client.values import PublicKeyInfo
from hsmsign.model.algorithms import Family, Scheme
from hsmsign.model.errors import CapabilityMissingError, ConfigurationError
from hsmsign.ssh.wire import Flag, string

_CERTIFICATE_MAX = 64 * 1024
_NAMES = {
    Scheme.ECDSA_P256_SHA256: "ecdsa-sha2-nistp256",
    Scheme.ECDSA_P384_SHA384: "ecdsa-sha2-nistp384",
    Scheme.ECDSA_P521_SHA512: "ecdsa-sha2-nistp521",
    Scheme.ED25519: "ssh-ed25519",
    Scheme.RSA_PKCS1_SHA256: "rsa-sha2-256",
    Scheme.RSA_PKCS1_SHA512: "rsa-sha2-512",
}


@dataclass(frozen=True, slots=True)
class Identity:
    """What the agent offers: a key version, under the blob of its public key or of a certificate for it."""

    blob: bytes
    """RFC 4253, section 6.6; for certificates OpenSSH's PROTOCOL.certkeys."""
    comment: str
    key: PublicKeyInfo

    @property
    def fingerprint(self) -> str:
        """As ssh-add -l shows it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    def scheme(self, flags: Flag) -> Scheme:
        """How it signs. Raises CapabilityMissingError for ssh-rsa, which is with SHA-1."""
        if self.key.algorithm.family is not Family.RSA:
            return self.key.algorithm.scheme(None)
        if flags & Flag.RSA_SHA2_512:  # OpenSSH prefers it, too, where a client sets both
            return Scheme.RSA_PKCS1_SHA512
        if flags & Flag.RSA_SHA2_256:
            return Scheme.RSA_PKCS1_SHA256
        raise CapabilityMissingError(
            "ssh-rsa signs with SHA-1, which is not offered", hint="use rsa-sha2-256 or rsa-sha2-512 (OpenSSH 7.2)"
        )


def identity(key: PublicKeyInfo) -> Identity:
    """The identity of a key."""
    return Identity(base64.b64decode(line(key).split()[1]), key.key_version, key)


def line(key: PublicKeyInfo) -> str:
    """A line for authorized_keys, without a comment."""
    return load_der_public_key(key.der).public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def certified(path: Path, keys: list[PublicKeyInfo]) -> Identity:
    """The identity of a certificate in a file (NAME-cert.pub) for one of the keys. Raises ConfigurationError."""
    try:
        content = path.open("rb").read(_CERTIFICATE_MAX)
    except OSError as error:
        raise ConfigurationError(f"cannot read the certificate {path}: {error.strerror}") from error
    try:
        certificate = load_ssh_public_identity(content)
        blob = base64.b64decode(content.split()[1], validate=True)
    except (ValueError, IndexError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(
            f"{path} is no SSH certificate: {error}", hint="ssh-keygen -s CA -I ID NAME.pub makes NAME-cert.pub"
        ) from None
    if not isinstance(certificate, SSHCertificate):
        raise ConfigurationError(f"{path} is a public key, not a certificate", hint="its name ends with -cert.pub")
    public = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for key in keys:
        if key.der == public:
            return Identity(blob, f"{key.key_version} {path.name}", key)
    raise ConfigurationError(
        f"{path} is for none of the keys that the agent offers", hint="name its key with --key, or take the file away"
    )


def signature(scheme: Scheme, value: bytes) -> bytes:
    """The blob of a signature (RFC 5656, section 3.1.2; RFC 8332, section 3; RFC 8709, section 6)."""
    if scheme.family is Family.EC:
        value = b"".join(string(_mpint(number)) for number in decode_dss_signature(value))
    return string(_NAMES[scheme].encode()) + string(value)


def _mpint(number: int) -> bytes:
    """RFC 4251, section 5: no more bytes than it needs, and none that makes it negative."""
    return number.to_bytes(number.bit_length() // 8 + 1) if number else b""

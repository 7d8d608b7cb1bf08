"""Questions to an OCSP responder."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from hsmsign.model.algorithms import Scheme
from tests.support.private_keys import TestCa, openssl, private_key

HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),
    "sha224": hashes.SHA224(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
CA = TestCa.make()
LEAF = CA.issue(private_key(Scheme.ECDSA_P256_SHA256, "leaf"))


def asked(
    *extensions: x509.ExtensionType, hash_name: str = "sha1", critical: bool = False, serial: int | None = None
) -> bytes:
    """A request about the leaf, or about another serial number of an unknown issuer."""
    hash, builder = HASHES[hash_name], ocsp.OCSPRequestBuilder()
    if serial is None:
        builder = builder.add_certificate(LEAF, CA.certificate, hash)
    else:
        value = bytes(hash.digest_size)
        builder = builder.add_certificate_by_hash(value, value, serial, hash)
    for one in extensions:
        builder = builder.add_extension(one, critical=critical)
    return builder.build().public_bytes(Encoding.DER)


def openssl_request(*arguments: str | Path, folder: Path) -> bytes:
    """The request that `openssl ocsp` makes; it stays in the folder as request.der."""
    code, said = openssl("ocsp", *arguments, "-reqout", folder / "request.der")
    assert code == 0, said
    return (folder / "request.der").read_bytes()

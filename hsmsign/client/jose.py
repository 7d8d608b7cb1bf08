"""josepy (and with it ACME) on a remote key. Wants josepy, which hsmsign does not install.

josepy's JWK classes read the private numbers of a private key when they are written as JSON or hashed to
a thumbprint, although RFC 7638 thumbprints are of the public part. These write the public part.
"""

from __future__ import annotations

from typing import Any

from josepy.jwk import JWK, JWKEC, JWKRSA

from hsmsign.client.remote import RemoteEd25519PrivateKey, RemoteEllipticCurvePrivateKey, RemoteSigner
from hsmsign.model.errors import CapabilityMissingError


class _RemoteJWKEC(JWKEC):
    __slots__ = ("key",)

    def public_key(self) -> JWKEC:
        return JWKEC(key=self.key.public_key())

    def fields_to_partial_json(self) -> dict[str, Any]:
        return dict(self.public_key().fields_to_partial_json())


class _RemoteJWKRSA(JWKRSA):
    __slots__ = ("key",)

    def fields_to_partial_json(self) -> dict[str, Any]:
        return dict(self.public_key().fields_to_partial_json())

    def public_key(self) -> JWKRSA:
        return JWKRSA(key=self.key.public_key())


def jwk(key: RemoteSigner) -> JWK:
    """A JWK that signs through the daemon and, as JSON, has the public part only."""
    if isinstance(key, RemoteEd25519PrivateKey):
        raise CapabilityMissingError("josepy has no Ed25519 keys", hint="use an EC or RSA key")
    if isinstance(key, RemoteEllipticCurvePrivateKey):
        return _RemoteJWKEC(key=key)
    return _RemoteJWKRSA(key=key)

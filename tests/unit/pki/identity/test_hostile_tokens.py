"""Bytes that nobody meant to send: whatever is no token ends in a refusal, and what is one was signed."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from hsmsign.model.errors import IdentityTokenError
from hsmsign.pki.identity.verifying import Identities
from tests.fuzz.mutate import mutate
from tests.support.token_issuer import SigningKey, TokenIssuer, signed, spki

SPKI = spki(ec.generate_private_key(ec.SECP256R1()))


def identity_token(identities: Identities, data: bytes) -> bool:
    """Whether it vouches. Lets nothing but a refusal escape."""
    try:
        found = asyncio.run(identities.verify(data.decode("utf-8", "surrogateescape"), SPKI))
    except IdentityTokenError:
        return False
    assert found.names
    return True


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[TokenIssuer, Identities]:
    with TokenIssuer() as issuer:
        issuer.keys.append(SigningKey.make("EdDSA"))
        path = issuer.write(tmp_path_factory.mktemp("identity") / "jwks.json")
    rules = issuer.rules(jwks_url="", jwks_file=Path(path), algorithms=("ES256", "EdDSA"))
    return issuer, Identities([rules])


def test_a_token_that_was_changed_anywhere_is_refused(keys: tuple[TokenIssuer, Identities]) -> None:
    issuer, identities = keys
    good = [issuer.token().encode(), issuer.token(key=issuer.keys[1]).encode()]
    chance = random.Random(20_261_125)
    for one in good:
        assert identity_token(identities, one)
    for _ in range(1500):
        data = mutate(chance, good)
        assert data in good or not identity_token(identities, data)


@given(header=st.binary(max_size=200), payload=st.binary(max_size=200))
def test_a_key_holder_that_signs_anything_at_all_is_refused(
    keys: tuple[TokenIssuer, Identities], header: bytes, payload: bytes
) -> None:
    issuer, identities = keys
    assert not identity_token(identities, signed(header, payload, issuer.keys[0]).encode())


def test_an_issuer_that_was_broken_into_breaks_nothing_here(keys: tuple[TokenIssuer, Identities]) -> None:
    """Changed header and claims under a good signature."""
    issuer, identities = keys
    key = issuer.keys[0]
    header = f'{{"alg":"ES256","kid":"{key.kid}","typ":"JWT"}}'.encode()
    claims = str(issuer.claims(jti="a", nbf=1)).replace("'", '"').encode()
    assert identity_token(identities, signed(header, claims, key).encode())
    chance = random.Random(7)
    for _ in range(1500):
        identity_token(identities, signed(mutate(chance, [header]), claims, key).encode())
        identity_token(identities, signed(header, mutate(chance, [claims]), key).encode())

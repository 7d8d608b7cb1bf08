"""Weak keys are refused by name; good ones are not."""

from __future__ import annotations

import random
from typing import Any

import gmpy2
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519

from hsmsign.model.errors import WeakKeyError
from hsmsign.pki import weakness
from tests.support import csrs

P256 = csrs.KEY.public_key()
GOOD = csrs.rsa_key().public_key().public_numbers()
SMALL_ORDER = {
    "zero": "00" * 32,
    "one": "01" + "00" * 31,
    "minus one": "ec" + "ff" * 30 + "7f",
    "order 8": "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "order 8, too": "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "the field": "ed" + "ff" * 30 + "7f",
    "not reduced": "ee" + "ff" * 31,
    "one, with a sign": "01" + "00" * 30 + "80",
}


def refused_by(key: object) -> str:
    """The check that refuses it; empty where none does."""
    try:
        weakness.check_key(key)
    except WeakKeyError as error:
        return error.metadata["check"]
    return ""


def numbers(n: int, e: int = 65_537) -> Any:
    """A public key that no loader has seen; `cryptography` itself refuses some."""
    return rsa.RSAPublicNumbers(e, n)


@pytest.mark.parametrize(
    "key",
    [
        P256,
        ec.generate_private_key(ec.SECP521R1()).public_key(),
        csrs.rsa_key().public_key(),
        csrs.rsa_key(3072).public_key(),
        ed25519.Ed25519PrivateKey.generate().public_key(),
    ],
    ids=["P-256", "P-521", "RSA 2048", "RSA 3072", "Ed25519"],
)
def test_nothing_is_known_against_a_fresh_key(key: Any) -> None:
    assert weakness.check_key(key) is key


@pytest.mark.parametrize(
    "key",
    [
        dsa.generate_private_key(2048).public_key(),
        x25519.X25519PrivateKey.generate().public_key(),
        ed448.Ed448PrivateKey.generate().public_key(),
        None,
    ],
    ids=["DSA", "X25519", "Ed448", "none"],
)
def test_a_key_of_another_kind_is_not_certified(key: object) -> None:
    assert refused_by(key) == "kind"


def test_an_rsa_key_has_2048_to_8192_bits() -> None:
    assert refused_by(csrs.rsa_key(1024).public_key()) == "size"
    assert refused_by(numbers((1 << 8192) + 1).public_key()) == "size"
    assert refused_by(numbers((1 << 2046) + 1).public_key()) == "size"


BAD_EXPONENTS = {
    **{str(e): e for e in (1, 2, 3, 17, 65_536, 65_538)},
    "257 bits": (1 << 256) + 1,
    "nearly the modulus": GOOD.n - 2,
}


@pytest.mark.parametrize("e", BAD_EXPONENTS.values(), ids=BAD_EXPONENTS)
def test_a_bad_exponent_is_refused(e: int) -> None:
    with pytest.raises(WeakKeyError) as found:
        weakness._check_rsa(numbers(GOOD.n, e))
    assert found.value.metadata["check"] == "exponent"


def test_an_even_modulus_is_refused() -> None:
    with pytest.raises(WeakKeyError, match="even"):
        weakness._check_rsa(numbers(GOOD.n + 1))


def test_a_key_of_a_faulty_chip_is_refused() -> None:
    assert refused_by(csrs.roca_key().public_key()) == "roca"


def test_primes_near_to_each_other_are_found() -> None:
    assert refused_by(csrs.near_primes_key().public_key()) == "fermat"


def test_a_square_is_refused() -> None:
    p = csrs.rsa_key().private_numbers().p
    assert refused_by(numbers(p * p).public_key()) == "fermat"


def test_a_small_factor_is_found() -> None:
    p = csrs.rsa_key().private_numbers().p
    q = int(gmpy2.next_prime(GOOD.n // p // 65_521))
    assert refused_by(numbers(65_521 * p * q).public_key()) == "smallfactors"


def test_a_repeated_byte_in_the_modulus_is_refused() -> None:
    n = GOOD.n >> 1100 << 1100 | int.from_bytes(b"\xaa" * 20) << 900 | GOOD.n % (1 << 900)
    assert refused_by(numbers(n).public_key()) == "pattern"


def test_a_modulus_of_few_ones_is_refused() -> None:
    bits = random.Random(7)
    few = bits.getrandbits(2048) & bits.getrandbits(2048) | 1 << 2047
    assert refused_by(numbers(int(gmpy2.next_prime(few))).public_key()) == "rsapoly"


def test_a_small_private_exponent_is_found() -> None:
    private = csrs.rsa_key().private_numbers()
    phi = (private.p - 1) * (private.q - 1)
    d = int(gmpy2.next_prime(1 << 200))
    with pytest.raises(WeakKeyError):
        # e is as large as the modulus: refused for that alone
        weakness._check_rsa(numbers(GOOD.n, pow(d, -1, phi)))


@pytest.mark.parametrize("name", SMALL_ORDER)
def test_an_ed25519_key_that_signs_for_anybody_is_refused(name: str) -> None:
    key = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(SMALL_ORDER[name]))
    assert refused_by(key) == "point"


def test_a_refusal_says_what_to_do_and_shows_no_key() -> None:
    key = csrs.near_primes_key().public_key()
    with pytest.raises(WeakKeyError) as found:
        weakness.check_key(key)
    assert found.value.hint
    assert str(key.public_numbers().n) not in found.value.message


def test_only_rsa_keys_take_long() -> None:
    assert weakness.takes_long(csrs.rsa_key().public_key())
    assert not weakness.takes_long(P256)


def test_a_key_is_described_for_people() -> None:
    assert weakness.describe(P256) == "EC P-256"
    assert weakness.describe(csrs.rsa_key().public_key()) == "RSA 2048"
    assert weakness.describe(ec.generate_private_key(ec.SECP256K1()).public_key()) == "EC secp256k1"

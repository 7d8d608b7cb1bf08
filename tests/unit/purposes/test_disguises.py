"""Key exchanges of TLS 1.2 that are something of X.509 as well, to whoever reads more than DER."""

from __future__ import annotations

import itertools
import os

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from hsmsign.model.algorithms import Scheme
from hsmsign.model.purpose import PurposeKind
from hsmsign.purposes import disguises
from tests.unit.purposes.messages import NOW, signs

POINTS = {"03001d20": 32, "03001e38": 56, "0300174104": 64, "0300186104": 96, "0300198504": 132}
"""Curve, length of the point and its first byte; how many bytes follow."""
CASES = list(POINTS.items())


def exchange(start: bytes, params: str, rest: int) -> bytes:
    return start + os.urandom(64 - len(start)) + bytes.fromhex(params) + b"A" * rest


def lengths(whole: int, before: int) -> list[bytes]:
    """Every form of BER in which what follows can be as long as the message."""
    forms = [b"\x80"]
    for count in (1, 2, 3, 4, 8, 33, 64 - before - 4):
        forms.append(bytes((0x80 | count,)) + (whole - before - 1 - count).to_bytes(count))
    if whole - before - 1 < 0x80:
        forms.append(bytes((whole - before - 1,)))
    return forms


def test_a_certificate_made_to_look_like_a_key_exchange_is_refused() -> None:
    """Whoever has the credential chooses the randoms: the first 64 bytes can be those of a TBSCertificate, the rest
    an X448 key whose first bytes are a name and whose last ones a public key."""
    key = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "\x03\x00\x1e\x38" + "x" * 12)])
    builder = x509.CertificateBuilder().issuer_name(x509.Name([])).subject_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(NOW).not_valid_after(NOW)
    made = builder.sign(key, None).tbs_certificate_bytes
    assert made[64:68] == bytes.fromhex("03001e38")
    assert len(made) == 64 + 4 + 56
    assert "could not be a certificate" in signs(PurposeKind.TLS_SERVER, made, Scheme.ED25519)


@pytest.mark.parametrize(("params", "rest"), CASES)
@pytest.mark.parametrize("outer", [b"\x30", b"\x3f\x10", b"\x3f\x80\x80\x10"], ids=bytes.hex)
@pytest.mark.parametrize("inner", ["02", "30", "a0", "a1", "a2", "1f02", "3f10", "bf00", "bf8001"])
def test_no_key_exchange_is_a_sequence_in_any_form(params: str, rest: int, outer: bytes, inner: str) -> None:
    whole = 64 + len(bytes.fromhex(params)) + rest
    for length in lengths(whole, len(outer)):
        start = outer + length + bytes.fromhex(inner)
        assert "could not be a certificate" in signs(PurposeKind.TLS_SERVER, exchange(start, params, rest))


@pytest.mark.parametrize(("params", "rest"), CASES)
def test_what_only_begins_like_a_sequence_is_signed(params: str, rest: int) -> None:
    whole = 64 + len(bytes.fromhex(params)) + rest
    for start in (
        b"\x30\x82" + (whole - 5).to_bytes(2) + b"\x02",  # a byte is left over
        b"\x30\x82" + (whole - 3).to_bytes(2) + b"\x02",  # a byte is missing
        b"\x30\x82" + (whole - 4).to_bytes(2) + b"\x04",  # no X.509 begins so
        b"\x31\x80\x02",
        b"\x3f\x20\x80\x02",
    ):
        assert signs(PurposeKind.TLS_SERVER, exchange(start, params, rest)) == ""


def test_how_many_honest_randoms_are_refused_is_what_is_said() -> None:
    """Every second and third byte that may follow 0x30, for the length of an exchange with X25519 and with P-256."""
    for whole, refused in ((100, 10), (133, 5)):
        rest = b"\x7f" * (whole - 3)
        found = sum(disguises.like_x509(bytes((0x30, *two)) + rest) for two in itertools.product(range(256), repeat=2))
        assert found == refused  # of 2**16, and one of 256 begins with 0x30


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=140))
def test_whatever_comes_looks_like_it_or_not(noise: bytes) -> None:
    for start in (b"", b"\x30", b"\x3f", b"\x30\x84", b"\x30\xfe", b"\x3f\x80"):
        assert disguises.like_x509(start + noise) in (True, False)

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from hsmsign.model.algorithms import Scheme
from hsmsign.ssh import keys, wire


def ask(blob: bytes, data: bytes, flags: int) -> bytes:
    return b"\x0d" + wire.string(blob) + wire.string(data) + flags.to_bytes(4)


def test_a_request_to_sign_is_read() -> None:
    assert wire.parse(ask(b"blob", b"data", 2)) == wire.SignRequest(b"blob", b"data", wire.Flag.RSA_SHA2_256)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x0b\x00",
        b"\x0d",
        ask(b"blob", b"data", 0) + b"x",
        ask(b"blob", b"data", 0)[:-1],
        ask(b"blob", b"data", 1),
        b"\x0d\xff\xff\xff\xffblob",
        b"\x1b" + wire.string(b""),
        b"\x1b" + wire.string(b"a\n"),
        b"\x1b" + wire.string(b"a" * 65),
        b"\x0b" * (wire.MAX_BYTES + 1),
    ],
)
def test_what_is_not_exactly_a_message_is_refused(message: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.parse(message)


@pytest.mark.parametrize("head", [bytes(4), b"\xff\xff\xff\xff", (wire.MAX_BYTES + 1).to_bytes(4)])
def test_a_length_that_no_message_has_is_refused_before_it_is_read(head: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.length(head)


def test_a_list_of_keys_is_no_larger_than_a_message() -> None:
    answer = wire.identities([(bytes(1000), "key")] * 500)
    assert len(answer) <= wire.MAX_BYTES
    assert 200 < int.from_bytes(answer[1:5]) < 500


@pytest.mark.parametrize("seed", range(40))
def test_numbers_of_a_signature_are_as_short_as_they_can_be_and_positive(seed: int) -> None:
    key = ec.derive_private_key(int.from_bytes(hashlib.sha256(bytes([seed])).digest()), ec.SECP256R1())
    reader = wire.Reader(keys.signature(Scheme.ECDSA_P256_SHA256, key.sign(b"m", ec.ECDSA(hashes.SHA256()))))
    assert reader.string() == b"ecdsa-sha2-nistp256"
    inner = wire.Reader(reader.string())
    for number in (inner.string(), inner.string()):
        assert number[0] < 0x80
        assert number[0] or number[1] >= 0x80
    inner.end()
    reader.end()

"""Signed notes and checkpoints, as C2SP has them."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from hsmsign.audit.notes import Checkpoint, Verifier, unsigned
from hsmsign.model.errors import AuditError

# From golang.org/x/mod/sumdb/note, whose format it is.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n\n"
    "\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
).encode()
ROOT = bytes(range(32))
CHECKPOINT = Checkpoint("example.com/log", 42, ROOT)


def spki(key) -> bytes:
    public = key.public_key()
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture(params=["ed25519", "ecdsa"])
def signer(request):
    """A log's verifier, and what signs."""
    if request.param == "ed25519":
        key = ed25519.Ed25519PrivateKey.generate()
        return Verifier.of("example.com/log", spki(key)), key.sign
    key = ec.generate_private_key(ec.SECP256R1())
    return Verifier.of("example.com/log", spki(key)), lambda text: key.sign(text, ec.ECDSA(hashes.SHA256()))


def note(signer, checkpoint: Checkpoint = CHECKPOINT) -> bytes:
    verifier, sign = signer
    return f"{checkpoint.text}\n{verifier.line(sign(checkpoint.text.encode()))}".encode()


def test_the_signature_of_another_implementation_is_good() -> None:
    with pytest.raises(AuditError, match="no checkpoint"):  # its text is none, but only a good signature gets there
        Verifier.parse(PETER).open(NOTE)
    with pytest.raises(AuditError, match="signature by PeterNeumann is wrong"):
        Verifier.parse(PETER).open(NOTE.replace(b"answer", b"anSwer"))


def test_a_verifier_key_is_text_and_back(signer) -> None:
    verifier, _ = signer
    assert Verifier.parse(str(verifier)) == verifier
    assert str(Verifier.parse(PETER)) == PETER
    with pytest.raises(AuditError, match="damaged"):
        Verifier.parse(PETER.replace("PeterN", "PetraN"))
    for wrong in ("", "a+b", "a+b+c", "name+00000000+AA=="):
        with pytest.raises(AuditError):
            Verifier.parse(wrong)


def test_a_checkpoint_comes_back(signer) -> None:
    assert signer[0].open(note(signer)) == CHECKPOINT
    assert unsigned(note(signer)) == CHECKPOINT


def test_every_changed_byte_is_noticed(signer) -> None:
    good = note(signer)
    for at in range(len(good)):
        changed = bytearray(good)
        changed[at] ^= 1
        with pytest.raises(AuditError):
            signer[0].open(bytes(changed))


def test_others_may_cosign_and_do_not_count(signer) -> None:
    verifier, _ = signer
    witness = Verifier.of("witness", spki(ed25519.Ed25519PrivateKey.generate()))
    cosigned = note(signer) + witness.line(bytes(64)).encode()
    assert verifier.open(cosigned) == CHECKPOINT
    with pytest.raises(AuditError, match="not signed by witness"):
        witness.open(note(signer))


@pytest.mark.parametrize("text", ["o\n1\n", "o\n01\nAA==\n", "o\n-1\n", "\n1\n", "o\n1\n!!\n", "o\n1\nAAAA\n"])
def test_what_is_no_checkpoint(text: str) -> None:
    with pytest.raises(AuditError):
        Checkpoint.parse(text)

"""What a liar with keys in memory gets past a verifier: a claim, and never a proof."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from hsmsign.attestation import AttestationError, Binding, Challenge, challenge, verify
from hsmsign.model.attestation import DOCUMENT_MAX, decode
from tests.support.forger import FIXED, RESTRICTED, SIGN, WITH_AUTH, Forger


def test_whoever_copies_an_endorsement_certificate_can_only_claim() -> None:
    forger = Forger()
    said = verify(forger.forge(), ek_roots=[forger.root], nonce=bytes(16))
    assert said.binding is Binding.CLAIMED
    assert not said.proved
    _, secret = challenge(forger.forge(), ek_roots=[forger.root])
    with pytest.raises(AttestationError, match="did not open the challenge"):
        verify(forger.forge(), ek_roots=[forger.root], secret=secret)
    with pytest.raises(AttestationError, match="did not open the challenge"):
        verify(forger.forge(), ek_roots=[forger.root], secret=b"")


def _attest(forger: Forger, name: str, value: object) -> None:
    setattr(forger, name, value)


LIES: dict[str, tuple[Callable[[Forger], object], str]] = {
    "an attestation key that signs anything": (
        lambda it: _attest(it, "ak_attributes", FIXED | WITH_AUTH | SIGN),
        "signs only what its TPM says",
    ),
    "an attestation key that came from elsewhere": (
        lambda it: _attest(it, "ak_attributes", WITH_AUTH | RESTRICTED | SIGN),
        "signs only what its TPM says",
    ),
    "an attestation key of the owner": (lambda it: _attest(it, "hierarchy", 0x40000001), "endorsement hierarchy"),
    "not said by a TPM": (lambda it: _attest(it, "magic", b"\xff\x54\x43\x48"), "TPM_GENERATED_VALUE"),
    "a quote": (lambda it: _attest(it, "kind", b"\x80\x18"), "not of TPM2_Certify"),
    "another key was certified": (lambda it: _attest(it, "certified_name", b"\0\x0b" + bytes(32)), "another key"),
    "a key that can leave": (lambda it: _attest(it, "key_attributes", WITH_AUTH | SIGN | 1 << 5), "can leave it"),
    "a key that was imported": (
        lambda it: _attest(it, "key_attributes", WITH_AUTH | SIGN | 1 << 1 | 1 << 4),
        "was not made in the TPM",
    ),
    "bound to registers in words only": (
        lambda it: _attest(it, "statement", {"facts": {"pcrs": "sha256:7"}}),
        "does not say so",
    ),
    "another public key in the statement": (
        lambda it: _attest(it, "statement", {"public_key": _spki(ec.SECP256R1())}),
        "another public key",
    ),
    "another algorithm in the statement": (
        lambda it: _attest(it, "statement", {"algorithm": "ed25519"}),
        "not of ed25519",
    ),
    "somebody else's endorsement certificate": (
        lambda it: _attest(it, "ek", ec.generate_private_key(ec.SECP256R1())),
        "for another key",
    ),
    "no endorsement certificate": (
        lambda it: _attest(it, "statement", {"ek_certificate": ""}),
        "no endorsement certificate",
    ),
    "a certificate for something else": (
        lambda it: _attest(it, "certified", it.certificate(it.ek.public_key(), ca=False, usage="1.3.6.1.5.5.7.3.1")),
        "no CA that you trust",
    ),
    "evidence that is not there": (lambda it: _attest(it, "statement", {"evidence": "asserted"}), "did not sign"),
    "another format": (lambda it: _attest(it, "statement", {"format": "hsmsign-attestation-2"}), "format"),
    "a device that is a list": (lambda it: _attest(it, "statement", {"device": []}), "does not describe"),
    "a time that is none": (lambda it: _attest(it, "statement", {"time": 7}), "cannot be read"),
}


def _spki(curve: ec.EllipticCurve) -> str:
    import base64

    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = ec.generate_private_key(curve).public_key()
    return base64.b64encode(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_found(lie: str) -> None:
    forger = Forger()
    tell, words = LIES[lie]
    tell(forger)
    with pytest.raises(AttestationError, match=words):
        verify(forger.forge(), ek_roots=[forger.root])


def test_a_certificate_that_ran_out_is_refused() -> None:
    forger = Forger()
    with pytest.raises(AttestationError, match="no CA that you trust"):
        verify(forger.forge(), ek_roots=[forger.root], time=dt.datetime.now(dt.UTC) + dt.timedelta(days=2))


def test_an_attester_that_is_known_needs_no_certificate() -> None:
    forger = Forger()
    known = verify(forger.forge(), ek_roots=[forger.root]).ak_name
    forger.statement = {"ek_certificate": ""}
    assert verify(forger.forge(), known_attester=known).binding is Binding.KNOWN
    with pytest.raises(AttestationError) as refused:
        verify(forger.forge(), ek_roots=[forger.root])
    assert known.hex() in refused.value.hint
    forger.ak = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(AttestationError, match="not made with the attestation key"):
        verify(forger.forge(), known_attester=known)


def test_an_issuer_that_is_no_ca_is_refused() -> None:
    forger = Forger()
    root: x509.Certificate = forger.root
    forger.root = forger.certificate(forger.ca_key.public_key(), ca=False)
    with pytest.raises(AttestationError, match="no CA that you trust"):
        verify(forger.forge(), ek_roots=[forger.root])
    verify(forger.forge(), ek_roots=[root])


def test_a_policy_is_told() -> None:
    forger = Forger()
    forger.key_attributes, forger.key_policy = FIXED | SIGN, b"\7" * 32
    forger.statement = {"facts": {"pcrs": "sha256:7"}}
    assert verify(forger.forge(), ek_roots=[forger.root]).policy == b"\7" * 32


@given(st.binary(max_size=300))
def test_garbage_is_refused_in_words(garbage: bytes) -> None:
    with pytest.raises(AttestationError):
        verify(garbage)
    with pytest.raises(AttestationError):
        Challenge.decode(garbage)


NONSENSE = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=20)
    | st.lists(st.integers() | st.text(max_size=8), max_size=3)
    | st.dictionaries(st.text(max_size=3), st.integers(), max_size=3)
)
STATED = ["name", "algorithm", "public_key", "nonce", "time", "device", "facts", "evidence"]
OF_A_TPM = ["ak_public", "ek_public", "ek_certificate", "ek_chain", "activated"]


@given(st.sampled_from(STATED + OF_A_TPM), NONSENSE)
def test_nonsense_that_a_liar_signed_ends_in_words_or_is_as_true_as_before(name: str, value: object) -> None:
    forger = Forger()
    forger.statement = {name: value}
    with contextlib.suppress(AttestationError):
        assert verify(forger.forge(), ek_roots=[forger.root]).binding is Binding.CLAIMED


@given(st.sampled_from(["attest", "signature", "public"]), NONSENSE)
def test_nonsense_in_the_place_of_what_the_tpm_said_is_refused_in_words(name: str, value: object) -> None:
    document = json.loads(FORGED)
    document["tpm"][name] = value
    changed = json.dumps(document, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    with pytest.raises(AttestationError):
        verify(changed, ek_roots=[FORGER.root])


FORGER = Forger()
FORGED = FORGER.forge()


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{}\n",
        b"[]\n",
        b"[" * 5000,
        b'{"statement":{},"possession":"AA=="}\n',
        b'{"statement":{},"possession":"AB=="}\n',
        b"x" * (DOCUMENT_MAX + 1),
    ],
)
def test_documents_that_are_none(document: bytes) -> None:
    with pytest.raises(AttestationError):
        verify(document)


def test_evidence_that_is_empty_is_none() -> None:
    with pytest.raises(AttestationError, match="no evidence"):
        decode(b'{"possession":"","statement":{"name":"keys/a"}}\n')

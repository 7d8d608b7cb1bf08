"""What is fuzzed: everything in Python that reads bytes of somebody outside.

A target takes bytes. It may raise what it says is a clean refusal; whatever else comes out is a defect, also an
AssertionError: what was accepted must be what it was accepted for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsmsign.attestation import structures
from hsmsign.audit.notes import Checkpoint, Verifier, read, unsigned
from hsmsign.audit.proofs import Proof
from hsmsign.audit.wire import Frames
from hsmsign.keyring import paging
from hsmsign.model import attestation, names, object_uri
from hsmsign.model.algorithms import Scheme
from hsmsign.model.attestation import Challenge
from hsmsign.model.errors import HsmsignError, PurposeError
from hsmsign.model.purpose import Purpose, PurposeKind
from hsmsign.purposes import Signer, check, describe, signed
from hsmsign.ssh import wire as ssh_wire
from tests.fuzz import pki, rights
from tests.fuzz.requests import read_request

KEY = ec.derive_private_key(int.from_bytes(sha256(b"a key that everybody knows").digest()), ec.SECP256R1())
SPKI = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
VERIFIER = Verifier.of("fuzz.example", SPKI)
SCHEME = Scheme.ECDSA_P256_SHA256
ROOT = Checkpoint("fuzz.example", 2, sha256(b"root").digest())
PURPOSES = {
    "tls-server": Purpose(PurposeKind.TLS_SERVER),
    "tls-client": Purpose(PurposeKind.TLS_CLIENT),
    "ca": Purpose(PurposeKind.CA, "CN=Root", 1, 400, ("dns:example.org", "ip:10.0.0.0/8")),
    "csr": Purpose(PurposeKind.CSR),
    "ocsp": Purpose(PurposeKind.OCSP),
    "jwt": Purpose(PurposeKind.JWT, jwt_issuers=("https://id",), jwt_audiences=("ci",)),
}


@dataclass(frozen=True, slots=True)
class Target:
    """One thing that reads bytes."""

    run: Callable[[bytes], None]
    clean: tuple[type[Exception], ...] = (HsmsignError,)


def purpose(kind: str, data: bytes) -> None:
    """What a key signs is what it is for."""
    check(Signer("keys/k/versions/1", PURPOSES[kind], SCHEME, SPKI), data)
    if kind == "ca":
        readers = (signed.certificate, signed.crl, signed.response, signed.request)
        assert any(read(data, SCHEME) for read in readers)
    if kind in ("tls-server", "tls-client", "jwt"):
        assert not signed.certificate(data, SCHEME)
        assert not signed.crl(data, SCHEME)


def words(data: bytes) -> None:
    """Words for people: one line of ASCII that can be printed."""
    said = describe(data, SCHEME)
    assert said.isascii()
    assert said.isprintable()


def note(data: bytes) -> None:
    """A checkpoint reads as it is written, and only the true one has a good signature."""
    found = unsigned(data)
    assert Checkpoint.parse(found.text) == found
    assert read(data, VERIFIER) == ROOT


def verifier(data: bytes) -> None:
    """A verifier key reads as it is written."""
    found = Verifier.parse(data.decode("utf-8", "replace"))
    assert Verifier.parse(str(found)) == found


def proof(data: bytes) -> None:
    """A proof reads as it is written."""
    found = Proof.decode(data)
    assert Proof.decode(found.encode()) == found
    found.check(VERIFIER)


def frames(data: bytes) -> None:
    """Frames are the same, however they are cut on their way."""
    whole = list(Frames().feed(data))
    half, parts = len(data) // 2, Frames()
    assert [*parts.feed(data[:half]), *parts.feed(data[half:])] == whole


def name(data: bytes) -> None:
    """A name reads as it is written."""
    text = data.decode("utf-8", "replace")
    assert str(names.parse(text)) == text


def uri(data: bytes) -> None:
    """URIs of objects."""
    object_uri.parse(data.decode("utf-8", "replace"))


def page_token(data: bytes) -> None:
    """Page tokens come back from callers."""
    paging.after(data.decode("utf-8", "replace"), {}, "")


def document(data: bytes) -> None:
    """An attestation has one form only."""
    assert attestation.encode(attestation.decode(data)) == data


def challenge(data: bytes) -> None:
    """A challenge reads as it is written."""
    found = Challenge.decode(data)
    assert Challenge.decode(found.encode()) == found


def ssh_agent(data: bytes) -> None:
    """A request to the SSH agent reads as it is written."""
    found = ssh_wire.parse(data)
    if isinstance(found, ssh_wire.SignRequest):
        body = ssh_wire.string(found.blob) + ssh_wire.string(found.data) + found.flags.to_bytes(4)
        assert data == bytes([ssh_wire.Number.SIGN_REQUEST]) + body
    elif isinstance(found, ssh_wire.ExtensionRequest):
        assert data == bytes([ssh_wire.Number.EXTENSION]) + ssh_wire.string(found.name.encode()) + found.body
    elif isinstance(found, ssh_wire.IdentitiesRequest):
        assert data == bytes([ssh_wire.Number.REQUEST_IDENTITIES])


TARGETS: dict[str, Target] = {
    **{kind: Target(functools.partial(purpose, kind), (PurposeError,)) for kind in PURPOSES},
    "words": Target(words, ()),
    "note": Target(note),
    "verifier": Target(verifier),
    "proof": Target(proof),
    "frames": Target(frames, (ValueError,)),
    "name": Target(name),
    "uri": Target(uri),
    "page-token": Target(page_token),
    "tpm-public": Target(lambda data: void(structures.public(data)), (ValueError,)),
    "tpm-attest": Target(lambda data: void(structures.attest(data)), (ValueError,)),
    "tpm-signature": Target(lambda data: void(structures.ecdsa_signature(data)), (ValueError,)),
    "document": Target(document),
    "challenge": Target(challenge),
    "request": Target(read_request),
    "ssh-agent": Target(ssh_agent),
    "certify": Target(pki.certify),
    "certification-request": Target(pki.request),
    "own-name": Target(pki.own_name),
    "ocsp-request": Target(pki.ocsp_request),
    "ocsp-get": Target(pki.ocsp_get),
    "ca-name": Target(pki.ca_name),
    "chain": Target(pki.chain),
    "token": Target(pki.Token()),
    "rights": Target(rights.rules),
    "rights-path": Target(rights.path, ()),
}


def void(_: object) -> None:
    """What was read is of no interest."""

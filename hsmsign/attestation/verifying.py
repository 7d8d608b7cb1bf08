"""Whether an attestation is true, and how much of it is proved."""

from __future__ import annotations

import datetime as dt
import enum
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from hsmsign.attestation import endorsement, structures
from hsmsign.attestation.structures import RH_ENDORSEMENT, Attributes, Public
from hsmsign.model import attestation
from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.attestation import Attestation, qualifying_data, signed_bytes, untext
from hsmsign.model.errors import AttestationError
from hsmsign.model.verification import algorithm_of, is_good

_MADE_THERE = Attributes.FIXED_TPM | Attributes.FIXED_PARENT | Attributes.SENSITIVE_DATA_ORIGIN


class Evidence(enum.Enum):
    """What stands behind a statement."""

    TPM2_CERTIFY = "tpm2-certify"
    """A TPM certified the key (TPM 2.0 Part 3, section 18.2)."""
    ASSERTED = "asserted"
    """The daemon says so; the device proves nothing. That the daemon can use the key is shown."""


class Binding(enum.Enum):
    """What stands behind the attestation key: how one knows that it is in the TPM of the endorsement key."""

    CHALLENGED = "challenged"
    """That TPM opened the verifier's challenge."""
    KNOWN = "known"
    """The verifier knew the attestation key from before."""
    CLAIMED = "claimed"
    """Nothing but the daemon's word: whoever made this up could have used somebody's endorsement certificate."""
    NONE = "none"
    """No TPM has anything to do with it."""


@dataclass(frozen=True, slots=True)
class Attested:
    """What an attestation says, after it was found to be true."""

    name: str
    """The version, `keys/ID/versions/N`."""
    algorithm: KeyAlgorithm
    public_key: bytes
    """SubjectPublicKeyInfo, DER: what all this is about."""
    evidence: Evidence
    binding: Binding
    nonce: bytes
    time: dt.datetime
    """By the daemon's clock."""
    device: Mapping[str, str]
    """Library, token, serial number, manufacturer, model, firmware: in the daemon's words."""
    facts: Mapping[str, bool | str | None]
    """The device's attributes of the key, in the daemon's words."""
    policy: bytes = b""
    """tpm2-certify: the key's authPolicy. With one, the TPM signs only where it is satisfied (registers, say)."""
    ak_name: bytes = b""
    """tpm2-certify: Name of the attestation key. Keep it once the binding is proved, for `known_attester`."""
    ek_public: bytes = b""
    """tpm2-certify: TPMT_PUBLIC of the endorsement key."""
    ek_certificate: x509.Certificate | None = None

    @property
    def proved(self) -> bool:
        """Whether the device itself proved that the key was made in it and cannot leave it."""
        return self.binding in (Binding.CHALLENGED, Binding.KNOWN)


def verify(
    document: bytes,
    *,
    ek_roots: Sequence[x509.Certificate] = (),
    nonce: bytes | None = None,
    secret: bytes | None = None,
    known_attester: bytes | None = None,
    time: dt.datetime | None = None,
) -> Attested:
    """Check an attestation offline. Raises AttestationError where any of it is not true.

    Args:
        document: as `Client.attest_key` gave it.
        ek_roots: CAs of TPM makers; each is trusted. Not wanted for asserted attestations, which need none.
        nonce: the one that was sent; without it an old attestation passes for a new one.
        secret: that of a challenge which the daemon was sent with the nonce.
        known_attester: `ak_name` of an attestation of this TPM whose binding was proved before.
        time: when certificates must be valid; now by default.

    Look at `proved`: without `secret` or `known_attester` a TPM's attestation is well-formed but only claimed.
    """
    try:
        said = attestation.decode(document)
        statement = attestation.parse(said.statement + b"\n")
        attested = _read(statement)
        if nonce is not None and not hmac.compare_digest(attested["nonce"], nonce):
            raise AttestationError("the attestation has another nonce: it answers another question")
        if attested["evidence"] is Evidence.ASSERTED:
            return _asserted(said, attested, secret or known_attester)
        return _certified(said, statement, attested, _Trust(ek_roots, secret, known_attester, time))
    except (ValueError, KeyError, TypeError, UnsupportedAlgorithm) as error:
        raise AttestationError(f"the attestation cannot be read: {error}") from error


@dataclass(frozen=True, slots=True)
class _Trust:
    ek_roots: Sequence[x509.Certificate]
    secret: bytes | None
    known_attester: bytes | None
    time: dt.datetime | None


def _read(statement: Mapping[str, Any]) -> dict[str, Any]:
    """What both kinds of statement have."""
    if statement["format"] != attestation.FORMAT:
        raise ValueError(f"its format is not {attestation.FORMAT}")
    device, facts = statement["device"], statement["facts"]
    if not isinstance(device, dict) or not isinstance(facts, dict):
        raise AttestationError("the attestation does not describe a device and a key")
    if not all(isinstance(value, str) for value in (statement["name"], *device.values())):
        raise ValueError("a name is not text")
    algorithm, public_key = KeyAlgorithm(statement["algorithm"]), untext(statement["public_key"])
    if algorithm_of(load_der_public_key(public_key)) is not algorithm:
        raise ValueError(f"its public key is not of {algorithm.value}")
    return {
        "name": statement["name"],
        "algorithm": algorithm,
        "public_key": public_key,
        "evidence": Evidence(statement["evidence"]),
        "nonce": bytes.fromhex(statement["nonce"]),
        "time": dt.datetime.strptime(statement["time"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC),
        "device": dict(device),
        "facts": dict(facts),
    }


def _asserted(said: Attestation, attested: dict[str, Any], proof: bytes | None) -> Attested:
    if proof:
        raise AttestationError("the daemon only asserts where the key is; no TPM answered the challenge")
    key = load_der_public_key(attested["public_key"])
    if not is_good(key, attested["algorithm"].schemes[0], said.possession, signed_bytes(said.statement)):
        raise AttestationError("the key did not sign this statement")
    return Attested(binding=Binding.NONE, **attested)


def _certified(said: Attestation, statement: Mapping[str, Any], attested: dict[str, Any], trust: _Trust) -> Attested:
    ak = structures.public(untext(statement["ak_public"]))
    ek = structures.public(untext(statement["ek_public"]))
    key = structures.public(said.key_public)
    _check_signature(said, ak)
    _check_key(key, structures.attest(said.attest).name, attested)
    certificate = _check_endorsement(ek, ak, statement, trust)
    return Attested(
        binding=_binding(ak, untext(statement["activated"]), trust),
        policy=key.policy,
        ak_name=ak.name,
        ek_public=ek.marshalled,
        ek_certificate=certificate,
        **attested,
    )


def _check_signature(said: Attestation, ak: Public) -> None:
    """The attestation key signs nothing but what its TPM says, and it said this about that statement."""
    if not ak.has(_MADE_THERE | Attributes.RESTRICTED | Attributes.SIGN) or ak.has(Attributes.DECRYPT):
        raise AttestationError("the attestation key is not one that signs only what its TPM says")
    signature = structures.ecdsa_signature(said.attest_signature)
    if not isinstance(ak.key, ec.EllipticCurvePublicKey):
        raise AttestationError("the attestation key is not of the kind that signed")
    try:
        ak.key.verify(encode_dss_signature(signature.r, signature.s), said.attest, ec.ECDSA(signature.hash))
    except InvalidSignature as error:
        raise AttestationError("the attestation key did not sign what the TPM is said to say") from error
    certified = structures.attest(said.attest)
    if certified.qualified_signer != structures.qualified_name(ak.name, RH_ENDORSEMENT):
        raise AttestationError("the attestation key is not one of the endorsement hierarchy")
    if not hmac.compare_digest(certified.extra_data, qualifying_data(said.statement)):
        raise AttestationError("what the TPM said is not about this statement")


def _check_key(key: Public, name: bytes, attested: Mapping[str, Any]) -> None:
    """The certified key is the one of the statement, made in the TPM and bound to it."""
    if key.name != name:
        raise AttestationError("the TPM certified another key")
    if key.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != attested["public_key"]:
        raise AttestationError("the statement is about another public key than the TPM's")
    if not key.has(_MADE_THERE | Attributes.SIGN):
        raise AttestationError("the key was not made in the TPM, or can leave it")
    if attested["facts"].get("pcrs") and (not key.policy or key.has(Attributes.USER_WITH_AUTH)):
        raise AttestationError("the key is said to be bound to registers, and the TPM does not say so")


def _check_endorsement(ek: Public, ak: Public, statement: Mapping[str, Any], trust: _Trust) -> x509.Certificate | None:
    """The certificate of the endorsement key; for an attestation key that is known, it need not be there."""
    certificate = untext(statement["ek_certificate"])
    if trust.known_attester is not None and not (certificate and trust.ek_roots):
        return None
    if not certificate:
        raise AttestationError(
            "the TPM has no endorsement certificate: nothing says that it is a TPM",
            hint=f"it can be trusted only by its attestation key, if you know that: {ak.name.hex()}",
        )
    chain = [untext(one) for one in statement["ek_chain"]]
    leaf = endorsement.check(certificate, chain, trust.ek_roots, trust.time)
    if leaf.public_key() != ek.key:
        raise AttestationError("the endorsement certificate is for another key")
    return leaf


def _binding(ak: Public, activated: bytes, trust: _Trust) -> Binding:
    if trust.secret is not None:
        if not trust.secret or not hmac.compare_digest(activated, trust.secret):
            raise AttestationError("the TPM of the endorsement certificate did not open the challenge")
        return Binding.CHALLENGED
    if trust.known_attester is not None:
        if ak.name != trust.known_attester:
            raise AttestationError("it was not made with the attestation key that is known")
        return Binding.KNOWN
    return Binding.CLAIMED

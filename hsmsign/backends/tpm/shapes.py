"""Templates of TPM objects, signature schemes, and what a public area says."""

from __future__ import annotations

import functools
import hashlib
import re

from cryptography.hazmat.primitives import serialization
from tpm2_pytss import (
    TPM2_ALG,
    TPM2_ECC,
    TPM2B_ECC_PARAMETER,
    TPM2B_PUBLIC,
    TPMA_OBJECT,
    TPML_PCR_SELECTION,
    TPMS_ECC_POINT,
    TPMS_SCHEME_HASH,
    TPMT_PUBLIC,
    TPMT_SIG_SCHEME,
    TPMT_SIGNATURE,
    TPMT_SYM_DEF,
    TPMU_PUBLIC_ID,
    TPMU_SIG_SCHEME,
    TPMU_SYM_KEY_BITS,
    TPMU_SYM_MODE,
)

from hsmsign.model.algorithms import Family, Hash, KeyAlgorithm, Scheme
from hsmsign.model.device import DeviceFacts
from hsmsign.model.errors import InvalidArgumentError

_FIXED = TPMA_OBJECT.FIXEDTPM | TPMA_OBJECT.FIXEDPARENT | TPMA_OBJECT.SENSITIVEDATAORIGIN
_STORAGE = _FIXED | TPMA_OBJECT.USERWITHAUTH | TPMA_OBJECT.NODA | TPMA_OBJECT.RESTRICTED | TPMA_OBJECT.DECRYPT

_HASHES = {Hash.SHA256: TPM2_ALG.SHA256, Hash.SHA384: TPM2_ALG.SHA384, Hash.SHA512: TPM2_ALG.SHA512}
_TYPES = {
    KeyAlgorithm.EC_P256: "ecc256",
    KeyAlgorithm.EC_P384: "ecc384",
    KeyAlgorithm.EC_P521: "ecc521",
    KeyAlgorithm.RSA_2048: "rsa2048",
    KeyAlgorithm.RSA_3072: "rsa3072",
    KeyAlgorithm.RSA_4096: "rsa4096",
}
_CURVES = {
    TPM2_ECC.NIST_P256: KeyAlgorithm.EC_P256,
    TPM2_ECC.NIST_P384: KeyAlgorithm.EC_P384,
    TPM2_ECC.NIST_P521: KeyAlgorithm.EC_P521,
}
_COORDINATE = {Scheme.ECDSA_P256_SHA256: 32, Scheme.ECDSA_P384_SHA384: 48, Scheme.ECDSA_P521_SHA512: 66}
_RSA = {algorithm.bits: algorithm for algorithm in KeyAlgorithm if algorithm.family is Family.RSA}
CANDIDATES = tuple(_TYPES)
"""What a TPM may have; whether it does is asked with TPM2_TestParms."""

_PCRS = re.compile(r"(sha1|sha256|sha384|sha512):(\d{1,2}(?:,\d{1,2})*)")


def storage_key() -> TPM2B_PUBLIC:
    """The storage root key as the TCG's provisioning guidance has it (EK Credential Profile, template L-2 without its
    policy): every program that derives it from the owner seed gets the same one."""
    area = TPMT_PUBLIC.parse("ecc256:aes128cfb", objectAttributes=_STORAGE)
    zero = TPM2B_ECC_PARAMETER(bytes(32))
    area.unique = TPMU_PUBLIC_ID(ecc=TPMS_ECC_POINT(x=zero, y=zero))
    return TPM2B_PUBLIC(area)


def signing_key(algorithm: KeyAlgorithm, policy: bytes) -> TPM2B_PUBLIC:
    """A key of ours: made in this TPM, for this parent, for signing only. With a policy nothing else authorizes it.

    noDA: its authorization value cannot be guessed, and a stranger's wrong guesses elsewhere must not lock it.
    """
    attributes = _FIXED | TPMA_OBJECT.NODA | TPMA_OBJECT.SIGN_ENCRYPT
    if not policy:
        attributes |= TPMA_OBJECT.USERWITHAUTH
    return TPM2B_PUBLIC(TPMT_PUBLIC.parse(_TYPES[algorithm], objectAttributes=attributes, authPolicy=policy))


def attestation_key() -> TPM2B_PUBLIC:
    """A key that signs only what the TPM itself says (restricted). Its unique field makes it ours alone."""
    attributes = _FIXED | TPMA_OBJECT.USERWITHAUTH | TPMA_OBJECT.NODA | TPMA_OBJECT.RESTRICTED
    area = TPMT_PUBLIC.parse("ecc256:ecdsa-sha256:null", objectAttributes=attributes | TPMA_OBJECT.SIGN_ENCRYPT)
    ours = TPM2B_ECC_PARAMETER(hashlib.sha256(b"hsmsign attestation key").digest())
    area.unique = TPMU_PUBLIC_ID(ecc=TPMS_ECC_POINT(x=ours, y=TPM2B_ECC_PARAMETER(bytes(32))))
    return TPM2B_PUBLIC(area)


def session_cipher() -> TPMT_SYM_DEF:
    """AES-128 in CFB mode, for parameters on their way to and from the TPM."""
    return TPMT_SYM_DEF(
        algorithm=TPM2_ALG.AES, keyBits=TPMU_SYM_KEY_BITS(aes=128), mode=TPMU_SYM_MODE(aes=TPM2_ALG.CFB)
    )


@functools.cache
def signature_scheme(scheme: Scheme) -> TPMT_SIG_SCHEME:
    """How TPM2_Sign is told what to make (Part 2, section 11.2.1)."""
    assert scheme.hash is not None  # noqa: S101 - Ed25519 never gets as far as this
    details = TPMS_SCHEME_HASH(hashAlg=_HASHES[scheme.hash])
    if scheme.family is Family.EC:
        return TPMT_SIG_SCHEME(scheme=TPM2_ALG.ECDSA, details=TPMU_SIG_SCHEME(ecdsa=details))
    if "PSS" in scheme.name:
        return TPMT_SIG_SCHEME(scheme=TPM2_ALG.RSAPSS, details=TPMU_SIG_SCHEME(rsapss=details))
    return TPMT_SIG_SCHEME(scheme=TPM2_ALG.RSASSA, details=TPMU_SIG_SCHEME(rsassa=details))


def algorithm_of(public: TPMT_PUBLIC) -> KeyAlgorithm | None:
    """What kind of key it is, of those that we know."""
    if public.type == TPM2_ALG.ECC:
        return _CURVES.get(public.parameters.eccDetail.curveID)
    if public.type == TPM2_ALG.RSA:
        return _RSA.get(int(public.parameters.rsaDetail.keyBits))
    return None


def signs_freely(public: TPMT_PUBLIC) -> bool:
    """Whether it is a key that signs what it is given, in any scheme of its kind."""
    attributes = public.objectAttributes
    return bool(attributes & TPMA_OBJECT.SIGN_ENCRYPT) and not attributes & TPMA_OBJECT.RESTRICTED


def spki_of(public: TPMT_PUBLIC) -> bytes:
    """SubjectPublicKeyInfo, DER."""
    key = serialization.load_pem_public_key(public.to_pem())
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def facts_of(public: TPMT_PUBLIC, pcrs: str) -> DeviceFacts:
    """The object's attributes in the words of PKCS #11: fixedTPM says that it was never anywhere else."""
    attributes = public.objectAttributes
    fixed = bool(attributes & TPMA_OBJECT.FIXEDTPM) and bool(attributes & TPMA_OBJECT.FIXEDPARENT)
    return DeviceFacts(
        sensitive=True,
        extractable=not fixed,
        local=bool(attributes & TPMA_OBJECT.SENSITIVEDATAORIGIN),
        always_sensitive=fixed,
        never_extractable=fixed,
        unique_id=bytes(public.get_name()).hex(),
        pcrs=pcrs,
    )


def pcr_selection(pcrs: str) -> TPML_PCR_SELECTION:
    """From `sha256:0,7`. Raises InvalidArgumentError."""
    matched = _PCRS.fullmatch(pcrs)
    numbers = [int(number) for number in matched[2].split(",")] if matched else []
    if not numbers or max(numbers) > 23 or len(set(numbers)) != len(numbers):
        raise InvalidArgumentError(
            "the platform registers cannot be read", hint="a bank and numbers from 0 to 23, for example sha256:0,7"
        )
    return TPML_PCR_SELECTION.parse(pcrs)


def raw_signature(signature: TPMT_SIGNATURE, scheme: Scheme) -> bytes:
    """What TPM2_Sign gave, as the pool takes it: r || s, or the RSA signature.

    From the marshalled form (Part 2, section 11.3.4), two identifiers and then one or two numbers with their sizes:
    the library's objects take a tenth of a signature's time to be read.
    """
    data = memoryview(signature.marshal())[4:]
    size = int.from_bytes(data[:2], "big")
    first, rest = bytes(data[2 : 2 + size]), data[2 + size :]
    if scheme.family is not Family.EC:
        return first
    second = bytes(rest[2 : 2 + int.from_bytes(rest[:2], "big")])
    wanted = _COORDINATE[scheme]
    return first.rjust(wanted, b"\0") + second.rjust(wanted, b"\0")

"""The TPM's structures, as this package reads them and as the TPM library does."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from tpm2_pytss import TPM2_ALG, TPM2B_PUBLIC, TPMA_OBJECT, TPMT_PUBLIC

from hsmsign.attestation import structures

READERS = [structures.public, structures.attest, structures.ecdsa_signature]


@pytest.mark.parametrize("kind", ["ecc256", "ecc384", "ecc521", "ecc256:ecdsa-sha256:null", "ecc256:aes128cfb"])
def test_a_public_area_is_read_as_the_library_reads_it(kind: str) -> None:
    curve = {"256": ec.SECP256R1, "384": ec.SECP384R1, "521": ec.SECP521R1}[kind[3:6]]()
    key = ec.generate_private_key(curve).public_key()
    area = TPMT_PUBLIC.from_pem(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    use = TPMA_OBJECT.RESTRICTED | (TPMA_OBJECT.DECRYPT if "aes" in kind else TPMA_OBJECT.SIGN_ENCRYPT)
    said = TPMT_PUBLIC.parse(kind, objectAttributes=use if ":" in kind else TPMA_OBJECT.SIGN_ENCRYPT)
    area.parameters.eccDetail.scheme = said.parameters.eccDetail.scheme
    area.parameters.eccDetail.symmetric = said.parameters.eccDetail.symmetric
    area.objectAttributes = TPMA_OBJECT.FIXEDTPM | TPMA_OBJECT.SIGN_ENCRYPT
    read = structures.public(area.marshal())
    assert read.key == key
    assert read.name == bytes(area.get_name())
    assert read.has(structures.Attributes.FIXED_TPM | structures.Attributes.SIGN)
    assert not read.has(structures.Attributes.FIXED_TPM | structures.Attributes.RESTRICTED)


@pytest.mark.parametrize("hash_name", [TPM2_ALG.SHA256, TPM2_ALG.SHA384, TPM2_ALG.SHA512])
def test_an_rsa_area_is_read_as_the_library_reads_it(hash_name: TPM2_ALG) -> None:
    key = rsa.generate_private_key(65537, 2048).public_key()
    area = TPMT_PUBLIC.from_pem(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), nameAlg=hash_name)
    read = structures.public(TPM2B_PUBLIC(area).publicArea.marshal())
    assert read.key == key
    assert read.name == bytes(area.get_name())


@given(st.binary(max_size=200))
def test_garbage_is_a_value_error(garbage: bytes) -> None:
    for read in READERS:
        with pytest.raises(ValueError, match=r".+"):
            read(garbage)

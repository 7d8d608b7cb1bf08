"""Proof of where a key lives: TPM2_Certify by a restricted key, and the endorsement key beside it.

The attestation key is a primary key of the endorsement hierarchy: always the same, and kept nowhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tpm2_pytss import (
    ESYS_TR,
    TPM2_ALG,
    TPM2_CAP,
    TPM2_SE,
    TPM2B_DATA,
    TPM2B_ENCRYPTED_SECRET,
    TPM2B_ID_OBJECT,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPMT_PUBLIC,
    TPMT_SIG_SCHEME,
    TPMT_SYM_DEF,
    TSS2_Exception,
)
from tpm2_pytss.utils import NoSuchIndex, create_ek_template

from hsmsign.backends.tpm import codes, shapes
from hsmsign.backends.tpm.chip import Chip
from hsmsign.backends.tpm.codes import Remedy
from hsmsign.model.attestation import AttesterIdentity, Certified

_KINDS = ("EK-ECC256", "EK-RSA2048")
"""TCG EK Credential Profile, templates L-2 and L-1, which a TPM may have without a certificate, too."""
_PERSISTENT_EK = 0x81010000
_NV_PIECE = 512
"""What every TPM gives in one answer (PC Client Platform TPM Profile, TPM_PT_NV_BUFFER_MAX)."""
_CHAIN, _CHAIN_LENGTH = 0x01C00100, 256
"""NV indices with the certificates of the issuers, one after the other (section 2.2.1.4)."""


def identity(chip: Chip) -> AttesterIdentity:
    """The public parts of both keys, and the certificate that the TPM's maker gave."""
    with _attestation_key(chip) as (_, ak_public), _endorsement_key(chip) as (_, ek_public, certificate):
        return AttesterIdentity(ak_public.marshal(), ek_public.marshal(), certificate, _chain(chip))


def certify(chip: Chip, locator: bytes, qualifying: bytes) -> Certified:
    """Have the TPM say that this key is in it, over the caller's data."""
    with _attestation_key(chip) as (ak, _):
        handle, public, authorized = chip.for_admin(locator)
        attest, signature = chip.esys.certify(
            handle,
            ak,
            TPM2B_DATA(qualifying),
            TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL),
            session1=authorized,
            session2=ESYS_TR.PASSWORD,
        )
        return Certified(public.marshal(), bytes(attest), signature.marshal())


def activate(chip: Chip, credential: bytes, secret: bytes) -> bytes:
    """Open a verifier's challenge: only a TPM that has both keys can (Part 1, section 24)."""
    blob, _ = TPM2B_ID_OBJECT.unmarshal(credential)
    encrypted, _ = TPM2B_ENCRYPTED_SECRET.unmarshal(secret)
    with _attestation_key(chip) as (ak, _), _endorsement_key(chip) as (ek, _, _):
        session = chip.esys.start_auth_session(
            ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY, TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL), TPM2_ALG.SHA256
        )
        try:
            chip.esys.policy_secret(ESYS_TR.ENDORSEMENT, session)
            opened = chip.esys.activate_credential(ak, ek, blob, encrypted, session1=ESYS_TR.PASSWORD, session2=session)
            return bytes(opened)
        finally:
            with contextlib.suppress(Exception):  # it is gone with its use, or with the TPM
                chip.esys.flush_context(session)


@contextlib.contextmanager
def _attestation_key(chip: Chip) -> Iterator[tuple[ESYS_TR, TPMT_PUBLIC]]:
    while chip.make_room():  # the attestation key and what it is about need all the places that there are
        pass
    with _primary(chip, shapes.attestation_key()) as (handle, public):
        yield handle, public


@contextlib.contextmanager
def _endorsement_key(chip: Chip) -> Iterator[tuple[ESYS_TR, TPMT_PUBLIC, bytes]]:
    chosen = [create_ek_template(kind, lambda index: _read_nv(chip, index)) for kind in _KINDS]
    certificate, template = next((one for one in chosen if one[0]), chosen[0])
    with _persistent_or_primary(chip, template) as (handle, public):
        yield handle, public, _only_der(certificate or b"")


@contextlib.contextmanager
def _persistent_or_primary(chip: Chip, template: TPM2B_PUBLIC) -> Iterator[tuple[ESYS_TR, TPMT_PUBLIC]]:
    """Deriving an RSA key takes a TPM seconds; many have it made persistent."""
    _, data = chip.esys.get_capability(TPM2_CAP.HANDLES, _PERSISTENT_EK, 64)
    for number in [int(one) for one in data.data.handles]:
        handle = chip.esys.tr_from_tpmpublic(number)
        public = chip.esys.read_public(handle)[0].publicArea
        if public.type == template.publicArea.type and public.authPolicy == template.publicArea.authPolicy:
            yield handle, public
            chip.esys.tr_close(handle)
            return
        chip.esys.tr_close(handle)
    with _primary(chip, template) as (handle, public):
        yield handle, public


@contextlib.contextmanager
def _primary(chip: Chip, template: TPM2B_PUBLIC) -> Iterator[tuple[ESYS_TR, TPMT_PUBLIC]]:
    made = chip.esys.create_primary(TPM2B_SENSITIVE_CREATE(), template, ESYS_TR.ENDORSEMENT)
    try:
        yield made[0], made[1].publicArea
    finally:
        chip.esys.flush_context(made[0])


def _chain(chip: Chip) -> tuple[bytes, ...]:
    _, data = chip.esys.get_capability(TPM2_CAP.HANDLES, _CHAIN, _CHAIN_LENGTH)
    there = [int(one) for one in data.data.handles if _CHAIN <= int(one) < _CHAIN + _CHAIN_LENGTH]
    rest, found = b"".join(_read_nv(chip, index) for index in there), []
    while one := _only_der(rest):
        found.append(one)
        rest = rest[len(one) :]
    return tuple(found)


def _read_nv(chip: Chip, index: int) -> bytes:
    """What certificates lie in: everybody may read it, and no owner's password is wanted (section 2.2.1.2)."""
    try:
        handle = chip.esys.tr_from_tpmpublic(index)
    except TSS2_Exception as error:
        if codes.remedy(error.rc) is Remedy.FRESH:  # TPM_RC_HANDLE
            raise NoSuchIndex(index) from error
        raise
    try:
        size = int(chip.esys.nv_read_public(handle)[0].nvPublic.dataSize)
        data = b""
        while len(data) < size:
            data += bytes(chip.esys.nv_read(handle, min(_NV_PIECE, size - len(data)), len(data), auth_handle=handle))
        return data
    finally:
        chip.esys.tr_close(handle)


def _only_der(data: bytes) -> bytes:
    """The DER SEQUENCE at the beginning: its third and fourth byte say how long it is. Nothing where there is none."""
    if data[:2] != b"\x30\x82":
        return b""
    return data[: 4 + int.from_bytes(data[2:4], "big")]

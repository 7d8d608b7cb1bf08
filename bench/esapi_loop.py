"""The yardstick of a TPM: ESAPI alone, one process, one key, one signature after the other.

python -m bench.esapi_loop TCTI password|hmac SECONDS
"""

from __future__ import annotations

import sys
import time

from tpm2_pytss import (
    ESAPI,
    ESYS_TR,
    TPM2_ALG,
    TPM2_RH,
    TPM2_SE,
    TPM2_ST,
    TPM2B_DIGEST,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPMA_OBJECT,
    TPMA_SESSION,
    TPMT_PUBLIC,
    TPMT_SIG_SCHEME,
    TPMT_TK_HASHCHECK,
)

from hsmsign.backends.tpm import shapes
from hsmsign.model.algorithms import Scheme

_FREELY = TPMA_OBJECT.USERWITHAUTH | TPMA_OBJECT.SENSITIVEDATAORIGIN | TPMA_OBJECT.SIGN_ENCRYPT | TPMA_OBJECT.NODA


def _primary(esys: ESAPI, template: TPM2B_PUBLIC) -> ESYS_TR:
    return esys.create_primary(TPM2B_SENSITIVE_CREATE(), template, ESYS_TR.OWNER)[0]


def loop(tcti: str, authorization: str, seconds: float) -> float:
    """Signatures a second."""
    check = TPMT_TK_HASHCHECK(tag=TPM2_ST.HASHCHECK, hierarchy=TPM2_RH.NULL)
    scheme: TPMT_SIG_SCHEME = shapes.signature_scheme(Scheme.ECDSA_P256_SHA256)
    with ESAPI(tcti) as esys:
        session = ESYS_TR.PASSWORD
        if authorization == "hmac":
            storage = _primary(esys, shapes.storage_key())
            cipher = shapes.session_cipher()
            session = esys.start_auth_session(storage, ESYS_TR.NONE, TPM2_SE.HMAC, cipher, TPM2_ALG.SHA256)
            esys.flush_context(storage)
            esys.trsess_set_attributes(session, TPMA_SESSION.CONTINUESESSION | TPMA_SESSION.DECRYPT, 0xFF)
        key = _primary(esys, TPM2B_PUBLIC(TPMT_PUBLIC.parse("ecc256", objectAttributes=_FREELY)))
        count, began = 0, time.perf_counter()
        while time.perf_counter() < began + seconds:
            esys.sign(key, TPM2B_DIGEST(count.to_bytes(32, "big")), scheme, check, session1=session)
            count += 1
        took = time.perf_counter() - began
        esys.flush_context(key)
        if session != ESYS_TR.PASSWORD:
            esys.flush_context(session)
        return count / took


if __name__ == "__main__":
    print(loop(sys.argv[1], sys.argv[2], float(sys.argv[3])))

"""What a relying party imports: checks offline where a key lives. Needs `cryptography` alone: no TPM, no TPM library.

attested = verify(document, ek_roots=load_pem_x509_certificates(pem), nonce=nonce)
attested.public_key, attested.binding, attested.device
"""

from __future__ import annotations

from hsmsign.attestation.challenging import challenge
from hsmsign.attestation.verifying import Attested, Binding, Evidence, verify
from hsmsign.model.attestation import Challenge
from hsmsign.model.errors import AttestationError

__all__ = ["AttestationError", "Attested", "Binding", "Challenge", "Evidence", "challenge", "verify"]

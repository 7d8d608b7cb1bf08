"""The certificate that a TPM's maker gave its endorsement key (TCG EK Credential Profile)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from cryptography import x509
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from hsmsign.model.errors import AttestationError

EK_USAGE = x509.ObjectIdentifier("2.23.133.8.1")
"""tcg-kp-EKCertificate."""


def check(
    certificate: bytes, chain: Sequence[bytes], roots: Sequence[x509.Certificate], time: dt.datetime | None
) -> x509.Certificate:
    """The endorsement certificate, which one of `roots` or its issuers stand behind. Raises AttestationError."""
    if not roots:
        raise AttestationError("there is no CA to check the endorsement certificate with")
    try:
        leaf = x509.load_der_x509_certificate(certificate)
        intermediates = [x509.load_der_x509_certificate(one) for one in chain]
    except ValueError as error:
        raise AttestationError("the endorsement certificate cannot be read") from error
    issuers = ExtensionPolicy.permit_all().require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _is_ca)
    issuers = issuers.may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _signs_certificates)
    holder = ExtensionPolicy.permit_all().may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _is_of_a_tpm)
    builder = PolicyBuilder().store(Store(list(roots))).extension_policies(ca_policy=issuers, ee_policy=holder)
    if time is not None:
        builder = builder.time(time)
    try:
        builder.build_client_verifier().verify(leaf, intermediates)
    except VerificationError as error:
        raise AttestationError(
            f"no CA that you trust stands behind the endorsement certificate of {leaf.issuer.rfc4514_string()!r}",
            hint=f"is --ek-ca that of the TPM's maker? ({error})",
        ) from error
    return leaf


def _is_ca(_: Policy, __: x509.Certificate, constraints: x509.BasicConstraints) -> None:
    if not constraints.ca:
        raise ValueError("it is no CA")


def _signs_certificates(_: Policy, __: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("it may not sign certificates")


def _is_of_a_tpm(_: Policy, __: x509.Certificate, usage: x509.ExtendedKeyUsage | None) -> None:
    if usage is not None and EK_USAGE not in usage:
        raise ValueError("it is not for an endorsement key")

"""Every error of hsmsign, on one page.

An error says what was wrong, what was expected and what to do about it, and never holds a secret.
`reason` is stable and goes to `google.rpc.ErrorInfo.reason`; `code` is the gRPC status code's name.
`metadata` goes to `ErrorInfo.metadata` (the `CKR_…` name, for one). `retry_after` is in seconds, and
only there where trying the same again may help and is safe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar


class HsmsignError(Exception):
    """The root. `str(error)` is one sentence; `hint` says what to do, or is empty."""

    reason: ClassVar[str] = "INTERNAL"
    code: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.metadata: dict[str, str] = dict(metadata or {})
        self.retry_after = retry_after


class InvalidArgumentError(HsmsignError):
    """The request is wrong whatever the state of the daemon."""

    reason = "INVALID_ARGUMENT"
    code = "INVALID_ARGUMENT"


class ResourceNameError(InvalidArgumentError):
    """A resource name outside the grammar."""

    reason = "NAME_INVALID"


class DigestLengthError(InvalidArgumentError):
    """A digest whose length does not fit the scheme's hash."""

    reason = "DIGEST_LENGTH"

    def __init__(self, hash_name: str, expected: int, got: int) -> None:
        super().__init__(
            f"a {hash_name} digest has {expected} bytes, this one has {got}",
            hint="send the digest itself, not its hexadecimal or base64 form; or send the message",
            metadata={"expected": str(expected), "got": str(got)},
        )


class MessageSizeError(InvalidArgumentError):
    """An input that is empty or larger than the daemon takes."""

    reason = "MESSAGE_SIZE"


class BatchSizeError(InvalidArgumentError):
    """A batch that is empty or has more items than the daemon takes."""

    reason = "BATCH_SIZE"


class InputCorruptedError(InvalidArgumentError):
    """The CRC32C that came with an input does not fit it: it changed on its way."""

    reason = "INPUT_CORRUPTED"


class AlgorithmMismatchError(InvalidArgumentError):
    """A scheme that this kind of key cannot use."""

    reason = "ALGORITHM_MISMATCH"

    def __init__(self, algorithm: str, scheme: str, allowed: Sequence[str]) -> None:
        super().__init__(
            f"a key of algorithm {algorithm} cannot sign with {scheme}",
            hint=f"use one of: {', '.join(allowed)}",
            metadata={"algorithm": algorithm, "scheme": scheme},
        )


class SchemeMissingError(InvalidArgumentError):
    """The key has several schemes, and the request named none."""

    reason = "SCHEME_MISSING"

    def __init__(self, algorithm: str, allowed: Sequence[str]) -> None:
        super().__init__(
            f"a key of algorithm {algorithm} has several signature schemes and the request names none",
            hint=f"name one of: {', '.join(allowed)}",
            metadata={"algorithm": algorithm},
        )


class MessageRequiredError(InvalidArgumentError):
    """A digest for a scheme that signs messages only (Ed25519)."""

    reason = "MESSAGE_REQUIRED"


class UriError(InvalidArgumentError):
    """A `pkcs11:` URI (RFC 7512) that cannot be read, or may not be used."""

    reason = "URI_INVALID"


class AttestationError(InvalidArgumentError):
    """What says where a key lives is not true, or does not prove it."""

    reason = "ATTESTATION_INVALID"


class NotFoundError(HsmsignError):
    """No such resource."""

    reason = "NOT_FOUND"
    code = "NOT_FOUND"


class KeyNotFoundError(NotFoundError):
    """No key, or no version of the key, has this name."""

    reason = "KEY_NOT_FOUND"


class ApprovalNotFoundError(NotFoundError):
    """There is no such request for approvals."""

    reason = "APPROVAL_NOT_FOUND"


class BackendNotFoundError(NotFoundError):
    """No backend has this name."""

    reason = "BACKEND_NOT_FOUND"


class ObjectNotFoundError(NotFoundError):
    """The device has no object that a handle or a URI points to."""

    reason = "OBJECT_NOT_FOUND"


class KeyExistsError(HsmsignError):
    """The name is taken."""

    reason = "KEY_EXISTS"
    code = "ALREADY_EXISTS"


class FailedPreconditionError(HsmsignError):
    """The request is right, the state of things is not."""

    reason = "FAILED_PRECONDITION"
    code = "FAILED_PRECONDITION"


class ApprovalRequiredError(FailedPreconditionError):
    """Others have to approve it first; `metadata["approval"]` names the request that they see."""

    reason = "APPROVAL_REQUIRED"


class VersionStateError(FailedPreconditionError):
    """The key version is disabled or destroyed."""

    reason = "VERSION_NOT_ENABLED"


class AdoptedKeyError(FailedPreconditionError):
    """Destroying an adopted key without saying what becomes of the object on the device."""

    reason = "KEY_ADOPTED"


class ObjectAmbiguousError(FailedPreconditionError):
    """More than one object on the device fits."""

    reason = "OBJECT_AMBIGUOUS"


class CapabilityMissingError(FailedPreconditionError):
    """The device cannot do this."""

    reason = "CAPABILITY_MISSING"


class PinRefusedError(FailedPreconditionError):
    """The token refused the PIN. It was tried once and is not tried again by itself."""

    reason = "PIN_REFUSED"


class PinLockedError(FailedPreconditionError):
    """The token's PIN is locked, or one wrong try would lock it."""

    reason = "PIN_LOCKED"


class ParentChangedError(FailedPreconditionError):
    """A TPM key whose parent is not there: it was made on another TPM, or the TPM was cleared since."""

    reason = "PARENT_CHANGED"


class PcrChangedError(FailedPreconditionError):
    """A TPM key that is bound to platform registers (PCRs) which have other values now."""

    reason = "PCR_CHANGED"


class KeyDamagedError(HsmsignError):
    """What the store keeps of a TPM key is not what was put there."""

    reason = "KEY_DAMAGED"
    code = "DATA_LOSS"


class EtagError(HsmsignError):
    """The key changed since it was read."""

    reason = "ETAG_MISMATCH"
    code = "ABORTED"


class UnauthenticatedError(HsmsignError):
    """The caller did not prove who it is."""

    reason = "UNAUTHENTICATED"
    code = "UNAUTHENTICATED"


class PermissionDeniedError(HsmsignError):
    """The caller may not do this."""

    reason = "PERMISSION_DENIED"
    code = "PERMISSION_DENIED"


class ApprovalDeniedError(PermissionDeniedError):
    """Others were asked to approve it, and one said no."""

    reason = "APPROVAL_DENIED"


class OwnRequestError(PermissionDeniedError):
    """Whoever asked for it, or approved it already, approves it (again)."""

    reason = "APPROVAL_OWN"


class PurposeError(PermissionDeniedError):
    """What was to be signed is not what the key is for."""

    reason = "PURPOSE_MISMATCH"


class ResourceExhaustedError(HsmsignError):
    """Some limit is reached."""

    reason = "RESOURCE_EXHAUSTED"
    code = "RESOURCE_EXHAUSTED"


class CallerLimitError(ResourceExhaustedError):
    """The caller has as much under way, or asks as often, as it may."""

    reason = "CALLER_LIMIT"


class QueueFullError(ResourceExhaustedError):
    """The device has as much waiting work as it may have."""

    reason = "DEVICE_QUEUE_FULL"


class DeviceBusyError(ResourceExhaustedError):
    """The device cannot serve the request before its deadline: what waits already takes longer."""

    reason = "DEVICE_BUSY"


class StoreFullError(ResourceExhaustedError):
    """The disk under the store is full; nothing was changed."""

    reason = "STORE_FULL"


class UnavailableError(HsmsignError):
    """Not now; the same request may be sent again."""

    reason = "UNAVAILABLE"
    code = "UNAVAILABLE"


class DeviceUnavailableError(UnavailableError):
    """The device, or the process that holds it, cannot be reached."""

    reason = "DEVICE_UNAVAILABLE"


class TokenNotPresentError(UnavailableError):
    """The token is not in its slot."""

    reason = "TOKEN_NOT_PRESENT"


class AuditUnavailableError(UnavailableError):
    """What was done could not be recorded, so its result is not given out."""

    reason = "AUDIT_UNAVAILABLE"


class StoreUnavailableError(UnavailableError):
    """The database cannot be reached or is locked."""

    reason = "STORE_UNAVAILABLE"


class CrossedError(StoreUnavailableError):
    """Two changes met in the database, and this one lost: it can be tried again at once."""


class DeadlineError(HsmsignError):
    """The caller's deadline passed before the answer was there."""

    reason = "DEADLINE_EXCEEDED"
    code = "DEADLINE_EXCEEDED"


class CancelledError(HsmsignError):
    """The caller went away; what it had asked for and was not yet signed was not signed."""

    reason = "CANCELLED"
    code = "CANCELLED"


class DeviceError(HsmsignError):
    """The device answered with an error of its own (`metadata["ckr"]` names it)."""

    reason = "DEVICE_ERROR"
    code = "INTERNAL"


class SignatureCorruptedError(HsmsignError):
    """The CRC32C of a signature does not fit it: it changed on its way to the caller."""

    reason = "SIGNATURE_CORRUPTED"
    code = "DATA_LOSS"


class AuditError(HsmsignError):
    """An audit log, a checkpoint or a proof is not what it should be."""

    reason = "AUDIT_INVALID"
    code = "DATA_LOSS"


class CsrError(InvalidArgumentError):
    """A certification request that cannot be read, or does not prove that its key is there; `metadata["check"]`."""

    reason = "CSR_INVALID"


class WeakKeyError(InvalidArgumentError):
    """A public key that is known to be weak, or of a kind that is not certified."""

    reason = "KEY_WEAK"


class ProfileError(InvalidArgumentError):
    """A request that is sound, but not what the profile allows; `metadata["profile"]` and `metadata["check"]`."""

    reason = "PROFILE_MISMATCH"


class OcspRequestError(InvalidArgumentError):
    """An OCSP request that cannot be read (RFC 6960: malformedRequest)."""

    reason = "OCSP_REQUEST_INVALID"


class ProfileNotFoundError(NotFoundError):
    """There is no such profile, or the caller may not use it."""

    reason = "PROFILE_NOT_FOUND"


class AuthorityNotFoundError(NotFoundError):
    """There is no such certificate authority, or no such version of it."""

    reason = "AUTHORITY_NOT_FOUND"


class CertificateNotFoundError(NotFoundError):
    """No certificate with this serial number was issued here."""

    reason = "CERTIFICATE_NOT_FOUND"


class AuthorityExistsError(HsmsignError):
    """There is a certificate authority of this name."""

    reason = "AUTHORITY_EXISTS"
    code = "ALREADY_EXISTS"


class AuthorityStateError(FailedPreconditionError):
    """The certificate authority cannot do this as it is: it has no certificate yet, is retired, or ends too soon."""

    reason = "AUTHORITY_STATE"


class AlreadyRevokedError(FailedPreconditionError):
    """The certificate is revoked already, for another reason."""

    reason = "ALREADY_REVOKED"


class ClockError(FailedPreconditionError):
    """The clock went back: what is signed now would be older than what was signed before."""

    reason = "CLOCK_WENT_BACK"


class IdentityTokenError(PermissionDeniedError):
    """An identity token that vouches for nothing here; `metadata["issuer"]` and `metadata["check"]`."""

    reason = "IDENTITY_TOKEN_INVALID"


class TokenSpentError(PermissionDeniedError):
    """An identity token that was used before."""

    reason = "IDENTITY_TOKEN_SPENT"


class IdentityUnavailableError(UnavailableError):
    """The keys of an identity issuer cannot be had."""

    reason = "IDENTITY_UNAVAILABLE"


class ConfigurationError(HsmsignError):
    """A configuration file, or something it names, is wrong."""

    reason = "CONFIGURATION"
    code = "FAILED_PRECONDITION"


class StapleError(FailedPreconditionError):
    """An OCSP answer that is not to be sent along; `metadata["verdict"]` says why in a word."""

    reason = "STAPLE_INVALID"


class PrivateKeyExportError(HsmsignError, TypeError):
    """Somebody asked a remote key for its private part. It is on a device and stays there."""

    reason = "PRIVATE_KEY_EXPORT"
    code = "FAILED_PRECONDITION"


def rebuild(
    reason: str,
    message: str,
    *,
    hint: str = "",
    metadata: Mapping[str, str] | None = None,
    retry_after: float | None = None,
) -> HsmsignError:
    """The error that crossed a wall as its parts, as its own class again; an unknown reason as the root."""
    pending: list[type[HsmsignError]] = [HsmsignError]
    kind = HsmsignError
    while pending:
        candidate = pending.pop()
        if candidate.reason == reason and "reason" in vars(candidate):
            kind = candidate
        pending.extend(candidate.__subclasses__())
    error = kind.__new__(kind)
    HsmsignError.__init__(error, message, hint=hint, metadata=metadata, retry_after=retry_after)
    return error

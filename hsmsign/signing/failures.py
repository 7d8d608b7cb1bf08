"""What a device's status of one signature means to the caller. The one place that says it."""

from __future__ import annotations

from hsmsign.model import ckr, errors, tpm
from hsmsign.model.device import JobFailure, JobStatus
from hsmsign.model.errors import HsmsignError


def to_error(failure: JobFailure, version: str, device: str) -> HsmsignError:
    """The error of an item that the device did not sign."""
    metadata = {"backend": device}
    said = tpm.read_code(failure.ckr)
    if said is not None:
        metadata["tpm_rc"] = tpm.name(said[0])
    elif failure.ckr:
        metadata["ckr"] = ckr.name(failure.ckr)
    error = None if said is None else _of_a_tpm(said[1], version, device)
    if error is None:
        error = _error(failure, version, device, metadata.get("ckr") or metadata.get("tpm_rc", ""))
    error.metadata.update(metadata)
    return error


def _of_a_tpm(trouble: tpm.Trouble, version: str, device: str) -> HsmsignError | None:
    match trouble:
        case tpm.Trouble.PARENT_CHANGED:
            return errors.ParentChangedError(
                f"{version} was made under another storage key than the TPM of backend {device!r} has now",
                hint="it is another TPM, or it was cleared: such a key cannot come back; make a new one",
            )
        case tpm.Trouble.BLOB_DAMAGED:
            return errors.KeyDamagedError(
                f"what the store keeps of {version} is damaged: the TPM does not take it",
                hint="restore the store from a backup",
            )
        case tpm.Trouble.PCR_CHANGED:
            return errors.PcrChangedError(
                f"{version} is bound to platform registers whose values have changed",
                hint="boot what was booted when the key was made, or make a new key",
            )
        case tpm.Trouble.AUTH_REFUSED:
            return errors.PinRefusedError(
                f"the TPM of backend {device!r} refused the authorization of {version}",
                hint="is key_auth still the secret that the key was made with?",
            )
        case tpm.Trouble.LOCKOUT:
            return errors.PinLockedError(
                f"the TPM of backend {device!r} is in lockout: too many wrong authorizations",
                hint="wait for its recovery time, or reset it with the lockout authorization: tpm2_dictionarylockout",
            )
        case _:
            return None


def _error(failure: JobFailure, version: str, device: str, ckr_name: str) -> HsmsignError:
    look = "look at it: hsmsign backend list"
    match failure.status:
        case JobStatus.DEADLINE:
            return errors.DeadlineError(
                "the deadline passed before it was signed", hint="give more time, or send fewer"
            )
        case JobStatus.CANCELLED:
            return errors.CancelledError("the caller went away before it was signed")
        case JobStatus.KEY_NOT_FOUND:
            return errors.ObjectNotFoundError(
                f"backend {device!r} has not exactly one private key for {version}",
                hint="was it destroyed, or copied, with another tool? restore the token, or destroy the version here",
            )
        case JobStatus.NOT_PRESENT:
            return errors.TokenNotPresentError(
                f"the token of backend {device!r} is not there", hint="put it back", retry_after=1.0
            )
        case JobStatus.PIN_REFUSED:
            return errors.PinRefusedError(
                f"the token of backend {device!r} refused the PIN",
                hint="put the right PIN where the configuration says, then reload the daemon",
            )
        case JobStatus.PIN_LOCKED:
            return errors.PinLockedError(
                f"the PIN of the token of backend {device!r} is locked", hint="the security officer must set a new one"
            )
        case JobStatus.HOST_LOST:
            return errors.DeviceUnavailableError(
                f"the process that holds backend {device!r} went away again and again", hint=look, retry_after=1.0
            )
        case JobStatus.BROKEN:
            return errors.DeviceUnavailableError(f"backend {device!r} has no usable device", hint=look, retry_after=5.0)
        case JobStatus.BAD_INPUT:
            return errors.InvalidArgumentError(f"backend {device!r} does not take this input")
        case JobStatus.UNSUPPORTED:
            return errors.CapabilityMissingError(
                f"the device of backend {device!r} lacks the mechanism for this scheme", hint="choose another scheme"
            )
        case JobStatus.BUSY:
            return errors.DeviceBusyError(
                f"backend {device!r} cannot sign it before the deadline: what waits already takes longer",
                hint="give more time, or send less at once",
                retry_after=1.0,
            )
        case JobStatus.NO_MEMORY:
            return errors.ResourceExhaustedError(f"backend {device!r} is out of memory", retry_after=1.0)
        case _:
            said = f" ({ckr_name})" if ckr_name else ""
            return errors.DeviceError(
                f"the device of backend {device!r} failed to sign{said}", hint="the daemon's log says more"
            )

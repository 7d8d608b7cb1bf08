"""Return values of PKCS #11: numbers, names, and which error of ours each of them is."""

from __future__ import annotations

import re

import pkcs11.exceptions

from hsmsign.model.ckr import NAMES, name
from hsmsign.model.errors import (
    CapabilityMissingError,
    DeviceError,
    DeviceUnavailableError,
    HsmsignError,
    PinLockedError,
    PinRefusedError,
    TokenNotPresentError,
)

_KNOWN = frozenset(NAMES.values())

_SPELT_OTHERWISE = {
    "AnotherUserAlreadyLoggedIn": "CKR_USER_ANOTHER_ALREADY_LOGGED_IN",
    "FunctionCancelled": "CKR_FUNCTION_CANCELED",
    "NoSuchToken": "CKR_TOKEN_NOT_PRESENT",
    "RandomNoRNG": "CKR_RANDOM_NO_RNG",
    "SessionReadWriteSOExists": "CKR_SESSION_READ_WRITE_SO_EXISTS",
    "SlotIDInvalid": "CKR_SLOT_ID_INVALID",
    "TokenNotRecognised": "CKR_TOKEN_NOT_RECOGNIZED",
}
"""Exceptions of python-pkcs11 whose names are not the standard's."""

GONE = frozenset({"CKR_TOKEN_NOT_PRESENT", "CKR_TOKEN_NOT_RECOGNIZED", "CKR_DEVICE_REMOVED", "CKR_SLOT_ID_INVALID"})
"""The token is not there."""

LOST = frozenset(
    {
        "CKR_CRYPTOKI_NOT_INITIALIZED",
        "CKR_OPERATION_ACTIVE",
        "CKR_SESSION_CLOSED",
        "CKR_SESSION_HANDLE_INVALID",
        "CKR_USER_NOT_LOGGED_IN",
    }
)
"""A session or a login was lost: it can be brought back, and the call tried again."""

LACKING = frozenset(
    {
        "CKR_CURVE_NOT_SUPPORTED",
        "CKR_DOMAIN_PARAMS_INVALID",
        "CKR_FUNCTION_NOT_SUPPORTED",
        "CKR_KEY_SIZE_RANGE",
        "CKR_MECHANISM_INVALID",
        "CKR_MECHANISM_PARAM_INVALID",
    }
)
"""The device cannot do this."""

REFUSED = frozenset({"CKR_PIN_EXPIRED", "CKR_PIN_INCORRECT", "CKR_PIN_INVALID", "CKR_PIN_LEN_RANGE"})
"""The PIN was tried, and was not taken."""


def name_of_error(error: pkcs11.exceptions.PKCS11Error) -> str:
    """The name of the CK_RV that python-pkcs11 raised `error` for; empty where there was none."""
    kind = type(error).__name__
    if kind in _SPELT_OTHERWISE:
        return _SPELT_OTHERWISE[kind]
    unmapped = re.search(r"Unmapped error code 0x([0-9a-f]+)", str(error))
    if unmapped:
        return name(int(unmapped[1], 16))
    spelt = "CKR_" + re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind).upper()
    return spelt if spelt in _KNOWN else ""


def to_error(error: pkcs11.exceptions.PKCS11Error, doing: str) -> HsmsignError:
    """`error` as ours; `doing` says what was being done, for the sentence: "making a key"."""
    ckr = name_of_error(error)
    metadata = {"ckr": ckr} if ckr else {}
    why = ckr or str(error) or type(error).__name__
    if ckr in GONE:
        return TokenNotPresentError(
            f"the token went away while {doing} ({why})", hint="put the token back", metadata=metadata, retry_after=1.0
        )
    if ckr in LOST:
        return DeviceUnavailableError(
            f"the session with the token was lost while {doing} ({why}); it is being brought back",
            metadata=metadata,
            retry_after=1.0,
        )
    if ckr == "CKR_PIN_LOCKED":
        return PinLockedError(f"the token's PIN is locked ({why})", hint=UNLOCK, metadata=metadata)
    if ckr in REFUSED:
        return PinRefusedError(f"the token refused the PIN ({why})", hint=CORRECT_PIN, metadata=metadata)
    if ckr in LACKING:
        return CapabilityMissingError(f"the device cannot do this: {doing} ({why})", metadata=metadata)
    return DeviceError(f"the device failed while {doing} ({why})", metadata=metadata)


CORRECT_PIN = "put the right PIN where the configuration says, then reload the daemon; it is not tried again by itself"
UNLOCK = "the security officer must set a new PIN (C_InitPIN with the SO PIN); then reload the daemon"

"""Return values of PKCS #11: numbers, names, and which error of ours each of them is."""

from __future__ import annotations

import re

import pkcs11.exceptions

from hsmsign.model.errors import (
    CapabilityMissingError,
    DeviceError,
    DeviceUnavailableError,
    HsmsignError,
    PinLockedError,
    PinRefusedError,
    TokenNotPresentError,
)

_NAMES: dict[int, str] = {
    0x0: "CKR_OK",
    0x1: "CKR_CANCEL",
    0x2: "CKR_HOST_MEMORY",
    0x3: "CKR_SLOT_ID_INVALID",
    0x5: "CKR_GENERAL_ERROR",
    0x6: "CKR_FUNCTION_FAILED",
    0x7: "CKR_ARGUMENTS_BAD",
    0x8: "CKR_NO_EVENT",
    0x9: "CKR_NEED_TO_CREATE_THREADS",
    0xA: "CKR_CANT_LOCK",
    0x10: "CKR_ATTRIBUTE_READ_ONLY",
    0x11: "CKR_ATTRIBUTE_SENSITIVE",
    0x12: "CKR_ATTRIBUTE_TYPE_INVALID",
    0x13: "CKR_ATTRIBUTE_VALUE_INVALID",
    0x1B: "CKR_ACTION_PROHIBITED",
    0x20: "CKR_DATA_INVALID",
    0x21: "CKR_DATA_LEN_RANGE",
    0x30: "CKR_DEVICE_ERROR",
    0x31: "CKR_DEVICE_MEMORY",
    0x32: "CKR_DEVICE_REMOVED",
    0x40: "CKR_ENCRYPTED_DATA_INVALID",
    0x41: "CKR_ENCRYPTED_DATA_LEN_RANGE",
    0x42: "CKR_AEAD_DECRYPT_FAILED",
    0x50: "CKR_FUNCTION_CANCELED",
    0x51: "CKR_FUNCTION_NOT_PARALLEL",
    0x54: "CKR_FUNCTION_NOT_SUPPORTED",
    0x60: "CKR_KEY_HANDLE_INVALID",
    0x62: "CKR_KEY_SIZE_RANGE",
    0x63: "CKR_KEY_TYPE_INCONSISTENT",
    0x64: "CKR_KEY_NOT_NEEDED",
    0x65: "CKR_KEY_CHANGED",
    0x66: "CKR_KEY_NEEDED",
    0x67: "CKR_KEY_INDIGESTIBLE",
    0x68: "CKR_KEY_FUNCTION_NOT_PERMITTED",
    0x69: "CKR_KEY_NOT_WRAPPABLE",
    0x6A: "CKR_KEY_UNEXTRACTABLE",
    0x70: "CKR_MECHANISM_INVALID",
    0x71: "CKR_MECHANISM_PARAM_INVALID",
    0x82: "CKR_OBJECT_HANDLE_INVALID",
    0x90: "CKR_OPERATION_ACTIVE",
    0x91: "CKR_OPERATION_NOT_INITIALIZED",
    0xA0: "CKR_PIN_INCORRECT",
    0xA1: "CKR_PIN_INVALID",
    0xA2: "CKR_PIN_LEN_RANGE",
    0xA3: "CKR_PIN_EXPIRED",
    0xA4: "CKR_PIN_LOCKED",
    0xB0: "CKR_SESSION_CLOSED",
    0xB1: "CKR_SESSION_COUNT",
    0xB3: "CKR_SESSION_HANDLE_INVALID",
    0xB4: "CKR_SESSION_PARALLEL_NOT_SUPPORTED",
    0xB5: "CKR_SESSION_READ_ONLY",
    0xB6: "CKR_SESSION_EXISTS",
    0xB7: "CKR_SESSION_READ_ONLY_EXISTS",
    0xB8: "CKR_SESSION_READ_WRITE_SO_EXISTS",
    0xC0: "CKR_SIGNATURE_INVALID",
    0xC1: "CKR_SIGNATURE_LEN_RANGE",
    0xD0: "CKR_TEMPLATE_INCOMPLETE",
    0xD1: "CKR_TEMPLATE_INCONSISTENT",
    0xE0: "CKR_TOKEN_NOT_PRESENT",
    0xE1: "CKR_TOKEN_NOT_RECOGNIZED",
    0xE2: "CKR_TOKEN_WRITE_PROTECTED",
    0xF1: "CKR_UNWRAPPING_KEY_SIZE_RANGE",
    0xF2: "CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT",
    0x100: "CKR_USER_ALREADY_LOGGED_IN",
    0x101: "CKR_USER_NOT_LOGGED_IN",
    0x102: "CKR_USER_PIN_NOT_INITIALIZED",
    0x103: "CKR_USER_TYPE_INVALID",
    0x104: "CKR_USER_ANOTHER_ALREADY_LOGGED_IN",
    0x105: "CKR_USER_TOO_MANY_TYPES",
    0x110: "CKR_WRAPPED_KEY_INVALID",
    0x112: "CKR_WRAPPED_KEY_LEN_RANGE",
    0x113: "CKR_WRAPPING_KEY_HANDLE_INVALID",
    0x114: "CKR_WRAPPING_KEY_SIZE_RANGE",
    0x115: "CKR_WRAPPING_KEY_TYPE_INCONSISTENT",
    0x120: "CKR_RANDOM_SEED_NOT_SUPPORTED",
    0x121: "CKR_RANDOM_NO_RNG",
    0x130: "CKR_DOMAIN_PARAMS_INVALID",
    0x140: "CKR_CURVE_NOT_SUPPORTED",
    0x150: "CKR_BUFFER_TOO_SMALL",
    0x160: "CKR_SAVED_STATE_INVALID",
    0x170: "CKR_INFORMATION_SENSITIVE",
    0x180: "CKR_STATE_UNSAVEABLE",
    0x190: "CKR_CRYPTOKI_NOT_INITIALIZED",
    0x191: "CKR_CRYPTOKI_ALREADY_INITIALIZED",
    0x1A0: "CKR_MUTEX_BAD",
    0x1A1: "CKR_MUTEX_NOT_LOCKED",
    0x1B0: "CKR_NEW_PIN_MODE",
    0x1B1: "CKR_NEXT_OTP",
    0x1C0: "CKR_EXCEEDED_MAX_ITERATIONS",
    0x1C1: "CKR_FIPS_SELF_TEST_FAILED",
    0x1C2: "CKR_LIBRARY_LOAD_FAILED",
    0x1C3: "CKR_PIN_TOO_WEAK",
    0x1C4: "CKR_PUBLIC_KEY_INVALID",
    0x200: "CKR_FUNCTION_REJECTED",
    0x201: "CKR_TOKEN_RESOURCE_EXCEEDED",
    0x202: "CKR_OPERATION_CANCEL_FAILED",
    0x203: "CKR_KEY_EXHAUSTED",
    0x204: "CKR_PENDING",
    0x205: "CKR_SESSION_ASYNC_NOT_SUPPORTED",
    0x206: "CKR_SEED_RANDOM_REQUIRED",
    0x207: "CKR_OPERATION_NOT_VALIDATED",
    0x208: "CKR_TOKEN_NOT_INITIALIZED",
    0x209: "CKR_PARAMETER_SET_NOT_SUPPORTED",
}
_KNOWN = frozenset(_NAMES.values())

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


def name(number: int) -> str:
    """The name of a CK_RV: `CKR_PIN_INCORRECT`; `CKR_VENDOR_DEFINED+0x…` or `CKR_0x…` where there is none."""
    if number in _NAMES:
        return _NAMES[number]
    if number >= 0x80000000:
        return f"CKR_VENDOR_DEFINED+0x{number - 0x80000000:x}"
    return f"CKR_0x{number:x}"


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

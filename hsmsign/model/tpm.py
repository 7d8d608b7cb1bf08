"""What a TPM 2.0 answers, as it crosses the process wall and as people read it.

Response codes are those of the TPM 2.0 Library, Part 2, section 6.6; a code of the software stack above it
(TSS 2.0 Overview and Common Structures, section 3) has its layer in bits 16 to 23.
"""

from __future__ import annotations

import enum

CODE = 1 << 32
"""Marks a device's code as a TPM's (native/core/frame.h); the response code is in the low 32 bits."""
_TROUBLE_SHIFT = 40


class Trouble(enum.IntEnum):
    """What a signature met, where the response code alone would not say it."""

    NONE = 0
    PARENT_CHANGED = 1
    """The key belongs to another storage primary: another TPM, or one that was cleared."""
    BLOB_DAMAGED = 2
    PCR_CHANGED = 3
    AUTH_REFUSED = 4
    LOCKOUT = 5


_FORMAT_ZERO = {
    0x100: "INITIALIZE", 0x101: "FAILURE", 0x103: "SEQUENCE", 0x120: "DISABLED", 0x121: "EXCLUSIVE",
    0x124: "AUTH_TYPE", 0x125: "AUTH_MISSING", 0x126: "POLICY", 0x127: "PCR", 0x128: "PCR_CHANGED",
    0x12D: "UPGRADE", 0x12E: "TOO_MANY_CONTEXTS", 0x12F: "AUTH_UNAVAILABLE", 0x130: "REBOOT",
    0x131: "UNBALANCED", 0x142: "COMMAND_SIZE", 0x143: "COMMAND_CODE", 0x144: "AUTHSIZE", 0x145: "AUTH_CONTEXT",
    0x146: "NV_RANGE", 0x147: "NV_SIZE", 0x148: "NV_LOCKED", 0x149: "NV_AUTHORIZATION",
    0x14A: "NV_UNINITIALIZED", 0x14B: "NV_SPACE", 0x14C: "NV_DEFINED", 0x150: "BAD_CONTEXT", 0x151: "CPHASH",
    0x152: "PARENT", 0x153: "NEEDS_TEST", 0x154: "NO_RESULT", 0x155: "SENSITIVE",
    0x901: "CONTEXT_GAP", 0x902: "OBJECT_MEMORY", 0x903: "SESSION_MEMORY", 0x904: "MEMORY",
    0x905: "SESSION_HANDLES", 0x906: "OBJECT_HANDLES", 0x907: "LOCALITY", 0x908: "YIELDED", 0x909: "CANCELED",
    0x90A: "TESTING", 0x910: "REFERENCE_H0", 0x911: "REFERENCE_H1", 0x912: "REFERENCE_H2",
    0x913: "REFERENCE_H3", 0x914: "REFERENCE_H4", 0x915: "REFERENCE_H5", 0x916: "REFERENCE_H6",
    0x918: "REFERENCE_S0", 0x919: "REFERENCE_S1", 0x91A: "REFERENCE_S2", 0x91B: "REFERENCE_S3",
    0x91C: "REFERENCE_S4", 0x91D: "REFERENCE_S5", 0x91E: "REFERENCE_S6", 0x920: "NV_RATE", 0x921: "LOCKOUT",
    0x922: "RETRY", 0x923: "NV_UNAVAILABLE",
}  # fmt: skip
_FORMAT_ONE = {
    0x81: "ASYMMETRIC", 0x82: "ATTRIBUTES", 0x83: "HASH", 0x84: "VALUE", 0x85: "HIERARCHY", 0x87: "KEY_SIZE",
    0x88: "MGF", 0x89: "MODE", 0x8A: "TYPE", 0x8B: "HANDLE", 0x8C: "KDF", 0x8D: "RANGE", 0x8E: "AUTH_FAIL",
    0x8F: "NONCE", 0x90: "PP", 0x92: "SCHEME", 0x95: "SIZE", 0x96: "SYMMETRIC", 0x97: "TAG", 0x98: "SELECTOR",
    0x9A: "INSUFFICIENT", 0x9B: "SIGNATURE", 0x9C: "KEY", 0x9D: "POLICY_FAIL", 0x9F: "INTEGRITY",
    0xA0: "TICKET", 0xA1: "RESERVED_BITS", 0xA2: "BAD_AUTH", 0xA3: "EXPIRED", 0xA4: "POLICY_CC",
    0xA5: "BINDING", 0xA6: "CURVE", 0xA7: "ECC_POINT",
}  # fmt: skip
_LAYERS = {6: "FAPI", 7: "ESYS", 8: "SYS", 9: "MU", 10: "TCTI", 11: "RESMGR", 12: "RESMGR_TPM"}


def base(rc: int) -> int:
    """A response code without the number of the handle, session or parameter that it is about."""
    layer, code = rc >> 16, rc & 0xFFFF
    if layer not in (0, 11, 12):
        return rc
    return code & 0xBF if code & 0x80 else code & 0x97F


def name(rc: int) -> str:
    """`TPM_RC_INTEGRITY`, `TSS2_TCTI_RC_0xA`, …"""
    layer = _LAYERS.get(rc >> 16, "")
    plain = base(rc)
    if layer and not layer.startswith("RESMGR"):
        return f"TSS2_{layer}_RC_0x{rc & 0xFFFF:X}"
    known = _FORMAT_ONE.get(plain) or _FORMAT_ZERO.get(plain)
    return f"TPM_RC_{known}" if known else f"TPM_RC_0x{rc & 0xFFFF:X}"


def code(rc: int, trouble: Trouble = Trouble.NONE) -> int:
    """How a failure crosses the process wall beside JobStatus.DEVICE_ERROR."""
    return CODE | (int(trouble) << _TROUBLE_SHIFT) | (rc & 0xFFFFFFFF)


def read_code(number: int) -> tuple[int, Trouble] | None:
    """The response code and what it means, from `code`; None where the number is not a TPM's."""
    if not number & CODE:
        return None
    trouble = number >> _TROUBLE_SHIFT
    return number & 0xFFFFFFFF, Trouble(trouble) if trouble in Trouble._value2member_map_ else Trouble.NONE

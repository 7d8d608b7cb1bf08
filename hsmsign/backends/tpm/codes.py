"""What to do about a response code of the TPM, or of the software on the way to it."""

from __future__ import annotations

import enum

from hsmsign.model import tpm
from hsmsign.model.tpm import Trouble


class Remedy(enum.Enum):
    """What helps."""

    NOTHING = "nothing"
    WAIT = "wait"
    """The TPM is busy with itself: the same command a little later."""
    FRESH = "fresh"
    """Sessions or loaded objects are gone: make and load them anew, then the same command."""
    ROOM = "room"
    """No slot is free: flush an object, then the same command."""
    RECONNECT = "reconnect"
    """The way to the TPM is gone, or the TPM was reset."""


_TCTI, _ESYS = 10, 7
_WAIT = frozenset({0x908, 0x90A, 0x920, 0x922})  # YIELDED, TESTING, NV_RATE, RETRY
_FRESH = frozenset({0x901, 0x903, 0x905, *range(0x910, 0x917), *range(0x918, 0x91F), 0x8B, 0x8F})
_ROOM = frozenset({0x902, 0x904, 0x906})
_RECONNECT = frozenset({0x100, 0x130})
_TROUBLE = {
    0x9F: Trouble.BLOB_DAMAGED,
    0x9D: Trouble.PCR_CHANGED,
    0x128: Trouble.PCR_CHANGED,
    0xA2: Trouble.AUTH_REFUSED,
    0x8E: Trouble.AUTH_REFUSED,
    0x921: Trouble.LOCKOUT,
}
BAD_AUTH = frozenset({0xA2, 0x8E})
LOCKOUT = 0x921
INITIALIZE = 0x100
TCTI_IO_ERROR = 0xA000A


def remedy(rc: int) -> Remedy:
    """What helps against a response code."""
    if rc >> 16 in (_TCTI, _ESYS):
        return Remedy.RECONNECT
    plain = tpm.base(rc)
    for codes, helps in (
        (_WAIT, Remedy.WAIT),
        (_FRESH, Remedy.FRESH),
        (_ROOM, Remedy.ROOM),
        (_RECONNECT, Remedy.RECONNECT),
    ):
        if plain in codes:
            return helps
    return Remedy.NOTHING


def trouble(rc: int) -> Trouble:
    """What it means for the key that a command was about."""
    return _TROUBLE.get(tpm.base(rc), Trouble.NONE)

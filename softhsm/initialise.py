"""Initialises one token. Run as a script of its own process, which knows only the standard library.

A process of its own, because SoftHSM reads SOFTHSM2_CONF once, at C_Initialize, and keeps what it read;
ctypes, because python-pkcs11 has no C_InitToken. The PINs come over stdin and appear in no argument.

stdin    {"module": path, "label": text, "pin": text, "so_pin": text}
stdout   {"serial": text, "created": bool}   or   {"error": text, "ckr": number}
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any

_TOKEN_INITIALIZED = 0x400
_USER_PIN_INITIALIZED = 0x8
_RW_SESSION = 0x6  # CKF_RW_SESSION | CKF_SERIAL_SESSION
_SECURITY_OFFICER = 0
_USER = 1
_ULONG = ctypes.c_ulong


class _Version(ctypes.Structure):
    _fields_ = (("major", ctypes.c_ubyte), ("minor", ctypes.c_ubyte))


class _TokenInfo(ctypes.Structure):
    """CK_TOKEN_INFO (PKCS #11, section 3.2)."""

    _fields_ = (
        ("label", ctypes.c_char * 32),
        ("manufacturer", ctypes.c_char * 32),
        ("model", ctypes.c_char * 16),
        ("serial", ctypes.c_char * 16),
        ("flags", _ULONG),
        ("counts", _ULONG * 10),
        ("hardware", _Version),
        ("firmware", _Version),
        ("time", ctypes.c_char * 16),
    )


class _Failure(Exception):
    """A call of the module that failed: its name and CK_RV."""

    def __init__(self, function: str, ckr: int) -> None:
        super().__init__(function)
        self.function, self.ckr = function, ckr


class _Module:
    """The few functions that are needed, each raising _Failure."""

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)

    def call(self, function: str, *arguments: Any) -> None:
        entry = getattr(self._library, function)
        entry.restype = _ULONG
        ckr = entry(*arguments)
        if ckr != 0:
            raise _Failure(function, ckr)

    def slots(self) -> list[int]:
        count = _ULONG()
        self.call("C_GetSlotList", ctypes.c_ubyte(1), None, ctypes.byref(count))
        slots = (_ULONG * count.value)()
        self.call("C_GetSlotList", ctypes.c_ubyte(1), slots, ctypes.byref(count))
        return list(slots[: count.value])

    def token(self, slot: int) -> _TokenInfo:
        info = _TokenInfo()
        self.call("C_GetTokenInfo", _ULONG(slot), ctypes.byref(info))
        return info


def initialise(request: dict[str, str]) -> dict[str, Any]:
    """Make the token, or say its serial where one with this label is there already."""
    module = _Module(request["module"])
    module.call("C_Initialize", None)
    try:
        so_pin, pin = request["so_pin"].encode(), request["pin"].encode()
        there = _find(module, request["label"])
        if there is not None:
            slot, info = there
            if not info.flags & _USER_PIN_INITIALIZED:  # whoever made it was interrupted here
                _set_user_pin(module, slot, so_pin, pin)
            return {"serial": _serial(info), "created": False}
        free = next((s for s in module.slots() if not module.token(s).flags & _TOKEN_INITIALIZED), None)
        if free is None:
            return {"error": "the module has no free slot for a new token", "ckr": 0}
        padded = request["label"].encode().ljust(32)
        module.call("C_InitToken", _ULONG(free), so_pin, _ULONG(len(so_pin)), padded)
        _set_user_pin(module, free, so_pin, pin)
        return {"serial": _serial(module.token(free)), "created": True}
    finally:
        module.call("C_Finalize", None)


def _find(module: _Module, label: str) -> tuple[int, _TokenInfo] | None:
    for slot in module.slots():
        info = module.token(slot)
        if info.flags & _TOKEN_INITIALIZED and info.label.decode("utf-8", "replace").rstrip() == label:
            return slot, info
    return None


def _serial(info: _TokenInfo) -> str:
    return str(info.serial.decode("ascii", "replace").rstrip())


def _set_user_pin(module: _Module, slot: int, so_pin: bytes, pin: bytes) -> None:
    session = _ULONG()
    module.call("C_OpenSession", _ULONG(slot), _ULONG(_RW_SESSION), None, None, ctypes.byref(session))
    module.call("C_Login", session, _ULONG(_SECURITY_OFFICER), so_pin, _ULONG(len(so_pin)))
    module.call("C_InitPIN", session, pin, _ULONG(len(pin)))
    module.call("C_Logout", session)
    module.call("C_Login", session, _ULONG(_USER), pin, _ULONG(len(pin)))  # it works, or we learn of it here
    module.call("C_CloseSession", session)


def main() -> int:
    """Read the request, answer, return the exit code."""
    try:
        answer = initialise(json.load(sys.stdin))
    except _Failure as failure:
        answer = {"error": f"{failure.function} failed", "ckr": failure.ckr}
    except (OSError, AttributeError) as error:  # no such library; or one without the C_ functions
        answer = {"error": f"it is no PKCS #11 module: {error}", "ckr": 0}
    json.dump(answer, sys.stdout)
    return 1 if "error" in answer else 0


if __name__ == "__main__":
    sys.exit(main())

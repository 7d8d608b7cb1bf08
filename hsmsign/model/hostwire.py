"""The management connection between a front worker and a device host.

It begins with the 12 bytes of `struct hsm_hello` (native/core/frame.h); then each side sends messages of
four bytes of length (network order) and that much JSON. One request is under way at a time.

    request   {"op": "generate", "args": {...}}
    answer    {"ok": <value>}   or   {"error": {"reason", "message", "hint", "metadata"}}

A dataclass of `hsmsign.model.device` crosses as a JSON object, bytes as base64 text, an enum as its name.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import struct
import types
import typing
from pathlib import Path
from typing import Any

from hsmsign.model.errors import HsmsignError, rebuild

HELLO = struct.Struct("=IHHI")
MAGIC = 0x314D5348
PROTOCOL_VERSION = 1
HELLO_MANAGE = 1
HELLO_SIGN = 2
MESSAGE_MAX = 1 << 20
LENGTH = struct.Struct("!I")


def hello(kind: int) -> bytes:
    """The first bytes of a connection; `kind` is HELLO_MANAGE or HELLO_SIGN."""
    return HELLO.pack(MAGIC, PROTOCOL_VERSION, kind, 0)


def to_json(value: object) -> Any:
    """A value of `hsmsign.model.device` as what `json.dumps` takes."""
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if dataclasses.is_dataclass(value):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, Path):
        return str(value)
    return value


def from_json(wanted: Any, value: Any) -> Any:
    """The value of type `wanted` that `to_json` made `value` from. Raises ValueError where it does not fit."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else from_json(next(a for a in arguments if a is not types.NoneType), value)
    if origin is tuple and Ellipsis not in arguments:
        return tuple(from_json(one, item) for one, item in zip(arguments, _expect(list, value), strict=True))
    if origin in (tuple, list):
        return origin(from_json(arguments[0], item) for item in _expect(list, value))
    if origin is dict:
        return {key: from_json(arguments[1], item) for key, item in _expect(dict, value).items()}
    if wanted is bytes:
        return base64.b64decode(_expect(str, value), validate=True)
    if wanted is Path:
        return Path(_expect(str, value))
    if isinstance(wanted, type) and issubclass(wanted, enum.Enum):
        if value not in wanted.__members__:
            raise ValueError(f"{value!r} is no {wanted.__name__}")
        return wanted[value]
    if dataclasses.is_dataclass(wanted):
        hints = typing.get_type_hints(wanted)
        return wanted(**{name: from_json(hints[name], item) for name, item in _expect(dict, value).items()})  # type: ignore[operator]
    return float(value) if wanted is float and isinstance(value, int) else _expect(wanted, value)


def _expect(wanted: type, value: Any) -> Any:
    if not isinstance(value, wanted):
        raise ValueError(f"expected {wanted.__name__}, got {type(value).__name__}")  # noqa: TRY004 - one error type
    return value


def error_to_json(error: HsmsignError) -> dict[str, Any]:
    """An error as the `error` member of an answer."""
    return {"reason": error.reason, "message": error.message, "hint": error.hint, "metadata": error.metadata}


def error_from_json(value: dict[str, Any]) -> HsmsignError:
    """The error that `error_to_json` made `value` from."""
    return rebuild(value["reason"], value["message"], hint=value["hint"], metadata=value["metadata"])

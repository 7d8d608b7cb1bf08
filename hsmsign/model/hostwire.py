"""The management connection between a front worker and a device host.

It begins with the 12 bytes of `struct hsm_hello` (native/core/frame.h); then each side sends messages of
four bytes of length (network order) and that much JSON. One request is under way at a time.

    request   {"op": "generate", "args": {...}}
    answer    {"ok": <value>}   or   {"error": {"reason", "message", "hint", "metadata"}}

A dataclass of `hsmsign.model.device` crosses as a JSON object, bytes as base64 text, an enum as its name.
"""

from __future__ import annotations

import struct

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

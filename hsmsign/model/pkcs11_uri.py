"""`pkcs11:` URIs (RFC 7512) by which a caller points to a key that a token has already."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from hsmsign.model.errors import UriError

_USED = ("token", "manufacturer", "serial", "model", "object", "id", "type")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ALLOWED = re.compile(r"[A-Za-z0-9\-._~:\[\]@!$'()*+,=&%]*")
"""Section 2.3: unreserved, pk11-res-avail, "&", and percent-encoded bytes."""
_EXAMPLE = "for example pkcs11:token=prod;id=%01%02;type=private (RFC 7512)"
_MAX = 4096


@dataclass(frozen=True, slots=True)
class ObjectUri:
    """Which private key of which token. None: the URI does not say. An id, an object, or both are there."""

    token: str | None = None
    manufacturer: str | None = None
    serial: str | None = None
    model: str | None = None
    object: str | None = None
    id: bytes | None = None


def parse(text: str) -> ObjectUri:
    """Read a URI. Raises UriError; it never repeats a value, which may be a PIN that went astray."""
    scheme, colon, rest = text[: _MAX + 1].partition(":")
    if not colon or scheme.lower() != "pkcs11":
        raise UriError("this is no pkcs11: URI", hint=_EXAMPLE)
    if len(text) > _MAX:
        raise UriError(f"the pkcs11: URI is longer than {_MAX} characters", hint=_EXAMPLE)
    path, _, query = rest.partition("?")
    _refuse_query(query)
    said = _attributes(path)
    if said.pop("type", b"private") != b"private":
        raise UriError("the pkcs11: URI points to no private key", hint="say type=private, or leave type out")
    id = said.pop("id", None)
    uri = ObjectUri(id=id, **{name: _text(name, value) for name, value in said.items()})
    if not uri.id and not uri.object:
        raise UriError("the pkcs11: URI names no object", hint=f"add id= or object=; {_EXAMPLE}")
    return uri


def _attributes(path: str) -> dict[str, bytes]:
    said: dict[str, bytes] = {}
    for part in path.split(";") if path else ():
        name, equals, value = part.partition("=")
        if name not in _USED:
            shown = name if re.fullmatch(r"[a-z][a-z0-9-]{0,40}", name) else "something"
            raise UriError(
                f"the pkcs11: URI says {shown}, by which nothing is found here", hint=f"use: {', '.join(_USED)}"
            )
        if not equals or name in said:
            raise UriError(f"the pkcs11: URI must say {name}=VALUE, once", hint=_EXAMPLE)
        if _BAD_PERCENT.search(value) or not _ALLOWED.fullmatch(value):
            raise UriError(
                f"the value of {name} in the pkcs11: URI is not percent-encoded",
                hint="RFC 7512, section 2.3: %20 for a space",
            )
        said[name] = unquote_to_bytes(value)
    return said


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise UriError(f"the value of {name} in the pkcs11: URI is not UTF-8") from None


def _refuse_query(query: str) -> None:
    names = {part.partition("=")[0] for part in query.split("&")} if query else set()
    if names & {"pin-value", "pin-source"}:
        raise UriError(
            "the pkcs11: URI says how to log in, and a caller's URI may not",
            hint="leave the PIN out, and change it if it was real: the daemon has its own",
        )
    if names:
        raise UriError(
            "the pkcs11: URI has a query part, and a caller's URI may not choose a library",
            hint="leave out what stands after '?'; name a backend of the daemon instead",
        )

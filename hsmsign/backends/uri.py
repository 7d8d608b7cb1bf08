"""RFC 7512 `pkcs11:` URIs: reading one that a person gives, and writing one that says where a key is."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from hsmsign.backends.base import ObjectQuery
from hsmsign.model.errors import UriError

_PATH = frozenset(
    {
        "token", "manufacturer", "serial", "model", "library-manufacturer", "library-version",
        "library-description", "object", "type", "id", "slot-description", "slot-manufacturer", "slot-id",
    }
)  # fmt: skip
_QUERY = frozenset({"pin-source", "pin-value", "module-name", "module-path"})
_SAFE = "-._~:[]@!$'()*+,="
"""Characters of a value that need no percent (RFC 7512, section 2.3: unreserved, pk11-res-avail without `&`)."""


@dataclass(frozen=True, slots=True)
class Pkcs11Uri:
    """What a URI says, without a PIN. None: it does not say."""

    token: str | None = None
    serial: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    object: str | None = None
    type: str | None = None
    id: bytes | None = None

    @property
    def query(self) -> ObjectQuery:
        """Which object it points to. Raises UriError where it names neither an id nor an object."""
        if self.id is None and self.object is None:
            raise UriError("the pkcs11: URI names no object", hint="add id=%01%02… or object=LABEL")
        return ObjectQuery(id=self.id, label=self.object)

    def __str__(self) -> str:
        parts = []
        for name in ("token", "serial", "manufacturer", "model"):
            value = getattr(self, name)
            if value:
                parts.append(f"{name}={quote(value, safe=_SAFE)}")
        if self.id:
            # RFC 7512, section 2.3: the id SHOULD be percent-encoded as a whole
            parts.append("id=" + "".join(f"%{byte:02X}" for byte in self.id))
        if self.object:
            parts.append(f"object={quote(self.object, safe=_SAFE)}")
        if self.type:
            parts.append(f"type={self.type}")
        return "pkcs11:" + ";".join(parts)


def parse(text: str) -> Pkcs11Uri:
    """Read a URI. Raises UriError, also for one that carries a PIN: `pin-value` would be in logs by now."""
    scheme, colon, rest = text.partition(":")
    if scheme.lower() != "pkcs11" or not colon:
        raise UriError("not a pkcs11: URI", hint="RFC 7512: pkcs11:token=NAME;id=%01%02;type=private")
    path, _, query = rest.partition("?")
    _refuse_query(query)
    said: dict[str, bytes] = {}
    for part in path.split(";"):
        if not part:
            continue
        name, equals, value = part.partition("=")
        if not equals:
            raise UriError(f"the part {name!r} of the pkcs11: URI has no '='")
        if name in said:
            raise UriError(f"the pkcs11: URI says {name!r} twice", hint="RFC 7512, section 2.3 allows it once")
        if name not in _PATH and not name.startswith("x-"):
            raise UriError(f"{name!r} is no attribute of a pkcs11: URI", hint=f"known: {', '.join(sorted(_PATH))}")
        said[name] = _unquote(name, value)
    kind = _text(said, "type")
    if kind not in (None, "private"):
        raise UriError(f"the pkcs11: URI points to a {kind!r} where a private key is wanted", hint="say type=private")
    return Pkcs11Uri(
        token=_text(said, "token"),
        serial=_text(said, "serial"),
        manufacturer=_text(said, "manufacturer"),
        model=_text(said, "model"),
        object=_text(said, "object"),
        type=kind,
        id=said.get("id"),
    )


def _refuse_query(query: str) -> None:
    for part in query.split("&") if query else ():
        name = part.partition("=")[0]
        if name in ("pin-value", "pin-source"):
            raise UriError(
                f"the pkcs11: URI has {name}: a caller's URI may not say how to log in",
                hint="the PIN is the daemon's: pin.file, pin.env or pin.credential in its configuration",
            )
        if name in ("module-name", "module-path"):
            raise UriError(
                f"the pkcs11: URI has {name}: a caller's URI may not choose a library",
                hint="name a backend of the daemon's configuration instead",
            )
        raise UriError(f"{name!r} is no query attribute of a pkcs11: URI", hint=f"known: {', '.join(sorted(_QUERY))}")


def _unquote(name: str, value: str) -> bytes:
    position = value.find("%")
    while position >= 0:
        digits = value[position + 1 : position + 3]
        if len(digits) != 2 or any(d not in "0123456789abcdefABCDEF" for d in digits):
            raise UriError(f"the value of {name!r} in the pkcs11: URI has a '%' without two hexadecimal digits")
        position = value.find("%", position + 1)
    return unquote_to_bytes(value)


def _text(said: dict[str, bytes], name: str) -> str | None:
    if name not in said:
        return None
    try:
        return said[name].decode("utf-8")
    except UnicodeDecodeError:
        raise UriError(f"the value of {name!r} in the pkcs11: URI is not UTF-8") from None

"""URIs by which a caller points to a key that a device has already: `pkcs11:` (RFC 7512), or `tpm2:handle=0x81…`."""

from __future__ import annotations

import re

from hsmsign.model import pkcs11_uri
from hsmsign.model.errors import UriError
from hsmsign.model.pkcs11_uri import ObjectUri

_TPM = re.compile(r"tpm2:handle=0x([0-9a-fA-F]{8})")


def parse(text: str) -> ObjectUri:
    """Read a URI. A persistent handle of a TPM becomes an id of four bytes. Raises UriError."""
    if text[:5].lower() != "tpm2:":
        return pkcs11_uri.parse(text)
    matched = _TPM.fullmatch(text)
    if matched is None or not 0x81000000 <= int(matched[1], 16) <= 0x81FFFFFF:
        raise UriError("the tpm2: URI names no persistent handle", hint="for example tpm2:handle=0x81010001")
    return ObjectUri(id=bytes.fromhex(matched[1]))

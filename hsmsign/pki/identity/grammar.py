"""What a rendered name must be, whatever it was made from. Each function gives the name back as certificates have it,
and raises ValueError with what would have been one."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import unquote

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_URI = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,31})://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?"
    r"(?P<path>(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)*)"
    r"(?:\?(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?"
)
_SPIFFE_ID = re.compile(r"spiffe://[a-z0-9._-]{1,255}(?:/[A-Za-z0-9._-]+)*")
_DOTS = (".", "..")
_URI_MAX = 2048
_DNS_MAX = 253
_LOCAL_MAX = 64
_COMMON_NAME_MAX = 64


def label(text: str) -> str:
    """One label of a host name (RFC 1123, section 2.1), in lower case."""
    # first: the Kelvin sign is a k in lower case
    if not text.isascii() or not _LABEL.fullmatch(text.lower()):
        raise ValueError("one label of a host name: 1 to 63 of a-z 0-9 -, no hyphen at its ends")
    return text.lower()


def dns(text: str) -> str:
    """A host name, in lower case; no wildcard, nothing that could be an address."""
    labels = text.split(".")
    if len(text) > _DNS_MAX or labels[-1].isdigit():
        raise ValueError("a host name of at most 253 characters, whose last label is no number")
    return ".".join(label(one) for one in labels)


def uri(text: str) -> str:
    """An absolute URI with a host, no user, no fragment, no dot segments (RFC 3986); or a SPIFFE ID."""
    found = _URI.fullmatch(text) if len(text) <= _URI_MAX else None
    if found is None or any(unquote(one) in _DOTS for one in found["path"].split("/")):
        raise ValueError("a URI with a scheme and a host, without user, fragment, . and ..")
    if found["scheme"].lower() == "spiffe":
        return spiffe_id(text)
    host = found["host"]
    if host.startswith("[") or host.replace(".", "").isdigit():
        address(host.strip("[]"))
    else:
        dns(host)
    return text


def spiffe_id(text: str) -> str:
    """A SPIFFE ID (the SPIFFE-ID standard, section 2)."""
    if len(text) > _URI_MAX or not _SPIFFE_ID.fullmatch(text) or any(one in _DOTS for one in text.split("/")[3:]):
        raise ValueError("a SPIFFE ID: spiffe://trust-domain/path, its path of letters, digits and . _ - alone")
    return text


def email(text: str) -> str:
    """A mail address in ASCII with an unquoted local part (RFC 5321, section 4.1.2), its domain in lower case."""
    local, _, domain = text.rpartition("@")
    if len(local) > _LOCAL_MAX or not _LOCAL.fullmatch(local):
        raise ValueError("a mail address: user@example.org")
    return f"{local}@{dns(domain)}"


def address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An IP address, without a zone."""
    try:
        if "%" not in text:
            return ipaddress.ip_address(text)
    except ValueError:
        pass
    raise ValueError("an IP address without a zone")


def common_name(text: str) -> str:
    """Printable text of 1 to 64 characters (RFC 5280, appendix A.1)."""
    if not 0 < len(text) <= _COMMON_NAME_MAX or not text.isprintable() or text != text.strip():
        raise ValueError("printable text of 1 to 64 characters, without spaces at its ends")
    return text

"""Names of a certificate, held against the subtrees in which they must lie (RFC 5280, section 4.2.1.10).

Stricter than the RFC in two things: where there are subtrees at all, a name of a kind that none of them is about is
outside, and so is one that programs could read in two ways.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from cryptography import x509

Subtrees = tuple[x509.GeneralName, ...]

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.IGNORECASE | re.ASCII)
"""Letters, digits and hyphens (RFC 5890, section 2.3.1)."""
_DOMAIN_MAX = 253
_AUTHORITY = re.compile(r"([a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?)(?::[0-9]{1,5})?", re.IGNORECASE | re.ASCII)
"""Host and port of a URI. Trust domains of SPIFFE may have an underscore."""
_LOCAL = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]+", re.ASCII)
"""Of a mailbox, without quotes (RFC 5322, section 3.2.3)."""


def inside(name: x509.GeneralName, subtrees: Subtrees) -> bool:
    """Whether the name of a certificate lies in one of them."""
    return any(_within(name, one) for one in subtrees if type(one) is type(name))


def all_inside(names: Iterable[x509.GeneralName], subtrees: Subtrees) -> bool:
    """Whether each of them does."""
    return all(inside(name, subtrees) for name in names)


def narrower(tree: x509.GeneralName, subtrees: Subtrees) -> bool:
    """Whether a subtree lies in one of them."""
    return any(_part(tree, one) for one in subtrees if type(one) is type(tree))


def _within(name: x509.GeneralName, subtree: x509.GeneralName) -> bool:
    if isinstance(name, x509.IPAddress):
        return isinstance(name.value, ipaddress.IPv4Address | ipaddress.IPv6Address) and name.value in subtree.value
    if isinstance(name, x509.DNSName):
        host = name.value.removeprefix("*.")
        return _is_domain(host) and _under(host, subtree.value)
    if isinstance(name, x509.RFC822Name):
        local, _, host = name.value.partition("@")
        return bool(_LOCAL.fullmatch(local)) and _is_domain(host) and _mailbox(name.value, subtree.value)
    if isinstance(name, x509.UniformResourceIdentifier):
        return _host(_uri_host(name.value), subtree.value)
    return False


def _part(tree: x509.GeneralName, subtree: x509.GeneralName) -> bool:
    """A subtree may begin with a dot."""
    if isinstance(tree, x509.IPAddress):
        there, network = tree.value, subtree.value
        return not isinstance(there, ipaddress.IPv4Address | ipaddress.IPv6Address) and (
            there.version == network.version and there.subnet_of(network)
        )
    text, whole = str(tree.value), str(subtree.value)
    if isinstance(tree, x509.RFC822Name) and "@" in text:
        return _within(tree, subtree)
    if not _is_domain(text.removeprefix(".")):
        return False
    if isinstance(tree, x509.DNSName):
        return _under(text, whole)
    return isinstance(tree, x509.RFC822Name | x509.UniformResourceIdentifier) and _host(text, whole)


def _is_domain(text: str) -> bool:
    return len(text) <= _DOMAIN_MAX and _DOMAIN.fullmatch(text) is not None


def _uri_host(text: str) -> str:
    """The host of a URI with an authority, and with nothing in it that is read in two ways; else nothing."""
    if "\\" in text or " " in text or not (text.isascii() and text.isprintable()):
        return ""
    try:
        parts = urlsplit(text)
    except ValueError:
        return ""
    found = _AUTHORITY.fullmatch(parts.netloc)
    return found[1] if found and parts.scheme else ""


def _under(name: str, domain: str) -> bool:
    """The domain itself or one below it."""
    name, domain = name.lower().lstrip("."), domain.lower().lstrip(".")
    return name == domain or name.endswith(f".{domain}")


def _host(host: str, domain: str) -> bool:
    """One host, or, for a subtree that begins with a dot, all below it."""
    if domain.startswith("."):
        return host.lower().endswith(domain.lower())
    return bool(host) and host.lower() == domain.lower()


def _mailbox(address: str, subtree: str) -> bool:
    """One mailbox, those of one host, or, with a dot before it, those of all hosts below it."""
    if "@" in subtree:
        return address.lower() == subtree.lower()
    return _host(address.rpartition("@")[2], subtree)

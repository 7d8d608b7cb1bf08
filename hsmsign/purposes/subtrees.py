"""Names of a certificate, held against the subtrees in which they must lie (RFC 5280, section 4.2.1.10).

Stricter than the RFC in one thing: where there are subtrees at all, a name of a kind that none of them is about is
outside.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from cryptography import x509

Subtrees = tuple[x509.GeneralName, ...]


def inside(name: x509.GeneralName, subtrees: Subtrees) -> bool:
    """Whether a name, which may itself be a subtree, lies in one of them."""
    return any(_within(name, one) for one in subtrees if type(one) is type(name))


def all_inside(names: Iterable[x509.GeneralName], subtrees: Subtrees) -> bool:
    """Whether each of them does."""
    return all(inside(name, subtrees) for name in names)


def same_kinds(names: Iterable[x509.GeneralName], subtrees: Subtrees) -> bool:
    """Whether they are about every kind of name that the subtrees are about."""
    return {type(one) for one in subtrees} <= {type(one) for one in names}


def _within(name: x509.GeneralName, subtree: x509.GeneralName) -> bool:
    if isinstance(name, x509.IPAddress):
        network = subtree.value
        there = name.value
        if isinstance(there, ipaddress.IPv4Address | ipaddress.IPv6Address):
            return there in network
        return there.version == network.version and there.subnet_of(network)
    if isinstance(name, x509.DNSName):
        return _under(name.value.removeprefix("*."), subtree.value)
    if isinstance(name, x509.RFC822Name):
        return _mailbox(name.value, subtree.value)
    if isinstance(name, x509.UniformResourceIdentifier):
        try:
            host = urlsplit(name.value).hostname if "://" in name.value else name.value
        except ValueError:
            return False
        return bool(host) and _host(str(host), subtree.value)
    return False


def _under(name: str, domain: str) -> bool:
    """The domain itself or one below it; a subtree of a subordinate CA may begin with a dot."""
    name, domain = name.lower().lstrip("."), domain.lower().lstrip(".")
    return name == domain or name.endswith(f".{domain}")


def _host(host: str, domain: str) -> bool:
    """One host, or, for a subtree that begins with a dot, all below it."""
    if domain.startswith("."):
        return host.lower().endswith(domain.lower())
    return host.lower() == domain.lower()


def _mailbox(address: str, subtree: str) -> bool:
    """One mailbox, those of one host, or, with a dot before it, those of all hosts below it."""
    if "@" in subtree:
        return address.lower() == subtree.lower()
    return _host(address.rpartition("@")[2], subtree)

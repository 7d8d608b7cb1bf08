"""Patterns for names, as profiles have them.

    dns    example.org          that host
           *.example.org        one part more; also the wildcard that is written so
           **.example.org       one part more, or several
    ip     10.0.0.0/8  ::1      addresses in the network, or the one
    email  ann@example.org      that mailbox
           *@example.org        each at that host, which may be a pattern like those of dns
    uri    https://example.org/a/*/c     '*' is one segment of the path
           spiffe://example.org/ns/**    '**', at the end, is one or more
           https://*.example.org/        the host may be a pattern like those of dns

A name with a query fits only a pattern that says the same. All but paths and what is before '@' is compared in lower
case.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Sequence

from cryptography import x509

from hsmsign.pki import names
from hsmsign.pki.profiles import NameRules

_EXAMPLE = "example"


def matches(name: x509.GeneralName, rules: NameRules) -> bool:
    """Whether a name, in the spelling of `hsmsign.pki.names`, fits a pattern of its kind."""
    value = name.value
    if isinstance(name, x509.DNSName):
        return any(_host_fits(value, pattern) for pattern in rules.dns)
    if isinstance(name, x509.IPAddress):
        return any(value in network for network in _networks(rules.ip))
    if isinstance(name, x509.RFC822Name):
        return any(_mailbox_fits(value, pattern) for pattern in rules.email)
    if isinstance(name, x509.UniformResourceIdentifier):
        return any(_uri_fits(value, pattern) for pattern in rules.uri)
    return False


def check(kind: str, pattern: str) -> str:
    """The pattern as it is compared; `kind` is dns, ip, uri or email. Raises ValueError with what is wrong."""
    if not pattern.isascii():
        raise ValueError(f"{pattern!r} is not ASCII: write the A-label (xn--…) of each part that is not")
    if kind == "ip":
        return str(ipaddress.ip_network(pattern))
    if kind == "dns":
        return _host_pattern(pattern.lower())
    if kind == "email":
        local, at, host = pattern.rpartition("@")
        if not at or (local != "*" and names.email(f"{local}@{_EXAMPLE}") != f"{local}@{_EXAMPLE}"):
            raise ValueError(f"{pattern!r} is no pattern for mailboxes: say *@example.org")
        return f"{local}@{_host_pattern(host.lower())}"
    return _uri_pattern(pattern)


def _host_pattern(pattern: str) -> str:
    names.hostname(pattern.removeprefix("**.").removeprefix("*."))
    if pattern.startswith("**.*."):
        raise ValueError(f"{pattern!r} has two wildcards")
    return pattern


def _uri_pattern(pattern: str) -> str:
    scheme, colon, rest = pattern.partition("://")
    authority, slash, path = rest.partition("/")
    host = authority.lower().removeprefix("**.").removeprefix("*.")
    segments = path.partition("?")[0].split("/")
    if not colon or "**" in segments[:-1]:
        raise ValueError(f"{pattern!r} is no pattern for URIs: say https://example.org/*/x, or spiffe://example.org/**")
    literal = "/".join("x" if one in ("*", "**") else one for one in segments)
    query = path.partition("?")[1] + path.partition("?")[2]
    if any("*" in one and one not in ("*", "**") for one in segments):
        raise ValueError(f"{pattern!r} has '*' within a part of the path: it stands for a whole one")
    if scheme.lower() == "spiffe" and host != authority:
        raise ValueError(f"{pattern!r} leaves the trust domain open, or has it in upper case")
    names.uri(f"{scheme}://{host}{slash}{literal}{query}")
    return f"{scheme.lower()}://{authority.lower()}{slash}{path}"


def _host_fits(host: str, pattern: str) -> bool:
    if pattern.startswith("**."):
        return host.endswith(pattern[2:]) and len(host) >= len(pattern) - 1
    if pattern.startswith("*."):
        first, dot, rest = host.partition(".")
        return bool(first and dot) and rest == pattern[2:]
    return host == pattern


def _mailbox_fits(mailbox: str, pattern: str) -> bool:
    local, _, host = mailbox.rpartition("@")
    wanted, _, hosts = pattern.rpartition("@")
    return wanted in ("*", local) and _host_fits(host, hosts)


def _uri_fits(uri: str, pattern: str) -> bool:
    scheme, _, rest = uri.partition("://")
    wanted, _, wanted_rest = pattern.partition("://")
    head, query = _query(rest)
    wanted_head, wanted_query = _query(wanted_rest)
    parts, wanted_parts = head.split("/"), wanted_head.split("/")
    if scheme != wanted or query != wanted_query or not _host_fits(parts[0], wanted_parts[0]):
        return False
    if wanted_parts[-1] == "**":
        wanted_parts.pop()
        if len(parts) <= len(wanted_parts) or not parts[len(wanted_parts)]:
            return False
        parts = parts[: len(wanted_parts)]
    return len(parts) == len(wanted_parts) and all(
        (bool(part) if one == "*" else part == one) for part, one in zip(parts[1:], wanted_parts[1:], strict=True)
    )


def _query(rest: str) -> tuple[str, str | None]:
    head, mark, query = rest.partition("?")
    return head, query if mark else None


@functools.lru_cache(256)
def _networks(patterns: Sequence[str]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(one) for one in patterns)

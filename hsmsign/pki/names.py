"""Names in a subjectAltName: hosts, addresses, URIs and mailboxes, in one spelling, and nothing else.

The grammar is stricter than RFC 5280's (section 4.2.1.6): what a program could read in two ways is no name here.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

import idna
from cryptography import x509

from hsmsign.model.errors import CsrError

NAMES_MAX = 100
_DNS_MAX, _LABEL_MAX, _URI_MAX, _LOCAL_MAX, _MAILBOX_MAX = 253, 63, 2048, 64, 254
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,31}")
_AFTER_HOST = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-F]{2})*")
"""Path and query (RFC 3986, section 3); hexadecimal in upper case, as section 6.2.2.1 wants it."""
_HIDDEN = re.compile(r"%(?:2[DEF5]|3\d|4[1-9A-F]|5[0-9AF]|5C|6[1-9A-F]|7[0-9AE]|[01].|7F)")
"""What stands for itself (section 2.3), slashes, percent signs and control characters, percent-encoded."""
_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'+/=?^_`{|}~-]+)*")
"""A dot-atom (RFC 5322, section 3.2.3), without '*', which is for patterns."""
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")
_KINDS = "names are dns (ASCII, others as A-labels: xn--…), ip, uri (with a host) and email"
_PREFIXES = {
    x509.DNSName: "dns",
    x509.IPAddress: "ip",
    x509.UniformResourceIdentifier: "uri",
    x509.RFC822Name: "email",
}


def check_all(names: Sequence[x509.GeneralName], most: int = NAMES_MAX) -> tuple[x509.GeneralName, ...]:
    """The names, each as `check` writes it.

    Raises CsrError for what is no name, for one that is there twice, whatever its case, for more than `most`, for none,
    and for a SPIFFE ID beside another URI.
    """
    if not names:
        raise _wrong("the subjectAltName is empty", "leave it out, or say names")
    if len(names) > most:
        raise _wrong(f"there are {len(names)} names", f"at most {most}")
    checked = tuple(check(name) for name in names)
    seen: set[str] = set()
    for name in checked:
        key = text(name).lower()
        if key in seen:
            raise _wrong(f"the name {shown(text(name))} is there twice", "say each once")
        seen.add(key)
    uris = [name.value for name in checked if isinstance(name, x509.UniformResourceIdentifier)]
    if len(uris) > 1 and any(uri.startswith("spiffe://") for uri in uris):
        raise _wrong("there is a URI beside a SPIFFE ID", "a SPIFFE ID is the only URI (X509-SVID, section 2)")
    return checked


def check(name: x509.GeneralName) -> x509.GeneralName:
    """The name in its one spelling. Raises CsrError for what is no name, or of a kind that is not certified."""
    try:
        if isinstance(name, x509.DNSName):
            return x509.DNSName(dns(name.value))
        if isinstance(name, x509.IPAddress):
            return x509.IPAddress(_address(name))
        if isinstance(name, x509.UniformResourceIdentifier):
            return x509.UniformResourceIdentifier(uri(name.value))
        if isinstance(name, x509.RFC822Name):
            return x509.RFC822Name(email(name.value))
    except ValueError as error:
        raise _wrong(str(error), _KINDS) from None
    raise _wrong(f"a name of the kind {type(name).__name__} is not certified", _KINDS)


def text(name: x509.GeneralName) -> str:
    """The name for people and the store: `dns:example.org`, `ip:10.0.0.1`, `uri:…`, `email:…`."""
    return f"{_PREFIXES.get(type(name), type(name).__name__)}:{name.value}"


def shown(value: str) -> str:
    """What strangers sent, as a message has it."""
    return ascii(value if len(value) <= 80 else value[:77] + "...")


def is_wildcard(name: x509.GeneralName) -> bool:
    """Whether it is a host's name that stands for many."""
    return isinstance(name, x509.DNSName) and name.value.startswith("*.")


def dns(value: str) -> str:
    """A host's name in lower case, or `*.` and one. Raises ValueError with what is wrong."""
    host = value.lower() if value.isascii() else value
    hostname(host.removeprefix("*."))
    if len(host) > _DNS_MAX:
        raise ValueError(f"{shown(value)} is longer than {_DNS_MAX} characters")
    return host


def hostname(host: str) -> str:
    """A host's name (RFC 1123, section 2.1) in lower case, no wildcard. Raises ValueError with what is wrong."""
    if not host.isascii():
        raise ValueError(f"{shown(host)} is not ASCII: write the A-label of each part that is not (RFC 5891), xn--…")
    if not host or len(host) > _DNS_MAX:
        raise ValueError(f"a host's name has 1 to {_DNS_MAX} characters, this one has {len(host)}")
    labels = host.split(".")
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise ValueError(
                f"{shown(host)} is no host's name: its parts have 1 to {_LABEL_MAX} of a-z 0-9 and '-', and neither"
                " begin nor end with '-'; '*' stands for the whole first part only"
            )
        if label[2:4] == "--":
            _check_a_label(label)
    if labels[-1].isdigit() or re.fullmatch(r"0x[0-9a-f]*", labels[-1]):
        raise ValueError(f"{shown(host)} looks like an address: say it as an ip, or give the host a name")
    return host


def uri(value: str) -> str:
    """A URI with a scheme and a host, both in lower case (RFC 3986). Raises ValueError with what is wrong."""
    scheme, colon, rest = value.partition("://")
    end = min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest))
    if "@" in rest[:end]:
        # not shown: there may be a password
        raise ValueError("a URI has a user or password before its host, which have no place in a certificate")
    scheme = scheme.lower()
    if not colon or not _SCHEME.fullmatch(scheme) or not value.isascii() or len(value) > _URI_MAX:
        raise ValueError(f"{shown(value)} is no absolute URI with a host, in ASCII, of at most {_URI_MAX} characters")
    if "#" in rest:
        raise ValueError(f"{shown(value)} has a fragment, which names nothing in a certificate")
    authority, after = rest[:end].lower(), rest[end:]
    if scheme == "spiffe":
        return _spiffe(value, rest[:end], after.split("/"))
    _check_authority(authority, value)
    path = after.partition("?")[0]
    if not _AFTER_HOST.fullmatch(after) or _HIDDEN.search(after) or {".", ".."} & set(path.split("/")):
        raise ValueError(
            f"{shown(value)} is not in normal form (RFC 3986, section 6.2.2): no '.' and '..' segments, and"
            " nothing percent-encoded (%2F) that stands for itself or for a delimiter"
        )
    return f"{scheme}://{authority}{after}"


def email(value: str) -> str:
    """A mailbox (RFC 5321, section 4.1.2), its host in lower case; no quotes, comments or addresses in brackets.

    Raises ValueError with what is wrong.
    """
    local, at, host = value.rpartition("@")
    if not at or not value.isascii() or len(local) > _LOCAL_MAX or len(value) > _MAILBOX_MAX:
        raise ValueError(f"{shown(value)} is no mailbox: NAME@HOST, ASCII, of at most {_MAILBOX_MAX} characters")
    if not _LOCAL.fullmatch(local):
        raise ValueError(f"{shown(value)} has a quoted or wrong part before its '@'")
    return f"{local}@{hostname(host.lower())}"


def _address(name: x509.IPAddress) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    value = name.value
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        raise ValueError("an ip is a network, where one address is wanted")  # noqa: TRY004 - one error type
    return value


def _check_a_label(label: str) -> None:
    """IDNA2008 (RFC 5891, section 4.2): it decodes, and what it decodes to is written just so."""
    try:
        good = label.startswith("xn--") and idna.alabel(idna.ulabel(label)) == label.encode()
    except (UnicodeError, IndexError, OverflowError):
        good = False
    if not good:
        raise ValueError(f"{shown(label)} has '--' like an A-label and decodes to no label of IDNA2008 (RFC 5891)")


def _check_authority(authority: str, value: str) -> None:
    try:
        # the brackets and the address in them are checked by urllib and ipaddress
        split = urlsplit(f"//{authority}")
        host = split.hostname or ""
    except ValueError:
        host = ""
    if authority.startswith("["):
        tail = authority.rpartition("]")[2]
        good = host != "" and authority == f"[{host}]{tail}" and _is_ip6(host)
    else:
        host, colon, port = authority.partition(":")
        tail = colon + port
        good = _is_ip4(host) or hostname(host) == host
    port = tail.removeprefix(":")
    if not good or (tail and not (tail.startswith(":") and _PORT.fullmatch(port) and int(port) < 1 << 16)):
        raise ValueError(f"{shown(value)} has no host, or a wrong port")


def _is_ip4(host: str) -> bool:
    try:
        return str(ipaddress.IPv4Address(host)) == host
    except ValueError:
        return False


def _is_ip6(host: str) -> bool:
    try:
        return str(ipaddress.IPv6Address(host)) == host and "%" not in host
    except ValueError:
        return False


def _spiffe(value: str, trust_domain: str, path: Sequence[str]) -> str:
    """A SPIFFE ID (SPIFFE-ID, section 2): compared byte by byte, so that there is nothing to be made lower case."""
    before, *segments = path
    good = value.startswith("spiffe://") and _TRUST_DOMAIN.fullmatch(trust_domain) and not before
    if not good or not all(_SEGMENT.fullmatch(one) and one not in (".", "..") for one in segments):
        raise ValueError(
            f"{shown(value)} is no SPIFFE ID: spiffe://TRUST-DOMAIN/PATH, the domain of a-z 0-9 . _ -, each part of the"
            " path of A-Z a-z 0-9 . _ -, neither '.' nor '..', no port, query or trailing '/'"
        )
    return value


def _wrong(message: str, hint: str) -> CsrError:
    return CsrError(message, hint=hint, metadata={"check": "names"})

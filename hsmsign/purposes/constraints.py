"""What the certificate of a CA below says about the names that it may certify (RFC 5280, section 4.2.1.10).

By the RFC a kind of names that nameConstraints do not mention is not limited at all. So each kind is either held to
the subtrees of the key above, or closed:

- DNS names and IP addresses by excluding all of them: an empty dNSName, 0.0.0.0/0 and ::/0;
- mailboxes and URIs by permitting only those of a host in `invalid`, a domain that nobody ever has (RFC 6761, section
  6.4). Excluding the empty one would close them for Go, but for OpenSSL it excludes nothing (crypto/x509/v3_ncons.c
  compares it with the host), and `cryptography` writes no empty rfc822Name.
"""

from __future__ import annotations

import ipaddress

from cryptography import x509

from hsmsign.purposes import subtrees

_NOBODY = "invalid"
_NOWHERE = f"nobody.{_NOBODY}"
"""What is written: linters take no host of one label."""
_EVERY_HOST = x509.DNSName("")
_EVERY_ADDRESS = (x509.IPAddress(ipaddress.ip_network("0.0.0.0/0")), x509.IPAddress(ipaddress.ip_network("::/0")))
_HOSTS, _ADDRESSES = x509.DNSName, x509.IPAddress
_WITH_HOSTS = (x509.RFC822Name, x509.UniformResourceIdentifier)


def within(trees: subtrees.Subtrees) -> x509.NameConstraints:
    """The widest that `hold` takes from a CA below a key with these subtrees. The extension is critical."""
    kinds = {type(one) for one in trees}
    excluded: list[x509.GeneralName] = [] if _HOSTS in kinds else [_EVERY_HOST]
    excluded += [] if _ADDRESSES in kinds else _EVERY_ADDRESS
    closed = [kind(_NOWHERE) for kind in _WITH_HOSTS if kind not in kinds]
    return x509.NameConstraints([*trees, *closed] or None, excluded or None)


def hold(found: x509.NameConstraints, trees: subtrees.Subtrees) -> bool:
    """Whether they permit nothing outside the subtrees, for each kind of names."""
    permitted = [one for one in found.permitted_subtrees or () if not _is_nobody(one)]
    closed = {type(one) for one in found.permitted_subtrees or () if _is_nobody(one)}
    excluded = list(found.excluded_subtrees or ())
    if _EVERY_HOST in excluded:
        closed.add(_HOSTS)
    if all(one in excluded for one in _EVERY_ADDRESS):
        closed.add(_ADDRESSES)
    limited = closed | {type(one) for one in permitted}
    return limited >= {_HOSTS, _ADDRESSES, *_WITH_HOSTS} and all(subtrees.narrower(one, trees) for one in permitted)


def _is_nobody(one: x509.GeneralName) -> bool:
    return isinstance(one, _HOSTS | x509.RFC822Name | x509.UniformResourceIdentifier) and (
        one.value.lower().rpartition("@")[2].rpartition(".")[2] == _NOBODY
    )

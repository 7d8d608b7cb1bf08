"""Names out of claims.

A template is text with `{field}` in it; a field is a claim's value, which is hostile text: it can fill its place and
never leave it. In a host name that place is (part of) one label, in a URI everything but unreserved characters is
percent-encoded, in a mail address it is the local part or one label. A template that is one field and nothing else is
for a claim that is a whole URI, or a whole mail address, by itself.
"""

from __future__ import annotations

import functools
import re
import string
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import quote

from cryptography import x509

from hsmsign.pki.identity import claims as paths
from hsmsign.pki.identity import grammar
from hsmsign.pki.identity.issuers import IssuerRules, NameTemplates
from hsmsign.pki.identity.refusals import refusal, shown

Pieces = tuple[tuple[str, str], ...]
"""Some text and the field after it, which is nothing at the end."""
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MAILBOX = re.compile(r"[A-Za-z0-9._+-]+")
_VALUE_MAX = 1024
_TRIAL = "a"


@functools.lru_cache(1024)
def parse(template: str) -> Pieces:
    """Take a template apart. Raises ValueError for what is none."""
    pieces: list[tuple[str, str]] = []
    for literal, name, spec, conversion in string.Formatter().parse(template):
        if "{" in literal or "}" in literal or spec or conversion or (name is not None and not _FIELD.fullmatch(name)):
            raise ValueError(f"{template!r} is no template: there is {{field}} in it, and no other brace")
        pieces.append((literal, name or ""))
    if not pieces:
        raise ValueError("a template is not empty")
    return tuple(pieces)


def fields(template: str) -> tuple[str, ...]:
    """The fields of a template. Raises ValueError for what is none."""
    return tuple(name for _, name in parse(template) if name)


def problems(names: NameTemplates, known: Iterable[str]) -> list[str]:
    """What is wrong with templates whose fields can be those that are known."""
    known = frozenset(known)
    found: list[str] = []
    for place, template in _all(names):
        try:
            unknown = [name for name in fields(template) if name not in known]
            if unknown:
                raise ValueError(f"there is no field {unknown[0]!r}; there are {', '.join(sorted(known))}")
            if not _whole(template) and place != "names.ip":
                _RENDERERS[place](template, lambda _: _TRIAL)
        except ValueError as error:
            found.append(f"{place}: {template!r}: {error}")
    return found


def render(rules: IssuerRules, claims: Mapping[str, object]) -> tuple[tuple[x509.GeneralName, ...], str]:
    """The names that a token with these claims vouches for, each once, and a common name or nothing.

    Raises IdentityTokenError for a claim that is missing or does not fit its place.
    """
    names: dict[x509.GeneralName, None] = {}
    common_name = ""
    for place, template in _all(rules.names):
        value = functools.partial(_value, rules, claims, place)
        try:
            rendered = _RENDERERS[place](template, value)
        except ValueError as error:
            raise refusal(
                "names",
                f"the token's claims make no name of {place} {template!r}: wanted is {error}",
                issuer=rules.name,
                hint="what the platform calls it does not fit this template: use another field",
            ) from None
        if isinstance(rendered, str):
            common_name = rendered
        else:
            names[rendered] = None
    return tuple(names), common_name


def _all(names: NameTemplates) -> list[tuple[str, str]]:
    found = [
        (f"names.{kind}", template)
        for kind, templates in (("dns", names.dns), ("uri", names.uri), ("email", names.email), ("ip", names.ip))
        for template in templates
    ]
    return [*found, ("names.common_name", names.common_name)] if names.common_name else found


def _value(rules: IssuerRules, claims: Mapping[str, object], place: str, name: str) -> str:
    path = dict(rules.claims)[name]
    found = paths.find(claims, path)
    if found is None:
        raise refusal(
            "claims",
            f"the token has no claim {path}, which {{{name}}} of {place} is made from",
            issuer=rules.name,
            hint="have the platform put it into the token, or use another field",
        )
    text = paths.text(found)
    if text is None or not 0 < len(text) <= _VALUE_MAX or not text.isprintable():
        raise refusal(
            "claims",
            f"the token's claim {path} is {shown(found)}, of which {{{name}}} of {place} cannot be made",
            issuer=rules.name,
            hint=f"it has to be printable text of 1 to {_VALUE_MAX} characters, or a whole number",
        )
    return text


def _whole(template: str) -> bool:
    """Whether it is one field and nothing else."""
    pieces = parse(template)
    return len(pieces) == 1 and not pieces[0][0]


def _fill(template: str, value: Callable[[str], str], fit: Callable[[str], str]) -> str:
    return "".join(literal + (fit(value(name)) if name else "") for literal, name in parse(template))


def _dns(template: str, value: Callable[[str], str]) -> x509.GeneralName:
    return x509.DNSName(grammar.dns(_fill(template, value, grammar.label)))


def _uri(template: str, value: Callable[[str], str]) -> x509.GeneralName:
    text = _fill(template, value, str if _whole(template) else lambda one: quote(one, safe=""))
    return x509.UniformResourceIdentifier(grammar.uri(text))


def _email(template: str, value: Callable[[str], str]) -> x509.GeneralName:
    if _whole(template):
        return x509.RFC822Name(grammar.email(_fill(template, value, str)))
    text = ""
    for literal, name in parse(template):
        text += literal
        if name:
            text += (grammar.label if "@" in text else _mailbox)(value(name))
    return x509.RFC822Name(grammar.email(text))


def _mailbox(text: str) -> str:
    if not _MAILBOX.fullmatch(text):
        raise ValueError("(part of) the local part of a mail address: letters, digits and . _ + -")
    return text


def _ip(template: str, value: Callable[[str], str]) -> x509.GeneralName:
    return x509.IPAddress(grammar.address(_fill(template, value, str)))


def _common_name(template: str, value: Callable[[str], str]) -> str:
    return grammar.common_name(_fill(template, value, str))


_RENDERERS: dict[str, Callable[[str, Callable[[str], str]], x509.GeneralName | str]] = {
    "names.dns": _dns,
    "names.uri": _uri,
    "names.email": _email,
    "names.ip": _ip,
    "names.common_name": _common_name,
}

"""The subject of a certificate: what the request says and the profile allows, and what the profile adds."""

from __future__ import annotations

import re

from cryptography import x509
from cryptography.x509.oid import NameOID

from hsmsign.pki import names
from hsmsign.pki.contradictions import length_max
from hsmsign.pki.naming import Names
from hsmsign.pki.profiles import Attribute, Profile, SubjectWord
from hsmsign.pki.refusing import refused
from hsmsign.pki.requests import Request
from hsmsign.pki.vouching import Vouched

_OIDS = {
    Attribute.C: NameOID.COUNTRY_NAME,
    Attribute.ST: NameOID.STATE_OR_PROVINCE_NAME,
    Attribute.L: NameOID.LOCALITY_NAME,
    Attribute.O: NameOID.ORGANIZATION_NAME,
    Attribute.OU: NameOID.ORGANIZATIONAL_UNIT_NAME,
    Attribute.SERIAL_NUMBER: NameOID.SERIAL_NUMBER,
    Attribute.CN: NameOID.COMMON_NAME,
}
_ATTRIBUTES = {oid: attribute for attribute, oid in _OIDS.items()}
_PRINTABLE = re.compile(r"[A-Za-z0-9 '()+,./:=?-]+")
"""PrintableString (X.680, section 41.4), in which RFC 5280 has the country and the serial number."""
_COUNTRY = re.compile(r"[A-Z]{2}")
Values = dict[Attribute, str]


def make(request: Request, profile: Profile, found: Names, vouched: Vouched | None) -> x509.Name:
    """The subject of the certificate, whose names are `found`. What the request says keeps its order; what the profile
    adds stands before it. Raises ProfileError."""
    asked = _asked(request.subject, profile)
    if vouched is not None:
        _add_vouched(asked, profile, found, vouched)
    added: Values = {}
    for attribute in asked:
        if profile.rule(attribute).word is SubjectWord.FORBIDDEN:
            word = attribute.value
            raise _wrong(profile, f"the subject has {word}", f"leave {word} out of the request's subject")
    for rule in profile.subject:
        attribute, word = rule.attribute, rule.attribute.value
        value = asked.get(attribute)
        if rule.word is SubjectWord.REQUIRED and value is None:
            raise _wrong(profile, f"the subject has no {word}", f"give the request's subject a {word}")
        if rule.word is SubjectWord.FIXED and value is None:
            added[attribute] = rule.value
        if rule.word is SubjectWord.FIXED and value not in (None, rule.value):
            raise _wrong(profile, f"{word} is {names.shown(value or '')}", f"it is {rule.value!r}, or left out")
        if rule.word is SubjectWord.FROM_NAMES and value is not None:
            asked[attribute] = _from_names(value, profile, found)
    said = [*((one, added[one]) for one in Attribute if one in added), *asked.items()]
    if not said and not found:
        raise _wrong(profile, "the request has neither a subject nor names", "ask for a subjectAltName")
    return x509.Name([x509.NameAttribute(_OIDS[attribute], value) for attribute, value in said])


def check_text(attribute: Attribute, value: object) -> str:
    """The value of an attribute, if it can stand in a certificate. Raises ValueError with what is wrong."""
    most = length_max(attribute)
    if not isinstance(value, str) or not 0 < len(value) <= most or not value.isprintable() or value != value.strip():
        raise ValueError(f"{attribute.value} is not 1 to {most} printable characters without spaces around them")
    if attribute is Attribute.C and not _COUNTRY.fullmatch(value):
        raise ValueError(f"C is {names.shown(value)} and not the two capital letters of a country (ISO 3166)")
    if attribute is Attribute.SERIAL_NUMBER and not _PRINTABLE.fullmatch(value):
        raise ValueError("serialNumber is no PrintableString: A-Z a-z 0-9 space and ' ( ) + , - . / : = ?")
    return value


def _asked(subject: x509.Name, profile: Profile) -> Values:
    values: Values = {}
    for part in subject.rdns:
        if len(part) > 1:
            raise _wrong(profile, "a part of the subject has several attributes", "give each a part of its own")
        for one in part:
            attribute = _ATTRIBUTES.get(one.oid)
            if attribute is None:
                known = ", ".join(each.value for each in Attribute)
                raise _wrong(profile, f"the subject has the attribute {one.oid.dotted_string}", f"it may have {known}")
            if attribute in values:
                raise _wrong(profile, f"the subject has {attribute.value} twice", "say it once")
            try:
                values[attribute] = check_text(attribute, one.value)
            except ValueError as error:
                raise _wrong(profile, f"in the subject, {error}", "change the request's subject") from None
    return values


def _add_vouched(asked: Values, profile: Profile, found: Names, vouched: Vouched) -> None:
    """Of the common name: what the token says where the request says nothing; what it says is vouched for."""
    word = profile.rule(Attribute.CN).word
    offered, value = vouched.common_name, asked.get(Attribute.CN)
    if word is SubjectWord.FIXED:
        return
    if value is None:
        fits = word in (SubjectWord.OPTIONAL, SubjectWord.REQUIRED)
        if offered and (fits or (word is SubjectWord.FROM_NAMES and offered.lower() in _texts(found))):
            try:
                asked[Attribute.CN] = check_text(Attribute.CN, offered)
            except ValueError as error:
                hint = f"see the templates of identity.{vouched.issuer}"
                raise refused(profile, "identity", f"in what {vouched.issuer!r} vouches for, {error}", hint) from None
    elif value != offered and value.lower() not in _texts(found):
        hint = f"it vouches for {names.shown(offered)}" if offered else "leave the common name out"
        message = f"{vouched.issuer!r} does not vouch for the common name {names.shown(value)}"
        raise refused(profile, "identity", message, hint)


def _from_names(value: str, profile: Profile, found: Names) -> str:
    texts = _texts(found)
    if value.lower() not in texts:
        raise _wrong(
            profile,
            f"the common name {names.shown(value)} is none of the names",
            "ask for it as a name in the subjectAltName too, or leave it out of the subject",
        )
    return texts[value.lower()]


def _texts(found: Names) -> dict[str, str]:
    """The names as they are, by their lower case."""
    return {str(name.value).lower(): str(name.value) for name in found}


def _wrong(profile: Profile, message: str, hint: str) -> Exception:
    return refused(profile, "subject", message, hint)

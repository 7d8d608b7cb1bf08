"""What a profile says that cannot be meant: certificates that relying parties refuse, or that say too much."""

from __future__ import annotations

from collections.abc import Iterator

from hsmsign.pki.profiles import DAY, EXTENDED_USAGES, Attribute, Profile, SubjectWord, Usage, extended_usage_oid

NAMES_MAX = 1000
VALIDITY_MAX = 100 * 365 * DAY
SHORT_LIVED_MAX = 30 * DAY
"""Of certificates that cannot be revoked, in seconds."""
_ANY_USAGE = "2.5.29.37.0"
_OCSP_SIGNING, _SERVER = EXTENDED_USAGES["OCSPSigning"], EXTENDED_USAGES["serverAuth"]
_LENGTHS = {Attribute.C: 2, Attribute.ST: 128, Attribute.L: 128}
_OWN_EXTENSIONS = frozenset(
    [f"2.5.29.{number}" for number in (14, 15, 16, 17, 18, 19, 30, 31, 32, 33, 35, 36, 37, 46, 54, 56)]
    + [f"1.3.6.1.5.5.7.{tail}" for tail in ("1.1", "1.11", "48.1.5")]
    + [f"1.3.6.1.4.1.11129.2.4.{tail}" for tail in (2, 3)]
)
"""Extensions that a CA decides about itself: who is certified for what, where it says more, and what is a certificate
at all."""
_TLS_FEATURE = "1.3.6.1.5.5.7.1.24"


def length_max(attribute: Attribute) -> int:
    """Characters of an attribute of a subject (RFC 5280, appendix A.1)."""
    return _LENGTHS.get(attribute, 64)


def find(profile: Profile) -> tuple[str, ...]:
    """Everything that is wrong with a profile, each with the key of the configuration that it is about."""
    return (
        *_of_usages(profile),
        *_of_ca(profile),
        *_of_subject(profile),
        *_of_validity(profile),
        *_of_revocation(profile),
        *_of_extensions(profile),
    )


def _of_usages(profile: Profile) -> Iterator[str]:
    if not profile.keys:
        yield "keys: there is none that is certified"
    if not profile.usages:
        yield "usages: there is none: say for example digitalSignature"
    families = {rule.family for rule in profile.keys}
    for usage in profile.usages:
        if profile.keys and not families & set(usage.families):
            words = " or ".join(family.value for family in usage.families)
            yield f"usages: {usage.value} is for keys of {words}, and `keys` has none"
    for family in sorted(families, key=lambda one: one.value):
        if profile.usages and not any(family in usage.families for usage in profile.usages):
            yield f"usages: there is none that a key of {family.value} can have, which `keys` allows"
    oids = [extended_usage_oid(usage) for usage in profile.extended_usages]
    if profile.ca is None and not oids:
        yield "extended_usages: there is none, and the certificate would be good for anything: say clientAuth"
    if _ANY_USAGE in oids:
        yield "extended_usages: anyExtendedKeyUsage is good for anything: say which"
    if _OCSP_SIGNING in oids and len(oids) > 1:
        yield "extended_usages: OCSPSigning stands alone: a responder's key is for nothing else"
    if len(set(oids)) < len(oids) or len(set(profile.usages)) < len(profile.usages):
        yield "usages: one is there twice"


def _of_ca(profile: Profile) -> Iterator[str]:
    signs = Usage.KEY_CERT_SIGN in profile.usages
    if profile.ca is None:
        if signs or Usage.CRL_SIGN in profile.usages:
            yield "usages: keyCertSign and cRLSign are a CA's, and there is no `ca`"
        return
    if not signs:
        yield "ca: path_length wants the usage keyCertSign"
    if profile.extended_usages:
        yield f"extended_usages: {profile.extended_usages[0]} is for others than CAs, and there is a `ca`"
    if profile.names.any or profile.names.required:
        yield "names: a CA has a subject and no other names: names.required = false, and no patterns"
    if profile.short_lived:
        yield "short_lived: a CA's certificate must be revocable (RFC 9608, section 3)"
    if profile.rule(Attribute.CN).word not in (SubjectWord.REQUIRED, SubjectWord.FIXED):
        yield "subject.CN: a CA has a name: say 'required' or what it is"


def _of_subject(profile: Profile) -> Iterator[str]:
    for rule in profile.subject:
        place = f"subject.{rule.attribute.value}"
        if rule.word is SubjectWord.FROM_NAMES and rule.attribute is not Attribute.CN:
            yield f"{place}: only CN can be one of the names"
        if rule.word is not SubjectWord.FIXED:
            continue
        if not 0 < len(rule.value) <= length_max(rule.attribute) or not rule.value.isprintable():
            yield f"{place}: it is printable text of 1 to {length_max(rule.attribute)} characters"
        if rule.attribute is Attribute.C and not (
            len(rule.value) == 2 and rule.value.isascii() and rule.value.isupper()
        ):
            yield f"{place}: a country has two letters: DE"
    if len({rule.attribute for rule in profile.subject}) < len(profile.subject):
        yield "subject: an attribute has two rules"
    if not profile.names.required and all(
        profile.rule(one).word not in (SubjectWord.REQUIRED, SubjectWord.FIXED) for one in Attribute
    ):
        yield "subject: neither a name nor a part of the subject is required: the certificate could be of nobody"
    if not 1 <= profile.names.max <= NAMES_MAX:
        yield f"names.max: it is 1 to {NAMES_MAX}"
    if profile.names.wildcards and not profile.names.dns and not profile.identity:
        yield "names.wildcards: they are for hosts, and names.dns has no pattern"


def _of_validity(profile: Profile) -> Iterator[str]:
    times = profile.validity
    if times.default > times.max:
        yield "validity.default: it is longer than validity.max"
    if times.max > VALIDITY_MAX:
        yield f"validity.max: it is at most {VALIDITY_MAX // (365 * DAY)}y"
    if times.backdate < 0 or times.default <= 2 * times.backdate:
        yield "validity.backdate: it is a part of the validity, and at most half of validity.default"


def _of_revocation(profile: Profile) -> Iterator[str]:
    oids = [extended_usage_oid(usage) for usage in profile.extended_usages]
    if profile.short_lived and (profile.crl or profile.ocsp):
        yield "short_lived: it says that there will be nothing about revocation, and `crl` or `ocsp` says where it is"
    if profile.short_lived and profile.validity.max > SHORT_LIVED_MAX:
        yield f"short_lived: what cannot be revoked is valid for at most {SHORT_LIVED_MAX // DAY}d: see validity.max"
    if profile.must_staple and (not profile.ocsp or _SERVER not in oids):
        yield "must_staple: it is for servers (serverAuth) whose certificates have `ocsp`"
    if profile.ocsp_no_check and _OCSP_SIGNING not in oids:
        yield "ocsp_no_check: it is for OCSP responders (OCSPSigning)"
    if profile.ocsp_no_check and (profile.crl or profile.ocsp):
        yield "ocsp_no_check: nobody asks about the certificate's revocation: crl = false, ocsp = false"


def _of_extensions(profile: Profile) -> Iterator[str]:
    for oid in profile.copy:
        if oid in _OWN_EXTENSIONS:
            yield f"copy: {oid} is for the CA to decide, not for a request"
        if oid == _TLS_FEATURE and profile.must_staple:
            yield f"copy: {oid} is what must_staple sets"
    if len(set(profile.copy)) < len(profile.copy) or len(set(profile.policies)) < len(profile.policies):
        yield "copy, policies: an OID is there twice"

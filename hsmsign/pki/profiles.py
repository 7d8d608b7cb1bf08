"""Profiles: what a certificate of a kind says, and what a request for one may ask for.

They are plain values: they cross a process wall as JSON (`hsmsign.model.hostwire`), and nothing here knows X.509.
`hsmsign.pki.reading_profiles` makes them from a configuration, `hsmsign.pki.contradictions` finds what cannot be meant,
`hsmsign.pki.drafting` holds requests against them.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from hsmsign.model.algorithms import Family

DAY = 86_400
"""Seconds."""


class KeyRule(enum.Enum):
    """A kind of key that is certified. The value is the word of the configuration."""

    EC_P256 = "ec-p256"
    EC_P384 = "ec-p384"
    EC_P521 = "ec-p521"
    RSA_2048 = "rsa-2048"
    """2048 bits or more."""
    RSA_3072 = "rsa-3072"
    """Just 3072 bits."""
    RSA_4096 = "rsa-4096"
    """Just 4096 bits."""
    ED25519 = "ed25519"

    @property
    def family(self) -> Family:
        """The mathematics under it."""
        return Family(self.value.partition("-")[0])


class Usage(enum.Enum):
    """A bit of keyUsage, by its name in RFC 5280, section 4.2.1.3."""

    DIGITAL_SIGNATURE = "digitalSignature"
    CONTENT_COMMITMENT = "contentCommitment"
    KEY_ENCIPHERMENT = "keyEncipherment"
    DATA_ENCIPHERMENT = "dataEncipherment"
    KEY_AGREEMENT = "keyAgreement"
    KEY_CERT_SIGN = "keyCertSign"
    CRL_SIGN = "cRLSign"

    @property
    def families(self) -> tuple[Family, ...]:
        """The keys that can have it (RFC 3279, section 2.3; RFC 8813, section 3; RFC 9295, section 3)."""
        if self in (Usage.KEY_ENCIPHERMENT, Usage.DATA_ENCIPHERMENT):
            return (Family.RSA,)
        return (Family.EC,) if self is Usage.KEY_AGREEMENT else tuple(Family)


EXTENDED_USAGES = {
    "serverAuth": "1.3.6.1.5.5.7.3.1",
    "clientAuth": "1.3.6.1.5.5.7.3.2",
    "codeSigning": "1.3.6.1.5.5.7.3.3",
    "emailProtection": "1.3.6.1.5.5.7.3.4",
    "timeStamping": "1.3.6.1.5.5.7.3.8",
    "OCSPSigning": "1.3.6.1.5.5.7.3.9",
}
"""Names of extended usages (RFC 5280, section 4.2.1.12); others are said by their OID."""


class Attribute(enum.Enum):
    """An attribute of a subject (RFC 4519), in the order in which a certificate has them."""

    C = "C"
    ST = "ST"
    L = "L"
    O = "O"  # noqa: E741 - its name
    OU = "OU"
    SERIAL_NUMBER = "serialNumber"
    CN = "CN"


class SubjectWord(enum.Enum):
    """What a profile says of an attribute."""

    FIXED = "fixed"
    """It has one value; a request says that or nothing."""
    OPTIONAL = "optional"
    REQUIRED = "required"
    FORBIDDEN = "forbidden"
    FROM_NAMES = "from-names"
    """Only CN: one of the names in the subjectAltName, or nothing."""


@dataclass(frozen=True, slots=True)
class SubjectRule:
    """What is said of one attribute of the subject; `value` where it is FIXED."""

    attribute: Attribute
    word: SubjectWord
    value: str = ""


@dataclass(frozen=True, slots=True)
class NameRules:
    """Patterns for the names in a certificate (`hsmsign.pki.patterns`). Where there are none of a kind, no name of the
    kind is allowed, unless a token vouches for it and there are no patterns at all."""

    dns: tuple[str, ...] = ()
    ip: tuple[str, ...] = ()
    uri: tuple[str, ...] = ()
    email: tuple[str, ...] = ()
    required: bool = True
    """Whether there must be a name."""
    max: int = 100
    wildcards: bool = False
    """Whether `*.example.org` may be a name."""

    @property
    def any(self) -> bool:
        """Whether there is a pattern."""
        return bool(self.dns or self.ip or self.uri or self.email)


@dataclass(frozen=True, slots=True)
class Validity:
    """How long, in seconds, from notBefore to notAfter, both included (RFC 5280, section 4.1.2.5)."""

    default: int = 90 * DAY
    max: int = 398 * DAY
    backdate: int = 300
    """By how much notBefore lies in the past, for clocks that are slow. It is a part of the validity."""


@dataclass(frozen=True, slots=True)
class CaRules:
    """What is said of a CA's certificate: RFC 5280, sections 4.2.1.9 and 4.2.1.10."""

    path_length: int = 0
    """How many CAs may stand below it in a chain."""
    permitted: tuple[str, ...] = ()
    """Subtrees, as `dns:example.org`, `email:example.org`, `uri:example.org`, `ip:10.0.0.0/8`; none: all."""
    excluded: tuple[str, ...] = ()


class UnknownExtensions(enum.Enum):
    """What becomes of a request for an extension of which the profile says nothing."""

    REFUSE = "refuse"
    IGNORE = "ignore"
    """The certificate is made without it."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What a kind of certificate is like."""

    name: str
    authorities: tuple[str, ...] = ()
    """The CAs (ids) that issue by it; none: all."""
    principals: tuple[str, ...] = ("*",)
    """Patterns of who may use it; none: nobody."""
    identity: tuple[str, ...] = ()
    """Issuers of tokens (by their names in the configuration) of which one must vouch; none: no token is wanted."""
    keys: tuple[KeyRule, ...] = (KeyRule.EC_P256, KeyRule.EC_P384, KeyRule.EC_P521, KeyRule.RSA_2048, KeyRule.ED25519)
    usages: tuple[Usage, ...] = ()
    """keyUsage. What a kind of key cannot have is left out of its certificates."""
    extended_usages: tuple[str, ...] = ()
    """Names of EXTENDED_USAGES, or OIDs."""
    subject: tuple[SubjectRule, ...] = ()
    """An attribute that has no rule is forbidden."""
    names: NameRules = NameRules()
    validity: Validity = Validity()
    ca: CaRules | None = None
    """Of a CA's certificate; None: it is no CA's."""
    policies: tuple[str, ...] = ()
    """OIDs of certificate policies (RFC 5280, section 4.2.1.4)."""
    must_staple: bool = False
    """RFC 7633."""
    ocsp_no_check: bool = False
    """RFC 6960, section 4.2.2.2.1."""
    unknown_extensions: UnknownExtensions = UnknownExtensions.REFUSE
    copy: tuple[str, ...] = ()
    """OIDs of extensions that go into the certificate as the request has them."""
    crl: bool = True
    """Whether it says where the CRL is."""
    ocsp: bool = True
    """Whether it says where OCSP is."""
    short_lived: bool = False
    """Whether it says that there will be nothing about its revocation (RFC 9608)."""

    def rule(self, attribute: Attribute) -> SubjectRule:
        """What is said of an attribute of the subject."""
        return next(
            (one for one in self.subject if one.attribute is attribute),
            SubjectRule(attribute, SubjectWord.FORBIDDEN),
        )


def extended_usage_oid(usage: str) -> str:
    """The OID of an extended usage, which may be one already."""
    return EXTENDED_USAGES.get(usage, usage)


_CN_FROM_NAMES = (SubjectRule(Attribute.CN, SubjectWord.FROM_NAMES),)
_CN_ONLY = (SubjectRule(Attribute.CN, SubjectWord.REQUIRED),)
_TLS = (Usage.DIGITAL_SIGNATURE, Usage.KEY_ENCIPHERMENT)

BUILT_IN: tuple[Profile, ...] = (
    Profile(name="server", usages=_TLS, extended_usages=("serverAuth",), subject=_CN_FROM_NAMES),
    Profile(name="client", usages=(Usage.DIGITAL_SIGNATURE,), extended_usages=("clientAuth",), subject=_CN_FROM_NAMES),
    Profile(name="mutual", usages=_TLS, extended_usages=("serverAuth", "clientAuth"), subject=_CN_FROM_NAMES),
    Profile(
        name="code-signing",
        principals=(),
        usages=(Usage.DIGITAL_SIGNATURE,),
        extended_usages=("codeSigning",),
        subject=_CN_ONLY,
        names=NameRules(required=False),
        validity=Validity(365 * DAY, 3 * 365 * DAY),
    ),
    Profile(
        name="intermediate",
        principals=(),
        usages=(Usage.DIGITAL_SIGNATURE, Usage.KEY_CERT_SIGN, Usage.CRL_SIGN),
        subject=(
            *(SubjectRule(one, SubjectWord.OPTIONAL) for one in Attribute if one is not Attribute.CN),
            *_CN_ONLY,
        ),
        names=NameRules(required=False),
        validity=Validity(5 * 365 * DAY, 10 * 365 * DAY),
        ca=CaRules(path_length=0),
    ),
    Profile(
        name="ocsp-responder",
        principals=(),
        usages=(Usage.DIGITAL_SIGNATURE,),
        extended_usages=("OCSPSigning",),
        subject=_CN_ONLY,
        names=NameRules(required=False),
        validity=Validity(30 * DAY, 90 * DAY),
        ocsp_no_check=True,
        crl=False,
        ocsp=False,
    ),
)
"""Nobody but whom a configuration names may use those that are about the CA itself, or on which a subject stands that
nobody has checked; the others allow no names until it gives patterns for them, or a token vouches."""

"""From a request and a profile to what a certificate will say: all but its issuer and its serial number."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from hsmsign.model.algorithms import Family
from hsmsign.pki import extensions, naming, subjects, weakness
from hsmsign.pki.profiles import KeyRule, Profile
from hsmsign.pki.refusing import refused
from hsmsign.pki.requests import Request
from hsmsign.pki.vouching import Vouched
from hsmsign.pki.weakness import PublicKey

_CURVES = {"secp256r1": KeyRule.EC_P256, "secp384r1": KeyRule.EC_P384, "secp521r1": KeyRule.EC_P521}
_RSA = {3072: KeyRule.RSA_3072, 4096: KeyRule.RSA_4096}
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Draft:
    """What a certificate will say."""

    profile: str
    """By which it was drawn up; empty for a CA's own."""
    subject: x509.Name
    public_key: PublicKey = field(repr=False)
    spki: bytes = field(repr=False)
    """The public key as SubjectPublicKeyInfo, DER."""
    drawn: datetime
    """When it was drawn up."""
    not_before: datetime
    not_after: datetime
    """The last second in which it is valid. All three are in UTC, in whole seconds."""
    extensions: extensions.Extensions
    """Those that do not depend on the issuer, subjectAltName among them."""
    names: tuple[x509.GeneralName, ...]
    """Those of the subjectAltName."""
    key: str
    """The kind of key, for people: `EC P-256`."""
    is_ca: bool = False
    path_length: int | None = None
    """Of a CA's: how many CAs may stand below it; None: as many as may be."""
    crl: bool = True
    """Whether it says where the issuer's CRL is."""
    ocsp: bool = True
    """Whether it says where the issuer's OCSP is."""
    capped: bool = False
    """Whether notAfter was brought forward to the issuer's; see `hsmsign.pki.certificates.fitted`."""


def draft(
    request: Request,
    profile: Profile,
    *,
    now: datetime,
    wanted: timedelta | None = None,
    vouched: Vouched | None = None,
) -> Draft:
    """What the certificate for a request says by a profile; `wanted` is how long it is to be valid.

    Raises ProfileError for what the profile does not allow, and WeakKeyError. RSA keys take a millisecond: see
    `hsmsign.pki.weakness.takes_long`.
    """
    _check_key(request.public_key, profile)
    weakness.check_key(request.public_key)
    names = naming.choose(request, profile, vouched)
    subject = subjects.make(request, profile, names, vouched)
    own = (*extensions.of_profile(profile, _family(request.public_key)), extensions.of_key(request.public_key))
    copied = extensions.asked(request, profile, own)
    length = _length(profile, wanted)
    start = now.astimezone(UTC).replace(microsecond=0)
    not_before = start - timedelta(seconds=profile.validity.backdate)
    return Draft(
        profile=profile.name,
        subject=subject,
        public_key=request.public_key,
        spki=request.spki,
        drawn=start,
        not_before=not_before,
        not_after=not_before + length - _SECOND,
        extensions=(*own, *extensions.of_subject_names(names, subject), *copied),
        names=names,
        key=weakness.describe(request.public_key),
        is_ca=profile.ca is not None,
        path_length=None if profile.ca is None else profile.ca.path_length,
        crl=profile.crl,
        ocsp=profile.ocsp,
    )


def _check_key(public_key: PublicKey, profile: Profile) -> None:
    rules: tuple[KeyRule | None, ...]
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        rules = (_CURVES.get(public_key.curve.name),)
    elif isinstance(public_key, rsa.RSAPublicKey):
        rules = (KeyRule.RSA_2048, _RSA.get(public_key.key_size))
    else:
        rules = (KeyRule.ED25519,)
    if not set(rules) & set(profile.keys):
        raise refused(
            profile,
            "key",
            f"the key is of the kind {weakness.describe(public_key)}",
            f"make one of: {', '.join(rule.value for rule in profile.keys)}",
        )


def _length(profile: Profile, wanted: timedelta | None) -> timedelta:
    times = profile.validity
    length = timedelta(seconds=times.default) if wanted is None else wanted - wanted % _SECOND
    if not timedelta(seconds=times.backdate) < length <= timedelta(seconds=times.max):
        raise refused(
            profile,
            "validity",
            f"a validity of {int(length.total_seconds())} s is wanted",
            f"more than {times.backdate} s, by which it begins in the past, and at most {times.max} s",
        )
    return length


def _family(public_key: PublicKey) -> Family:
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        return Family.EC
    return Family.RSA if isinstance(public_key, rsa.RSAPublicKey) else Family.ED25519

"""Extensions of certificates: those that a profile sets, and what a request may ask for beside them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

from cryptography import x509

from hsmsign.model.algorithms import Family
from hsmsign.model.purpose import subtree
from hsmsign.pki.profiles import CaRules, Profile, UnknownExtensions, Usage, extended_usage_oid
from hsmsign.pki.refusing import refused
from hsmsign.pki.requests import Request
from hsmsign.pki.weakness import PublicKey
from hsmsign.purposes import constraints

Extension = x509.Extension[x509.ExtensionType]
Extensions = tuple[Extension, ...]

_NO_REV_AVAIL = x509.ObjectIdentifier("2.5.29.56")
_NULL = b"\x05\x00"
_USAGES = {
    Usage.DIGITAL_SIGNATURE: "digital_signature",
    Usage.CONTENT_COMMITMENT: "content_commitment",
    Usage.KEY_ENCIPHERMENT: "key_encipherment",
    Usage.DATA_ENCIPHERMENT: "data_encipherment",
    Usage.KEY_AGREEMENT: "key_agreement",
    Usage.KEY_CERT_SIGN: "key_cert_sign",
    Usage.CRL_SIGN: "crl_sign",
}
"""Their names in `x509.KeyUsage`."""


@functools.lru_cache(512)
def of_profile(profile: Profile, family: Family) -> Extensions:
    """Those that certificates of a profile have for keys of a family, whoever asks."""
    usages = [usage for usage in profile.usages if family in usage.families]
    made = [_basic(profile.ca), _usage(usages)] if usages else [_basic(profile.ca)]
    if profile.extended_usages:
        oids = [x509.ObjectIdentifier(extended_usage_oid(usage)) for usage in profile.extended_usages]
        made.append(extension(x509.ExtendedKeyUsage(oids)))
    if profile.ca is not None:
        made += of_names(profile.ca.permitted, profile.ca.excluded)
    made += of_policies(profile.policies)
    if profile.must_staple:
        made.append(extension(x509.TLSFeature([x509.TLSFeatureType.status_request])))
    if profile.ocsp_no_check:
        made.append(extension(x509.OCSPNoCheck()))
    if profile.short_lived:
        made.append(extension(x509.UnrecognizedExtension(_NO_REV_AVAIL, _NULL)))
    return tuple(made)


def of_ca(path_length: int | None) -> Extensions:
    """Those of an authority here. It may sign OCSP answers: digitalSignature (RFC 5280, section 4.2.1.3)."""
    usages = (Usage.DIGITAL_SIGNATURE, Usage.KEY_CERT_SIGN, Usage.CRL_SIGN)
    return extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True), _usage(usages)


def of_names(permitted: Sequence[str], excluded: Sequence[str]) -> list[Extension]:
    """nameConstraints, where there are any: critical (RFC 5280, section 4.2.1.10). Raises InvalidArgumentError."""
    if not permitted and not excluded:
        return []
    outside = [subtree(one) for one in excluded]
    if not permitted:
        return [extension(x509.NameConstraints(None, outside), critical=True)]
    limits = constraints.within(tuple(subtree(one) for one in permitted))
    excluding = [*(limits.excluded_subtrees or ()), *outside]
    return [extension(x509.NameConstraints(limits.permitted_subtrees, excluding or None), critical=True)]


def of_policies(oids: Sequence[str]) -> list[Extension]:
    """certificatePolicies, where there are any. Raises ValueError for what is no OID."""
    if not oids:
        return []
    found = [x509.PolicyInformation(x509.ObjectIdentifier(oid), None) for oid in oids]
    return [extension(x509.CertificatePolicies(found))]


def of_key(public_key: PublicKey) -> Extension:
    """subjectKeyIdentifier, by method 1 of RFC 5280, section 4.2.1.2."""
    return extension(x509.SubjectKeyIdentifier.from_public_key(public_key))


def of_subject_names(names: Sequence[x509.GeneralName], subject: x509.Name) -> list[Extension]:
    """subjectAltName, where there are names: critical where the subject is empty (RFC 5280, section 4.2.1.6)."""
    return [extension(x509.SubjectAlternativeName(names), critical=not subject.rdns)] if names else []


def asked(request: Request, profile: Profile, own: Iterable[Extension]) -> Extensions:
    """Those that go into the certificate as the request has them. Raises ProfileError for what it may not ask for.

    Asking for no more than what the certificate has anyway (`own`) is fine.
    """
    there = {one.oid: one.value for one in own}
    copied: list[Extension] = []
    for wanted in request.extensions:
        value = wanted.value
        if wanted.oid.dotted_string in profile.copy:
            copied.append(wanted)
        elif isinstance(value, x509.BasicConstraints):
            _check_basic(value, profile)
        elif isinstance(value, x509.KeyUsage):
            _check_usage(value, profile)
        elif isinstance(value, x509.ExtendedKeyUsage):
            _check_extended(value, profile)
        elif there.get(wanted.oid) != value and profile.unknown_extensions is UnknownExtensions.REFUSE:
            oid = wanted.oid.dotted_string
            raise _wrong(
                profile,
                f"the request asks for the extension {oid}, or a value of it, that is not the profile's",
                f'leave it out; or set copy = ["{oid}"], or unknown_extensions = "ignore"',
            )
    return tuple(copied)


def _check_basic(value: x509.BasicConstraints, profile: Profile) -> None:
    if profile.ca is None:
        if value.ca:
            raise _wrong(profile, "the request asks for a CA's certificate (CA:TRUE)", "it makes none of a CA")
        return
    if not value.ca:
        raise _wrong(profile, "the request asks not to be a CA (CA:FALSE)", "it makes certificates of CAs only")
    if value.path_length is not None and value.path_length > profile.ca.path_length:
        raise _wrong(
            profile, f"the request asks for a path length of {value.path_length}", f"at most {profile.ca.path_length}"
        )


def _check_usage(value: x509.KeyUsage, profile: Profile) -> None:
    wanted = [usage for usage, word in _USAGES.items() if getattr(value, word)]
    more = [usage.value for usage in wanted if usage not in profile.usages]
    if value.key_agreement:
        rare = (("encipherOnly", value.encipher_only), ("decipherOnly", value.decipher_only))
        more += [word for word, wanted_too in rare if wanted_too]
    if more:
        words = ", ".join(usage.value for usage in profile.usages)
        raise _wrong(profile, f"the request asks for the keyUsage {', '.join(more)}", f"it gives {words}")


def _check_extended(value: x509.ExtendedKeyUsage, profile: Profile) -> None:
    given = {extended_usage_oid(usage) for usage in profile.extended_usages}
    more = [oid.dotted_string for oid in value if oid.dotted_string not in given]
    if more:
        words = ", ".join(profile.extended_usages) or "none"
        raise _wrong(profile, f"the request asks for the extendedKeyUsage {', '.join(more[:5])}", f"it gives {words}")


def _basic(rules: CaRules | None) -> Extension:
    path_length = None if rules is None else rules.path_length
    return extension(x509.BasicConstraints(ca=rules is not None, path_length=path_length), critical=True)


def _usage(usages: Iterable[Usage]) -> Extension:
    bits = dict.fromkeys([*_USAGES.values(), "encipher_only", "decipher_only"], False)
    bits |= {_USAGES[usage]: True for usage in usages}
    return extension(x509.KeyUsage(**bits), critical=True)


def extension(value: x509.ExtensionType, *, critical: bool = False) -> Extension:
    """An extension as builders have it."""
    return x509.Extension(value.oid, critical, value)


def _wrong(profile: Profile, message: str, hint: str) -> Exception:
    return refused(profile, "extensions", message, hint)

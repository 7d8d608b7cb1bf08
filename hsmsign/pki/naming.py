"""The names of a certificate: those asked for, or vouched for, held against the profile."""

from __future__ import annotations

from cryptography import x509

from hsmsign.model.errors import CsrError
from hsmsign.pki import names, patterns
from hsmsign.pki.profiles import Profile
from hsmsign.pki.refusing import refused
from hsmsign.pki.requests import Request
from hsmsign.pki.vouching import Vouched

Names = tuple[x509.GeneralName, ...]


def choose(request: Request, profile: Profile, vouched: Vouched | None) -> Names:
    """The names that the certificate will have: those of the request; of one without any, those vouched for.

    Raises ProfileError.
    """
    _check_issuer(profile, vouched)
    found = request.names
    if vouched is not None:
        found = _vouched_for(found, profile, vouched)
    rules = profile.names
    if rules.required and not found:
        raise refused(profile, "names", "the request has no names", "ask for a subjectAltName; " + _allowed(profile))
    if len(found) > rules.max:
        raise refused(profile, "names", f"the request has {len(found)} names", f"at most {rules.max}")
    for name in found:
        if names.is_wildcard(name) and not rules.wildcards:
            raise refused(
                profile, "names", f"{_shown(name)} stands for many hosts", "name each; or set names.wildcards = true"
            )
        if (rules.any or vouched is None) and not patterns.matches(name, rules):
            raise refused(profile, "names", f"{_shown(name)} is not among its names", _allowed(profile))
    return found


def _check_issuer(profile: Profile, vouched: Vouched | None) -> None:
    if profile.identity and (vouched is None or vouched.issuer not in profile.identity):
        came = "no identity token came with the request" if vouched is None else f"{vouched.issuer!r} vouches for it"
        raise refused(profile, "identity", came, f"send a token of {' or '.join(profile.identity)}")


def _vouched_for(asked: Names, profile: Profile, vouched: Vouched) -> Names:
    try:
        allowed = names.check_all(vouched.names) if vouched.names else ()
    except CsrError as error:
        raise refused(
            profile,
            "identity",
            f"{vouched.issuer!r} vouches for what is no name: {error.message}",
            f"see the templates of identity.{vouched.issuer}",
        ) from None
    for name in asked:
        if name not in allowed:
            most = ", ".join(names.shown(names.text(one)) for one in allowed[:5]) or "no names"
            raise refused(
                profile, "identity", f"{vouched.issuer!r} does not vouch for {_shown(name)}", f"it vouches for {most}"
            )
    # a CA has a subject and no other names
    return asked if asked or profile.ca is not None else allowed


def _allowed(profile: Profile) -> str:
    rules = profile.names
    if not rules.any:
        return (
            f"it allows no names as it is: give patterns in the configuration, as [profiles.{profile.name}]"
            ' names.dns = ["*.example.org"]; or send an identity token that vouches for the names'
        )
    kinds = {"dns": rules.dns, "ip": rules.ip, "uri": rules.uri, "email": rules.email}
    said = [f"{kind}:{pattern}" for kind, given in kinds.items() for pattern in given]
    return f"it allows {', '.join(said[:10])}" + (" and others" if len(said) > 10 else "")


def _shown(name: x509.GeneralName) -> str:
    return names.shown(names.text(name))

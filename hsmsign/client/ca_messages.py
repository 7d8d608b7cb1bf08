"""Calls of CertificateAuthorityService: the request's message and how its answer is read."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from hsmsign.client import ca_values as values
from hsmsign.client.answers import time_of
from hsmsign.client.failures import from_status
from hsmsign.client.messages import Call, key_name
from hsmsign.model import ca_names
from hsmsign.model.errors import HsmsignError, InvalidArgumentError
from hsmsign.v1 import authorities_pb2 as pb

Csr = x509.CertificateSigningRequest | bytes | str
"""A request as `cryptography` has it, DER or PEM."""
OwnKey = tuple[str, str, Sequence[str]]
"""A key of the daemon, and the subject and names that its certificate is to have."""
_SERVICE = "/hsmsign.v1.CertificateAuthorityService/"
GET_CRL, WATCH = f"{_SERVICE}GetCrl", f"{_SERVICE}WatchTrustBundle"


def authority_name(text: str) -> str:
    """`issuing` means `cas/issuing`. Raises ResourceNameError."""
    return str(ca_names.authority(text if text.startswith("cas/") else f"cas/{text}"))


def certificate_name(text: str) -> str:
    """A serial number means the certificate with it. Raises ResourceNameError."""
    return f"certificates/{ca_names.certificate(text)}"


def create(request: Mapping[str, Any]) -> Call[values.AuthorityInfo]:
    """CreateAuthority."""
    given = dict(request)
    parent = given.pop("parent", None)
    message = pb.CreateAuthorityRequest(
        authority_id=given.pop("name").removeprefix("cas/"),
        parent=authority_name(parent) if parent else "",
        validity=_duration(given.pop("validity", None)),
        **given,
    )
    return _authority("CreateAuthority", message)


def get(name: str) -> Call[values.AuthorityInfo]:
    """GetAuthority."""
    return _authority("GetAuthority", pb.GetAuthorityRequest(name=authority_name(name)))


def list_() -> Call[tuple[values.AuthorityInfo, ...]]:
    """ListAuthorities."""
    return Call(
        f"{_SERVICE}ListAuthorities",
        pb.ListAuthoritiesRequest(),
        pb.ListAuthoritiesResponse,
        lambda answer: tuple(map(_read_authority, answer.authorities)),
    )


def import_chain(name: str, chain: str) -> Call[values.AuthorityInfo]:
    """ImportCertificate."""
    return _authority("ImportCertificate", pb.ImportCertificateRequest(name=authority_name(name), chain=chain))


def rotate(name: str, validity: dt.timedelta | None, staged: bool) -> Call[values.AuthorityInfo]:
    """RotateAuthority."""
    message = pb.RotateAuthorityRequest(name=authority_name(name), validity=_duration(validity), staged=staged)
    return _authority("RotateAuthority", message)


def cross_sign(name: str, issuer: str, validity: dt.timedelta | None) -> Call[values.AuthorityInfo]:
    """CrossSign."""
    names = {"name": authority_name(name), "issuer": authority_name(issuer)}
    return _authority("CrossSign", pb.CrossSignRequest(**names, validity=_duration(validity)))


def update(name: str, primary: int | None, retire: int | None) -> Call[values.AuthorityInfo]:
    """UpdateAuthority."""
    full = authority_name(name)
    message = pb.UpdateAuthorityRequest(
        name=full,
        primary_version=f"{full}/versions/{primary}" if primary is not None else "",
        retire_version=f"{full}/versions/{retire}" if retire is not None else "",
    )
    return _authority("UpdateAuthority", message)


def profiles() -> Call[tuple[values.ProfileInfo, ...]]:
    """ListProfiles."""
    return Call(
        f"{_SERVICE}ListProfiles",
        pb.ListProfilesRequest(),
        pb.ListProfilesResponse,
        lambda answer: tuple(map(_read_profile, answer.profiles)),
    )


def issue(
    authority: str,
    csr: Csr | None,
    profile: str,
    validity: dt.timedelta | None = None,
    identity_token: str | None = None,
    request_id: str | None = None,
    validate_only: bool = False,
    own: OwnKey | None = None,
) -> Call[values.CertificateInfo]:
    """IssueCertificate. Without a request id it gets one, so that the channel may repeat it."""
    if (csr is None) == (own is None):
        raise InvalidArgumentError(
            "a certificate is for a csr, or for a key of the daemon, and neither or both are named",
            hint="say csr, or key with subject, names or both",
        )
    request = pb.IssueCertificateRequest(
        authority=authority_name(authority),
        profile=profile,
        csr=b"" if csr is None else _csr(csr),
        key=key_name(own[0]) if own is not None else "",
        subject=own[1] if own is not None else "",
        names=own[2] if own is not None else (),
        validity=_duration(validity),
        identity_token=identity_token or "",
        request_id=request_id or str(uuid.uuid4()),
        validate_only=validate_only,
    )
    return Call(f"{_SERVICE}IssueCertificate", request, pb.Certificate, read_certificate)


def issue_many(
    authority: str, csrs: Sequence[Csr], profile: str, validity: dt.timedelta | None
) -> Call[list[values.CertificateInfo | HsmsignError]]:
    """BatchIssueCertificates."""
    requests = [issue(authority, csr, profile, validity).request for csr in csrs]
    return Call(
        f"{_SERVICE}BatchIssueCertificates",
        pb.BatchIssueCertificatesRequest(requests=requests),  # type: ignore[arg-type]
        pb.BatchIssueCertificatesResponse,
        lambda answer: [_read_result(one) for one in answer.results],
    )


def revoke(name: str, reason: str, invalidity: dt.datetime | None) -> Call[values.CertificateInfo]:
    """RevokeCertificate."""
    request = pb.RevokeCertificateRequest(name=certificate_name(name), reason=reason)
    if invalidity is not None:
        request.invalidity_time.CopyFrom(_stamp(invalidity))
    return Call(f"{_SERVICE}RevokeCertificate", request, pb.Certificate, read_certificate)


def certificate(name: str) -> Call[values.CertificateInfo]:
    """GetCertificate."""
    request = pb.GetCertificateRequest(name=certificate_name(name))
    return Call(f"{_SERVICE}GetCertificate", request, pb.Certificate, read_certificate)


def certificates(
    authority: str | None,
    state: values.CertificateState | None,
    profile: str | None,
    text: str | None,
    ends_before: dt.datetime | None,
    token: str,
) -> Call[tuple[tuple[values.CertificateInfo, ...], str]]:
    """ListCertificates: a page, and the token of the next one."""
    request = pb.ListCertificatesRequest(
        authority=authority_name(authority) if authority else "",
        state=state.value if state else 0,  # type: ignore[arg-type]
        profile=profile or "",
        text=text or "",
        page_token=token,
    )
    if ends_before is not None:
        request.ends_before.CopyFrom(_stamp(ends_before))
    return Call(
        f"{_SERVICE}ListCertificates",
        request,
        pb.ListCertificatesResponse,
        lambda answer: (tuple(map(read_certificate, answer.certificates)), answer.next_page_token),
    )


def publish(name: str) -> Call[tuple[values.CrlInfo, ...]]:
    """PublishCrls."""
    request = pb.PublishCrlsRequest(name=authority_name(name))
    return Call(
        f"{_SERVICE}PublishCrls", request, pb.PublishCrlsResponse, lambda answer: tuple(map(_read_crl, answer.crls))
    )


def get_crl(name: str, shard: int, delta: bool) -> pb.GetCrlRequest:
    """GetCrl."""
    return pb.GetCrlRequest(name=authority_name(name), shard=shard, delta=delta)


def ocsp(request: bytes) -> Call[bytes]:
    """GetOcspResponse."""
    return Call(
        f"{_SERVICE}GetOcspResponse",
        pb.GetOcspResponseRequest(request=request),
        pb.GetOcspResponseResponse,
        lambda answer: answer.response,
    )


def trust_bundle() -> Call[values.TrustBundle]:
    """GetTrustBundle."""
    return Call(f"{_SERVICE}GetTrustBundle", pb.GetTrustBundleRequest(), pb.TrustBundle, read_bundle)


def read_bundle(one: pb.TrustBundle) -> values.TrustBundle:
    """A bundle of the wire."""
    return values.TrustBundle(one.sequence, one.roots, one.intermediates)


def read_certificate(one: pb.Certificate) -> values.CertificateInfo:
    """A certificate of the wire."""
    return values.CertificateInfo(
        name=one.name,
        authority_version=one.authority_version,
        state=_state(values.CertificateState, one.state),
        der=one.der,
        chain=one.chain,
        profile=one.profile,
        requester=one.requester,
        identity=one.identity,
        subject=one.subject,
        names=tuple(one.names),
        not_before=time_of(one, "not_before"),
        not_after=time_of(one, "not_after"),
        issued=time_of(one, "issue_time"),
        revoked=time_of(one, "revoke_time"),
        reason=one.revoke_reason,
        invalidity=time_of(one, "invalidity_time"),
    )


def _authority(method: str, request: Message) -> Call[values.AuthorityInfo]:
    return Call(f"{_SERVICE}{method}", request, pb.Authority, _read_authority)


def _read_authority(one: pb.Authority) -> values.AuthorityInfo:
    return values.AuthorityInfo(
        name=one.name,
        versions=tuple(map(_read_version, one.versions)),
        primary_version=one.primary_version,
        created=time_of(one, "create_time"),
        updated=time_of(one, "update_time"),
    )


def _read_version(one: pb.AuthorityVersion) -> values.AuthorityVersionInfo:
    return values.AuthorityVersionInfo(
        name=one.name,
        state=_state(values.AuthorityState, one.state),
        key_version=one.key_version,
        subject=one.subject,
        certificate=one.certificate,
        chain=one.chain,
        cross_certificates=one.cross_certificates,
        csr=one.csr,
        not_before=time_of(one, "not_before"),
        not_after=time_of(one, "not_after"),
        crls=tuple(map(_read_crl, one.crls)),
        shards=one.shards,
    )


def _read_crl(one: pb.Crl) -> values.CrlInfo:
    times = time_of(one, "this_update"), time_of(one, "next_update")
    return values.CrlInfo(one.shard, one.delta, one.number, *times, one.size)


def _read_profile(one: pb.Profile) -> values.ProfileInfo:
    return values.ProfileInfo(
        name=one.name,
        authorities=tuple(one.authorities),
        identity=tuple(one.identity),
        default_validity=one.default_validity.ToTimedelta(),
        max_validity=one.max_validity.ToTimedelta(),
        summary=one.summary,
    )


def _read_result(one: Any) -> values.CertificateInfo | HsmsignError:
    if one.WhichOneof("result") == "certificate":
        return read_certificate(one.certificate)
    return from_status(one.error)


def _state(kind: Any, number: int) -> Any:
    try:
        return kind(number)
    except ValueError:
        raise HsmsignError(
            f"the daemon knows a state that this client does not (number {number})",
            hint="install the hsmsign version that the daemon has",
        ) from None


def _csr(given: Csr) -> bytes:
    if isinstance(given, x509.CertificateSigningRequest):
        return given.public_bytes(Encoding.DER)
    return given.encode() if isinstance(given, str) else given


def _duration(given: dt.timedelta | None) -> Duration | None:
    return None if given is None else Duration(seconds=int(given.total_seconds()))


def _stamp(moment: dt.datetime) -> Timestamp:
    return Timestamp(seconds=int(moment.timestamp()))

"""Authorities and certificates on the wire, both ways."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ReasonFlags
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from hsmsign.model.ca_names import AuthorityName
from hsmsign.model.errors import HsmsignError, InvalidArgumentError
from hsmsign.model.status import to_status
from hsmsign.pki import profiles
from hsmsign.pki.authority import Authority, Version
from hsmsign.pki.issuing import Order, validity
from hsmsign.pki.own_requests import OwnKey
from hsmsign.pki.trust import Bundle
from hsmsign.pki.wishes import Wish
from hsmsign.store.certificates import Wanted
from hsmsign.store.pki_rows import AuthorityState, CertificateRow, CertificateState, CrlRow
from hsmsign.v1 import authorities_pb2 as pb

_STATES = {
    AuthorityState.PENDING: pb.AuthorityVersion.PENDING,
    AuthorityState.ACTIVE: pb.AuthorityVersion.ACTIVE,
    AuthorityState.RETIRED: pb.AuthorityVersion.RETIRED,
}
_SECONDS_MAX = 36_500 * 86_400


def wish(request: pb.CreateAuthorityRequest) -> Wish:
    """The authority that is wanted. Raises ResourceNameError and InvalidArgumentError."""
    id = AuthorityName(request.authority_id).id
    return Wish(
        id=id,
        subject=request.subject,
        key=request.key.removeprefix("keys/") or id,
        parent=_id(request.parent) if request.parent else "",
        external=request.external,
        algorithm=request.algorithm,
        pss=request.pss,
        path_length=request.path_length,
        validity=seconds(request.validity),
        permitted=tuple(request.permitted_names),
        excluded=tuple(request.excluded_names),
        policies=tuple(request.policies),
        shards=request.shards or 1,
        backend=request.backend.removeprefix("backends/"),
    )


def seconds(duration: Duration) -> int:
    """Whole seconds of a validity. Raises InvalidArgumentError."""
    validity(float(duration.seconds))
    return int(duration.seconds)


def order(request: pb.IssueCertificateRequest, own: OwnKey | None) -> Order:
    """A certificate that is wanted, for a request or for a key of this daemon. Raises ResourceNameError and
    InvalidArgumentError."""
    return Order(
        authority=_id(request.authority),
        profile=request.profile,
        csr=request.csr,
        own=own,
        validity=validity(float(request.validity.seconds)),
        token=request.identity_token,
        request_id=request.request_id,
        validate_only=request.validate_only,
    )


def wanted(request: pb.ListCertificatesRequest) -> Wanted:
    """Which certificates a list shows. Raises ResourceNameError and InvalidArgumentError."""
    if request.state not in pb.Certificate.State.values():
        raise InvalidArgumentError(f"there is no state with the number {request.state}", metadata={"field": "state"})
    state = pb.Certificate.State.Name(request.state) if request.state else ""
    return Wanted(
        authority=_id(request.authority) if request.authority else "",
        state=state,
        profile=request.profile,
        text=request.text[:256],
        ends_before=request.ends_before.seconds if request.HasField("ends_before") else None,
    )


def authority(value: Authority, crls: Sequence[Sequence[CrlRow]]) -> pb.Authority:
    """An authority; `crls` are those of its versions, in their order."""
    primary = value.row.primary_version
    return pb.Authority(
        name=value.name,
        versions=[_version(one, rows) for one, rows in zip(value.versions, crls, strict=True)],
        primary_version="" if primary is None else f"{value.name}/versions/{primary}",
        create_time=_micro(value.row.created),
        update_time=_micro(value.row.updated),
    )


def crl(row: CrlRow) -> pb.Crl:
    """What is said of a CRL."""
    return pb.Crl(
        shard=row.shard,
        delta=row.delta,
        number=row.number,
        this_update=Timestamp(seconds=row.this_update),
        next_update=Timestamp(seconds=row.next_update),
        size=row.size,
    )


def profile(value: profiles.Profile) -> pb.Profile:
    """A profile, in short."""
    return pb.Profile(
        name=value.name,
        authorities=[f"cas/{one}" for one in value.authorities],
        identity=value.identity,
        default_validity=Duration(seconds=value.validity.default),
        max_validity=Duration(seconds=value.validity.max),
        summary=_summary(value),
    )


def certificate(row: CertificateRow, version: Version | None) -> pb.Certificate:
    """A certificate; `version` is the one that issued it."""
    issued = row.state is CertificateState.ISSUED
    made = pb.Certificate(
        name=f"certificates/{row.serial}",
        authority_version=f"cas/{row.authority}/versions/{row.version}",
        state=pb.Certificate.ISSUED if issued else pb.Certificate.PENDING,
        der=row.content if issued else b"",
        profile=row.profile,
        requester=row.requester,
        identity=row.identity,
        subject=row.subject,
        names=row.names,
        not_before=Timestamp(seconds=row.not_before),
        not_after=Timestamp(seconds=row.not_after),
        issue_time=_micro(row.created),
    )
    if issued and version is not None:
        made.chain = (
            x509.load_der_x509_certificate(row.content).public_bytes(Encoding.PEM).decode() + version.sent_along
        )
    if row.revoked is not None:
        made.state = pb.Certificate.REVOKED
        made.revoke_time.seconds = row.revoked
        made.revoke_reason = ReasonFlags[row.reason or "unspecified"].value
        if row.invalidity is not None:
            made.invalidity_time.seconds = row.invalidity
    return made


def result(outcome: pb.Certificate | HsmsignError) -> pb.BatchIssueCertificatesResponse.Result:
    """One of many."""
    if isinstance(outcome, HsmsignError):
        return pb.BatchIssueCertificatesResponse.Result(error=to_status(outcome))
    return pb.BatchIssueCertificatesResponse.Result(certificate=outcome)


def bundle(value: Bundle) -> pb.TrustBundle:
    """What is trusted."""
    return pb.TrustBundle(sequence=value.sequence, roots=value.roots_pem, intermediates=value.intermediates_pem)


def _version(value: Version, crls: Sequence[CrlRow]) -> pb.AuthorityVersion:
    row = value.row
    made = pb.AuthorityVersion(
        name=value.name,
        state=_STATES[row.state],
        key_version=row.key_version,
        subject=value.wanted_subject,
        certificate=value.pem(),
        chain=row.chain,
        cross_certificates=row.crosses,
        csr=_request_pem(row.request) if value.is_external else "",
        crls=[crl(one) for one in crls],
        shards=row.shards,
    )
    found = value.maybe_certificate
    if found is not None:
        made.not_before.CopyFrom(_moment(found.not_valid_before_utc))
        made.not_after.CopyFrom(_moment(found.not_valid_after_utc))
    return made


def _id(text: str) -> str:
    """The id of an authority, `cas/` before it or not. Raises ResourceNameError."""
    return AuthorityName(text.removeprefix("cas/")).id


def _request_pem(request: bytes | None) -> str:
    return "" if request is None else x509.load_der_x509_csr(request).public_bytes(Encoding.PEM).decode()


def _summary(value: profiles.Profile) -> str:
    """For a person."""
    patterns = [f"{kind}:{one}" for kind in ("dns", "ip", "uri", "email") for one in getattr(value.names, kind)]
    parts = [
        "a CA's certificate" if value.ca is not None else "",
        f"for {', '.join(value.extended_usages)}" if value.extended_usages else "",
        f"keys {', '.join(one.value for one in value.keys)}",
        f"names {', '.join(patterns)}" if patterns else "",
    ]
    return "; ".join(part for part in parts if part)


def _micro(microseconds: int) -> Timestamp:
    return Timestamp(seconds=microseconds // 1_000_000, nanos=microseconds % 1_000_000 * 1000)


def _moment(moment: dt.datetime) -> Timestamp:
    return Timestamp(seconds=int(moment.timestamp()))

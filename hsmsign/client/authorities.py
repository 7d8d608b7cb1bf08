"""`client.ca`: certificate authorities, and what they issue."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message

from hsmsign.client import ca_messages as messages
from hsmsign.client.ca_messages import Csr
from hsmsign.client.ca_values import (
    AuthorityInfo,
    CertificateInfo,
    CertificateState,
    CrlInfo,
    ProfileInfo,
    TrustBundle,
)
from hsmsign.client.messages import Call
from hsmsign.model.errors import HsmsignError
from hsmsign.v1 import authorities_pb2 as pb

T = TypeVar("T")


class Ask(Protocol):
    """Makes one call of a blocking client."""

    def __call__(self, call: Call[T], deadline: float | None) -> T:
        """The answer."""
        ...


class AskLater(Protocol):
    """The same of one for asyncio."""

    def __call__(self, call: Call[T], deadline: float | None) -> Awaitable[T]:
        """The answer."""
        ...


Receive = Callable[[str, Message, type[Message], float | None], Iterator[Any]]
ReceiveLater = Callable[[str, Message, type[Message], float | None], AsyncIterator[Any]]


class Authorities:
    """Certificate authorities. A bare `issuing` means `cas/issuing`, a serial number the certificate with it.

    Every method raises HsmsignError's subclasses; `deadline` (seconds) is the client's where none is named.
    """

    def __init__(self, ask: Ask, receive: Receive) -> None:
        self._ask = ask
        self._receive = receive

    def create(
        self,
        name: str,
        *,
        subject: str,
        parent: str | None = None,
        external: bool = False,
        key: str | None = None,
        algorithm: str | None = None,
        pss: bool = False,
        path_length: int = 0,
        validity: dt.timedelta | None = None,
        permitted_names: Sequence[str] = (),
        excluded_names: Sequence[str] = (),
        policies: Sequence[str] = (),
        shards: int = 1,
        backend: str | None = None,
        validate_only: bool = False,
        deadline: float | None = None,
    ) -> AuthorityInfo:
        """Make an authority: self-signed, signed by `parent`, or, with `external`, a request for another CA.

        Its key is made where it is not there, for this authority alone. The same again goes on where it stopped."""
        request = {
            "name": name,
            "subject": subject,
            "parent": parent,
            "external": external,
            "key": key or "",
            "algorithm": algorithm or "",
            "pss": pss,
            "path_length": path_length,
            "validity": validity,
            "permitted_names": permitted_names,
            "excluded_names": excluded_names,
            "policies": policies,
            "shards": shards,
            "backend": backend or "",
            "validate_only": validate_only,
        }
        return self._ask(messages.create(request), deadline)

    def get(self, name: str, *, deadline: float | None = None) -> AuthorityInfo:
        """One with all its versions."""
        return self._ask(messages.get(name), deadline)

    def everything(self, *, deadline: float | None = None) -> tuple[AuthorityInfo, ...]:
        """Those that the caller may read."""
        return self._ask(messages.list_(), deadline)

    def import_chain(self, name: str, chain: str, *, deadline: float | None = None) -> AuthorityInfo:
        """Give a version that waits for it the certificate that another CA made, PEM, with those above it."""
        return self._ask(messages.import_chain(name, chain), deadline)

    def rotate(
        self, name: str, *, validity: dt.timedelta | None = None, staged: bool = False, deadline: float | None = None
    ) -> AuthorityInfo:
        """Make a new version, which issues from now on; with `staged`, when `update` says so."""
        return self._ask(messages.rotate(name, validity, staged), deadline)

    def cross_sign(
        self, name: str, issuer: str, *, validity: dt.timedelta | None = None, deadline: float | None = None
    ) -> AuthorityInfo:
        """Have the key of (a version of) one authority certified by another, too."""
        return self._ask(messages.cross_sign(name, issuer, validity), deadline)

    def update(
        self, name: str, *, primary: int | None = None, retire: int | None = None, deadline: float | None = None
    ) -> AuthorityInfo:
        """Choose the version that issues, or retire one."""
        return self._ask(messages.update(name, primary, retire), deadline)

    def profiles(self, *, deadline: float | None = None) -> tuple[ProfileInfo, ...]:
        """The profiles that the caller may use."""
        return self._ask(messages.profiles(), deadline)

    def issue(
        self,
        authority: str,
        csr: Csr | None = None,
        *,
        profile: str,
        key: str | None = None,
        subject: str = "",
        names: Sequence[str] = (),
        validity: dt.timedelta | None = None,
        identity_token: str | None = None,
        request_id: str | None = None,
        validate_only: bool = False,
        deadline: float | None = None,
    ) -> CertificateInfo:
        """Have a certificate issued for a request (PKCS #10: as `cryptography` has it, DER or PEM), or for a `key` of
        the daemon with which the caller may sign, and a `subject` (RFC 4514) and `names` (`dns:…`, `ip:…`, `uri:…`).

        The same again with the same `request_id` (a UUID) is the same certificate."""
        own = None if key is None else (key, subject, names)
        call = messages.issue(authority, csr, profile, validity, identity_token, request_id, validate_only, own)
        return self._ask(call, deadline)

    def issue_many(
        self,
        authority: str,
        csrs: Sequence[Csr],
        *,
        profile: str,
        validity: dt.timedelta | None = None,
        deadline: float | None = None,
    ) -> list[CertificateInfo | HsmsignError]:
        """The same for up to 1,000 at once: for each the certificate, or its error."""
        return self._ask(messages.issue_many(authority, csrs, profile, validity), deadline)

    def revoke(
        self,
        certificate: str,
        *,
        reason: str = "unspecified",
        invalidity: dt.datetime | None = None,
        deadline: float | None = None,
    ) -> CertificateInfo:
        """Revoke a certificate for good. `reason` is a word of RFC 5280 (`keyCompromise`), `invalidity` the time since
        when it is not to be trusted."""
        return self._ask(messages.revoke(certificate, reason, invalidity), deadline)

    def certificate(self, name: str, *, deadline: float | None = None) -> CertificateInfo:
        """One that was issued."""
        return self._ask(messages.certificate(name), deadline)

    def certificates(
        self,
        *,
        authority: str | None = None,
        state: CertificateState | None = None,
        profile: str | None = None,
        text: str | None = None,
        ends_before: dt.datetime | None = None,
        deadline: float | None = None,
    ) -> Iterator[CertificateInfo]:
        """Those that were issued, the newest first, fetched page by page. `text` is a part of the subject or a name."""
        token = ""
        while True:
            call = messages.certificates(authority, state, profile, text, ends_before, token)
            found, token = self._ask(call, deadline)
            yield from found
            if not token:
                return

    def publish_crls(self, name: str, *, deadline: float | None = None) -> tuple[CrlInfo, ...]:
        """Have the CRLs of an authority made now."""
        return self._ask(messages.publish(name), deadline)

    def crl(self, name: str, *, shard: int = 0, delta: bool = False, deadline: float | None = None) -> Iterator[bytes]:
        """The newest CRL of (a version of) an authority, DER, in pieces."""
        request = messages.get_crl(name, shard, delta)
        for answer in self._receive(messages.GET_CRL, request, pb.GetCrlResponse, deadline):
            yield answer.data

    def ocsp(self, request: bytes, *, deadline: float | None = None) -> bytes:
        """The OCSP answer to a request (RFC 6960), both DER."""
        return self._ask(messages.ocsp(request), deadline)

    def trust_bundle(self, *, deadline: float | None = None) -> TrustBundle:
        """The certificates to trust."""
        return self._ask(messages.trust_bundle(), deadline)

    def watch_trust_bundle(self, *, deadline: float | None = None) -> Iterator[TrustBundle]:
        """The bundle as it is, and again whenever it changes. No deadline by default."""
        request = pb.WatchTrustBundleRequest()
        for answer in self._receive(messages.WATCH, request, pb.TrustBundle, deadline):
            yield messages.read_bundle(answer)


class AsyncAuthorities:
    """The calls of `Authorities` that services make, for asyncio."""

    def __init__(self, ask: AskLater, receive: ReceiveLater) -> None:
        self._ask = ask
        self._receive = receive

    async def get(self, name: str, *, deadline: float | None = None) -> AuthorityInfo:
        """One with all its versions."""
        return await self._ask(messages.get(name), deadline)

    async def issue(
        self,
        authority: str,
        csr: Csr | None = None,
        *,
        profile: str,
        key: str | None = None,
        subject: str = "",
        names: Sequence[str] = (),
        validity: dt.timedelta | None = None,
        identity_token: str | None = None,
        request_id: str | None = None,
        validate_only: bool = False,
        deadline: float | None = None,
    ) -> CertificateInfo:
        """Have a certificate issued for a request."""
        own = None if key is None else (key, subject, names)
        call = messages.issue(authority, csr, profile, validity, identity_token, request_id, validate_only, own)
        return await self._ask(call, deadline)

    async def issue_many(
        self,
        authority: str,
        csrs: Sequence[Csr],
        *,
        profile: str,
        validity: dt.timedelta | None = None,
        deadline: float | None = None,
    ) -> list[CertificateInfo | HsmsignError]:
        """The same for up to 1,000 at once."""
        return await self._ask(messages.issue_many(authority, csrs, profile, validity), deadline)

    async def revoke(
        self,
        certificate: str,
        *,
        reason: str = "unspecified",
        invalidity: dt.datetime | None = None,
        deadline: float | None = None,
    ) -> CertificateInfo:
        """Revoke a certificate for good."""
        return await self._ask(messages.revoke(certificate, reason, invalidity), deadline)

    async def certificate(self, name: str, *, deadline: float | None = None) -> CertificateInfo:
        """One that was issued."""
        return await self._ask(messages.certificate(name), deadline)

    async def ocsp(self, request: bytes, *, deadline: float | None = None) -> bytes:
        """The OCSP answer to a request."""
        return await self._ask(messages.ocsp(request), deadline)

    async def trust_bundle(self, *, deadline: float | None = None) -> TrustBundle:
        """The certificates to trust."""
        return await self._ask(messages.trust_bundle(), deadline)

    async def watch_trust_bundle(self, *, deadline: float | None = None) -> AsyncIterator[TrustBundle]:
        """The bundle as it is, and again whenever it changes."""
        request = pb.WatchTrustBundleRequest()
        async for answer in self._receive(messages.WATCH, request, pb.TrustBundle, deadline):
            yield messages.read_bundle(answer)

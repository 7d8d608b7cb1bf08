"""CertificateAuthorityService."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from hsmsign.keyring import Keyring
from hsmsign.model import ca_names
from hsmsign.model.ca_names import AuthorityName
from hsmsign.model.caller import Caller
from hsmsign.model.errors import (
    AuthorityStateError,
    BatchSizeError,
    CertificateNotFoundError,
    HsmsignError,
    InvalidArgumentError,
)
from hsmsign.model.key_facts import KeyFacts
from hsmsign.model.names import KeyName
from hsmsign.model.purpose import PurposeKind
from hsmsign.pki.authority import Authority, Version
from hsmsign.pki.office import Office
from hsmsign.pki.own_requests import OwnKey
from hsmsign.policy import Action
from hsmsign.server import wire_pki as wire
from hsmsign.server.authority_rights import AuthorityRights
from hsmsign.server.guard import Call
from hsmsign.server.rights import Rights
from hsmsign.v1 import authorities_pb2 as pb

BATCH_MAX = 1000


class CertificateAuthorityService:
    """Authorities, what they issue, and what is told of it. A right of an authority is one of its key."""

    def __init__(self, office: Office, keyring: Keyring, rights: Rights) -> None:
        self._office = office
        self._keyring = keyring
        self._rights = rights
        self._allowed = AuthorityRights(office.directory, keyring, rights)

    # ---- authorities ----

    async def CreateAuthority(self, request: pb.CreateAuthorityRequest, call: Call) -> pb.Authority:
        """Make one."""
        wish = wire.wish(request)
        name = str(KeyName(wish.key))
        await self._rights.to(call.caller, Action.ADMIN, name)
        self._rights.to_make(call.caller, KeyFacts.of(wish.key, {}, wish.kind, PurposeKind.CA), adopt=False)
        if wish.parent:
            await self._allowed.require(call.caller, Action.ISSUE, AuthorityName(wish.parent))
        return await self._told(
            await self._office.hierarchy.create(call.caller, wish, validate_only=request.validate_only)
        )

    async def GetAuthority(self, request: pb.GetAuthorityRequest, call: Call) -> pb.Authority:
        """One with all its versions."""
        id = ca_names.authority(request.name).id
        await self._allowed.require(call.caller, Action.READ, AuthorityName(id))
        return await self._told(await self._office.directory.authority(id))

    async def ListAuthorities(self, request: pb.ListAuthoritiesRequest, call: Call) -> pb.ListAuthoritiesResponse:
        """Those that the caller may see."""
        found = (await self._office.directory.everything()).values()
        seen = [one for one in found if await self._allowed.has(call.caller, Action.READ, one)]
        return pb.ListAuthoritiesResponse(authorities=[await self._told(one) for one in seen])

    async def ImportCertificate(self, request: pb.ImportCertificateRequest, call: Call) -> pb.Authority:
        """What an outside CA made."""
        name = ca_names.authority(request.name)
        await self._allowed.require(call.caller, Action.ADMIN, name)
        return await self._told(await self._office.hierarchy.import_chain(name, request.chain))

    async def RotateAuthority(self, request: pb.RotateAuthorityRequest, call: Call) -> pb.Authority:
        """A new version."""
        id = ca_names.authority_id(request.name)
        await self._allowed.require(call.caller, Action.ADMIN, AuthorityName(id))
        await self._allowed.require(call.caller, Action.ROTATE, AuthorityName(id))
        parent = await self._office.hierarchy.parent_of(id)
        if parent:
            await self._allowed.require(call.caller, Action.ISSUE, AuthorityName(parent))
        length = wire.seconds(request.validity)
        return await self._told(await self._office.hierarchy.rotate(call.caller, id, length, staged=request.staged))

    async def CrossSign(self, request: pb.CrossSignRequest, call: Call) -> pb.Authority:
        """One more certificate for a key."""
        name, issuer = ca_names.authority(request.name), ca_names.authority(request.issuer)
        await self._allowed.require(call.caller, Action.ADMIN, name)
        await self._allowed.require(call.caller, Action.ADMIN, issuer)
        await self._allowed.require(call.caller, Action.ISSUE, issuer)
        length = wire.seconds(request.validity)
        return await self._told(await self._office.hierarchy.cross_sign(call.caller, name, issuer, length))

    async def UpdateAuthority(self, request: pb.UpdateAuthorityRequest, call: Call) -> pb.Authority:
        """Who issues, and who does no longer."""
        id = ca_names.authority_id(request.name)
        await self._allowed.require(call.caller, Action.ADMIN, AuthorityName(id))
        primary, retire = (_of(id, text) for text in (request.primary_version, request.retire_version))
        if primary is None and retire is None:
            raise InvalidArgumentError("nothing is to change", hint="say primary_version, retire_version or both")
        return await self._told(await self._office.hierarchy.choose(id, primary, retire))

    # ---- certificates ----

    async def ListProfiles(self, request: pb.ListProfilesRequest, call: Call) -> pb.ListProfilesResponse:
        """Those for the caller."""
        self._rights.to_anything(call.caller)
        return pb.ListProfilesResponse(profiles=map(wire.profile, self._office.catalogue.of(call.caller)))

    async def IssueCertificate(self, request: pb.IssueCertificateRequest, call: Call) -> pb.Certificate:
        """One."""
        return await self._issue(request, call)

    async def BatchIssueCertificates(
        self, request: pb.BatchIssueCertificatesRequest, call: Call
    ) -> pb.BatchIssueCertificatesResponse:
        """Many; each is answered for itself."""
        if not 0 < len(request.requests) <= BATCH_MAX:
            raise BatchSizeError(
                f"the batch has {len(request.requests)} requests, the daemon takes 1 to {BATCH_MAX}",
                hint="send several batches",
            )
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(self._issue_or_error(one, call)) for one in request.requests]
        return pb.BatchIssueCertificatesResponse(results=[wire.result(task.result()) for task in asked])

    async def RevokeCertificate(self, request: pb.RevokeCertificateRequest, call: Call) -> pb.Certificate:
        """For good."""
        version = await self._issuer(call.caller, Action.REVOKE, serial := ca_names.certificate(request.name))
        since = request.invalidity_time.seconds if request.HasField("invalidity_time") else None
        row = await self._office.revoking.revoke(call.caller, serial, request.reason, since)
        return wire.certificate(row, version)

    async def GetCertificate(self, request: pb.GetCertificateRequest, call: Call) -> pb.Certificate:
        """One."""
        version = await self._issuer(call.caller, Action.READ, serial := ca_names.certificate(request.name))
        return wire.certificate(await self._office.certificate(serial), version)

    async def ListCertificates(self, request: pb.ListCertificatesRequest, call: Call) -> pb.ListCertificatesResponse:
        """A page of those whose authorities the caller may read."""
        known = await self._office.directory.everything()
        allowed = [id for id, one in known.items() if await self._allowed.has(call.caller, Action.READ, one)]
        wanted = wire.wanted(request)
        if wanted.authority:
            await self._allowed.require(call.caller, Action.READ, ca_names.authority(f"cas/{wanted.authority}"))
            allowed = [wanted.authority]
        rows, token = await self._office.certificates(wanted, allowed, request.page_size, request.page_token)
        versions = {(one.row.authority, one.row.number): one for one in _versions(known.values())}
        seen = [wire.certificate(row, versions.get((row.authority, row.version))) for row in rows]
        return pb.ListCertificatesResponse(certificates=seen, next_page_token=token)

    # ---- what relying parties want to know ----

    async def PublishCrls(self, request: pb.PublishCrlsRequest, call: Call) -> pb.PublishCrlsResponse:
        """Now."""
        id = ca_names.authority_id(request.name)
        await self._allowed.require(call.caller, Action.REVOKE, AuthorityName(id))
        authority = await self._office.directory.authority(id)
        made = []
        for version in authority.versions:
            if version.maybe_certificate is not None:
                made += await self._office.publisher.publish(version)
        return pb.PublishCrlsResponse(crls=map(wire.crl, made))

    async def GetCrl(self, request: pb.GetCrlRequest, call: Call) -> None:
        """One, in pieces."""
        name = ca_names.authority(request.name)
        await self._allowed.require(call.caller, Action.READ, name)
        version = await self._office.directory.version(name)
        if request.shard >= version.row.shards:
            raise AuthorityStateError(f"{version.name} has {version.row.shards} shards, from 0")
        row = await self._office.crl(version.row.authority, version.row.number, request.shard, delta=request.delta)
        if row is None:
            raise AuthorityStateError(
                f"{version.name} has no such CRL yet", hint=f"hsmsign crl publish {version.row.authority}"
            )
        async for data in self._office.writer.read(row):
            await call.context.write(pb.GetCrlResponse(data=data).SerializeToString())

    async def GetOcspResponse(self, request: pb.GetOcspResponseRequest, call: Call) -> pb.GetOcspResponseResponse:
        """As over HTTP: whoever may do anything here may ask."""
        self._rights.to_anything(call.caller)
        answer = await self._office.responding.answer(request.request)
        return pb.GetOcspResponseResponse(response=answer.der)

    async def GetTrustBundle(self, request: pb.GetTrustBundleRequest, call: Call) -> pb.TrustBundle:
        """Now."""
        self._rights.to_anything(call.caller)
        return wire.bundle(await self._office.trust.bundle())

    async def WatchTrustBundle(self, request: pb.WatchTrustBundleRequest, call: Call) -> None:
        """Now and later."""
        self._rights.to_anything(call.caller)
        async for bundle in self._office.trust.watch(call.drained):
            call.identify()  # it may last longer than the caller's certificate
            await call.context.write(wire.bundle(bundle).SerializeToString())

    # ---- rights ----

    async def _issue(self, request: pb.IssueCertificateRequest, call: Call) -> pb.Certificate:
        id = ca_names.authority_id(request.authority)
        await self._allowed.require(call.caller, Action.ISSUE, AuthorityName(id))
        order = wire.order(request, await self._own(request, call.caller))
        issued = await self._office.issuing.issue(call.caller, order, call.deadline, call.request_id)
        return wire.certificate(issued.row, issued.version)

    async def _own(self, request: pb.IssueCertificateRequest, caller: Caller) -> OwnKey | None:
        """The key of this daemon that a certificate is wanted for, where that is so."""
        if not request.key:
            return None
        if request.csr:
            raise InvalidArgumentError("a certificate is for a csr, or for a key of this daemon, not for both")
        await self._rights.to(caller, Action.SIGN, request.key)
        key = await self._keyring.resolve(request.key)
        return OwnKey(key.public_key, request.subject, tuple(request.names))

    async def _issue_or_error(self, request: pb.IssueCertificateRequest, call: Call) -> pb.Certificate | HsmsignError:
        try:
            return await self._issue(request, call)
        except HsmsignError as error:
            await call.refused(error)
            return error

    async def _issuer(self, caller: Caller, action: Action, serial: str) -> Version | None:
        """The version that issued a certificate, where the caller may do that with it."""
        try:
            row = await self._office.certificate(serial)
        except CertificateNotFoundError:
            self._rights.to_anything(caller)
            raise
        name = AuthorityName(row.authority, row.version)
        await self._allowed.require(caller, action, name)
        return await self._office.directory.version(name)

    async def _told(self, authority: Authority) -> pb.Authority:
        crls = [await self._office.crls(one.row.authority, one.row.number) for one in authority.versions]
        return wire.authority(authority, crls)


def _of(id: str, text: str) -> int | None:
    """The number of a version of this authority."""
    if not text:
        return None
    name = ca_names.version(text)
    if name.id != id:
        raise InvalidArgumentError(f"{text!r} is no version of cas/{id}", hint=f"say cas/{id}/versions/N")
    return name.number


def _versions(found: Iterable[Authority]) -> list[Version]:
    return [version for one in found for version in one.versions]

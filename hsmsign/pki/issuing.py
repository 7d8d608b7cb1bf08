"""Issuing certificates: what is asked for is checked, recorded, signed, recorded again, and then given out.

A row with the serial number and the very TBSCertificate is in the store before the key signs, and the certificate is
there before it leaves: whatever ends the process in between, no certificate is out that the store does not know.
Requests that come while others are on their way go together next: two transactions and one batch of signatures for all.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import hashlib
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from cryptography import x509

from hsmsign.keyring import checks
from hsmsign.model.ca_names import AuthorityName, serial_text
from hsmsign.model.caller import Caller
from hsmsign.model.errors import (
    ClockError,
    InvalidArgumentError,
    ProfileError,
)
from hsmsign.pki import certificates, names, requests
from hsmsign.pki.authority import Urls, Version
from hsmsign.pki.catalogue import Catalogue
from hsmsign.pki.directory import Directory
from hsmsign.pki.drafting import Draft, draft
from hsmsign.pki.identity.verifying import Identities, Vouched
from hsmsign.pki.own_requests import OwnKey
from hsmsign.pki.profiles import Profile
from hsmsign.pki.queue import IssueQueue, Job
from hsmsign.store.pki_rows import CertificateRow, CertificateState, SpentToken

_SLACK = 60
"""Seconds that a clock may go back."""
_SLOW_BITS = 2048
VALIDITY_MAX = dt.timedelta(days=36_500)


@dataclass(frozen=True, slots=True)
class Order:
    """What a caller asks for; nothing of it is checked yet."""

    authority: str
    """The id of an authority."""
    profile: str
    csr: bytes = field(default=b"", repr=False)
    """PKCS #10, DER or PEM."""
    own: OwnKey | None = None
    """Instead of that: a key of this daemon with which the caller may sign."""
    validity: dt.timedelta | None = None
    """None: what the profile says."""
    token: str = field(default="", repr=False)
    """An identity token that vouches for it."""
    request_id: str = ""
    validate_only: bool = False


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with the version that issued it. Of a dry run the row says what would be, and has no content."""

    row: CertificateRow
    version: Version


class Issuing:
    """Issues certificates of all authorities. Belongs to one event loop."""

    def __init__(
        self,
        directory: Directory,
        catalogue: Catalogue,
        identities: Identities,
        queue: IssueQueue,
        urls: Urls,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._catalogue = catalogue
        self._identities = identities
        self._queue = queue
        self._urls = urls
        self._clock = clock

    async def issue(self, caller: Caller, order: Order, deadline: float = 0.0, request: str = "") -> Issued:
        """Issue a certificate. The caller's right to have this authority issue was asked for before. Raises CsrError,
        WeakKeyError, ProfileError, IdentityTokenError, TokenSpentError, AuthorityStateError, ClockError, what the key
        says, and ApprovalRequiredError."""
        version = await self._directory.version(AuthorityName(order.authority))
        version.must_issue()
        profile = self._catalogue.profile(order.profile, caller, order.authority)
        asked = checks.request_id(order.request_id)
        csr = order.own.request() if order.own is not None else await _read(order.csr)
        vouched = await self._vouched(order, profile, csr)
        now = self._now(version)
        drawn = await _draft(csr, profile, now, order.validity, vouched)
        return await self._of(caller, version, drawn, _Asked(order, asked, vouched, deadline, request), now)

    async def enroll(
        self, order: Order, may: Callable[[Caller, str], Awaitable[None]], deadline: float = 0.0, request: str = ""
    ) -> Issued:
        """The same for who proves nothing but what a token says, and is called by that: `token:ISSUER:SUBJECT`. `may`
        raises where such a caller may not have an authority issue."""
        asked = checks.request_id(order.request_id)
        csr = await _read(order.csr)
        vouched = await self._identities.verify(order.token, csr.spki)
        caller = Caller(vouched.principal)
        await may(caller, order.authority)
        version = await self._directory.version(AuthorityName(order.authority))
        version.must_issue()
        profile = self._catalogue.profile(order.profile, caller, order.authority)
        now = self._now(version)
        drawn = await _draft(csr, profile, now, order.validity, vouched)
        return await self._of(caller, version, drawn, _Asked(order, asked, vouched, deadline, request), now)

    async def issue_own(self, caller: Caller, version: Version, drawn: Draft, profile: str) -> Issued:
        """Issue what the daemon drew up itself, for itself or an authority below; `profile` is for the record."""
        order = Order(version.row.authority, profile, own=OwnKey(drawn.spki))
        return await self._of(caller, version, drawn, _Asked(order, drawn=drawn), self._now(version))

    async def _of(self, caller: Caller, version: Version, drawn: Draft, asked: _Asked, now: dt.datetime) -> Issued:
        serial = x509.random_serial_number()
        shard = serial % version.row.shards
        tbs = certificates.to_be_signed(drawn, version.issuer(self._urls, shard), serial)
        row = CertificateRow(
            serial=serial_text(serial),
            authority=version.row.authority,
            version=version.row.number,
            shard=shard,
            state=CertificateState.PENDING,
            profile=asked.order.profile,
            requester=caller.name,
            identity=asked.vouched.principal if asked.vouched else "",
            subject=drawn.subject.rfc4514_string(),
            names=tuple(names.text(one) for one in drawn.names),
            not_before=_seconds(drawn.not_before),
            not_after=min(_seconds(drawn.not_after), _seconds(version.certificate.not_valid_after_utc)),
            public_key=hashlib.sha256(drawn.spki).hexdigest(),
            fingerprint=asked.fingerprint(caller, version),
            content=tbs,
            created=time.time_ns() // 1000,
            request_id=asked.request_id or None,
        )
        if asked.order.validate_only:
            return Issued(dataclasses.replace(row, content=b""), version)
        spent = None
        if asked.vouched is not None and asked.vouched.once:
            spent = SpentToken(asked.vouched.fingerprint, row.serial, asked.vouched.expires)
        job = Job(caller, version, row, spent, asked.deadline, asked.request)
        return Issued(await self._queue.put(job), version)

    async def _vouched(self, order: Order, profile: Profile, csr: requests.Request) -> Vouched | None:
        if not order.token:
            if profile.identity:
                raise ProfileError(
                    f"profile {profile.name!r} wants an identity token that vouches for the request",
                    hint=f"send one of: {', '.join(profile.identity)}",
                    metadata={"profile": profile.name, "check": "identity"},
                )
            return None
        if not profile.identity:
            raise ProfileError(
                f"profile {profile.name!r} takes no identity tokens",
                hint="leave the token out, or name a profile with identity = […]",
                metadata={"profile": profile.name, "check": "identity"},
            )
        return await self._identities.verify(order.token, csr.spki, profile.identity)

    def _now(self, version: Version) -> dt.datetime:
        """The time, whole seconds. Raises ClockError where something was signed to be from later."""
        now = int(self._clock())
        if now + _SLACK < version.row.latest:
            raise ClockError(
                f"the clock says {_words(now)}, and {version.name} signed something that is from"
                f" {_words(version.row.latest)}",
                hint="set the clock right (NTP); nothing is issued until then",
            )
        return dt.datetime.fromtimestamp(now, dt.UTC)


@dataclass(frozen=True, slots=True)
class _Asked:
    """An order, and what was found of it."""

    order: Order
    request_id: str = ""
    vouched: Vouched | None = None
    deadline: float = 0.0
    request: str = ""
    drawn: Draft | None = None
    """What the daemon drew up itself: no request says it."""

    def fingerprint(self, caller: Caller, version: Version) -> str:
        """Of who asks for what: the same again is the same request."""
        order = self.order
        validity = order.validity.total_seconds() if order.validity is not None else None
        own = order.own
        what = [hashlib.sha256(order.csr if own is None else own.spki).hexdigest()]
        if own is not None:
            what += [own.subject, *own.names]
        if self.vouched is not None:
            what.append(self.vouched.fingerprint)
        if self.drawn is not None:
            what += _said(self.drawn)
        parts = (caller.name, order.authority, order.profile, what, validity)
        return hashlib.sha256(json.dumps(["issue", version.row.number, *parts]).encode()).hexdigest()


def _said(drawn: Draft) -> list[str]:
    """Everything that is the same when the same is drawn up later."""
    length = str((drawn.not_after - drawn.not_before).total_seconds())
    extensions = (one.value.public_bytes().hex() + str(one.critical) for one in drawn.extensions)
    return [drawn.subject.public_bytes().hex(), length, *extensions]


def validity(seconds: float) -> dt.timedelta | None:
    """How long, as a request says it; 0: what the profile says. Raises InvalidArgumentError."""
    if not 0 <= seconds <= VALIDITY_MAX.total_seconds():
        raise InvalidArgumentError(
            "the validity is less than nothing, or more than a hundred years", metadata={"field": "validity"}
        )
    return dt.timedelta(seconds=seconds) if seconds else None


async def _read(data: bytes) -> requests.Request:
    """A small request at once; what may be an RSA key's in a thread."""
    if len(data) > _SLOW_BITS // 4:
        return await asyncio.to_thread(requests.read, data)
    return requests.read(data)


async def _draft(
    csr: requests.Request, profile: Profile, now: dt.datetime, wanted: dt.timedelta | None, vouched: Vouched | None
) -> Draft:
    def work() -> Draft:
        return draft(csr, profile, now=now, wanted=wanted, vouched=vouched)

    return await asyncio.to_thread(work) if len(csr.spki) >= _SLOW_BITS // 8 else work()


def _seconds(moment: dt.datetime) -> int:
    return int(moment.timestamp())


def _words(seconds: int) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M:%SZ")

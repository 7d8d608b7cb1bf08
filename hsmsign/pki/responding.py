"""Answers OCSP requests. Answers without a nonce are kept, and those that are asked for are signed anew before they
end, many at a time; questions that come while others are being signed for go together next."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from cryptography.x509 import ReasonFlags
from cryptography.x509.ocsp import OCSPResponseStatus

from hsmsign.model.ca_names import serial_text
from hsmsign.model.errors import HsmsignError, OcspRequestError
from hsmsign.pki import ocsp
from hsmsign.pki.authority import Version
from hsmsign.pki.directory import Directory
from hsmsign.pki.ocsp import IssuerHashes, OcspQuestion
from hsmsign.pki.ocsp_answers import (
    GOOD,
    NOT_CACHED,
    UNKNOWN,
    Status,
    assemble,
    cache_headers,
    error_response,
    response_data,
    revoked,
)
from hsmsign.pki.responders import Responders
from hsmsign.pki.settings import OcspTimes
from hsmsign.pki.signer import ITSELF, Signer
from hsmsign.store import Store, certificates
from hsmsign.store.pki_rows import CertificateRow, CertificateState

KEPT = 8_192
"""Answers in memory."""
WAITING_MAX = 4_096
BATCH = 256
_UNDER_WAY = 2
_LOOK_EVERY = 5.0
_OVERLAP = 60
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """An OCSPResponse, DER, with the HTTP headers that say how long it may be kept."""

    der: bytes
    headers: Mapping[str, str]


@dataclass(slots=True)
class _Kept:
    """An answer for everybody."""

    der: bytes
    question: OcspQuestion
    version: Version
    this_update: dt.datetime
    next_update: dt.datetime
    asked: int = 0
    """How often since it was signed."""


@dataclass(slots=True)
class _Wanted:
    """A question that waits for its answer."""

    question: OcspQuestion
    version: Version
    done: asyncio.Future[Answer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


_Key = tuple[str, int, str]


class Responding:
    """The OCSP responder of all authorities. Belongs to one event loop."""

    def __init__(
        self, store: Store, directory: Directory, responders: Responders, signer: Signer, times: OcspTimes
    ) -> None:
        self._store = store
        self._directory = directory
        self._responders = responders
        self._signer = signer
        self._times = times
        self._hashes: dict[str, IssuerHashes] = {}
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        self._asked: dict[_Key, _Wanted] = {}
        self._waiting: list[_Wanted] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._looked = int(time.time())
        self._changed: dict[str, float] = {}
        """When we heard (`time.monotonic()`) that a certificate was revoked, or for another reason."""
        self._seen: frozenset[certificates.Change] = frozenset()

    async def answer_path(self, path: str) -> Answer:
        """The answer to a request that came by GET; `path` is what follows the responder's URL."""
        try:
            der = ocsp.read_get(path)
        except OcspRequestError:
            return _failed(OCSPResponseStatus.MALFORMED_REQUEST)
        return await self.answer(der)

    async def answer(self, der: bytes) -> Answer:
        """The answer to a request, DER. It raises nothing: what cannot be answered is answered so."""
        try:
            question = ocsp.read_request(der)
            version = await self._asked_of(question)
        except OcspRequestError:
            return _failed(OCSPResponseStatus.MALFORMED_REQUEST)
        except HsmsignError:
            return _failed(OCSPResponseStatus.TRY_LATER)
        if version is None:
            return _failed(OCSPResponseStatus.UNAUTHORIZED)
        if question.nonce is None and (kept := self._kept_for(question, version)) is not None:
            return kept
        if len(self._waiting) >= WAITING_MAX:
            return _failed(OCSPResponseStatus.TRY_LATER)
        return await asyncio.shield(self._put(question, version).done)

    def revoked(self, row: CertificateRow) -> None:
        """A certificate was revoked, or the reason changed: what is kept of it is wrong."""
        self._forget({row.serial})

    async def run(self) -> None:
        """Sign anew what is asked for, before it ends, and hear of what other daemons revoked; for ever."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            try:
                await self.look()
            except HsmsignError as error:
                _log.warning("OCSP answers cannot be looked at", error=error.message)

    async def look(self) -> None:
        """Once."""
        now, since = int(time.time()), self._looked - _OVERLAP
        serials = sorted({serial_text(serial) for _, serial, _ in (*self._kept, *self._asked)})
        found = await self._store.read(lambda connection: certificates.changed_among(connection, serials, since))
        self._looked = now
        self._forget({serial for serial, _ in frozenset(found) - self._seen})
        self._seen = frozenset(found)
        aged = time.monotonic() - 2 * _OVERLAP
        self._changed = {serial: heard for serial, heard in self._changed.items() if heard > aged}
        old = [kept for kept in self._kept.values() if kept.this_update.timestamp() + self._times.refresh < now]
        for kept in old:
            if kept.asked:
                self._put(kept.question, kept.version)
            else:
                self._kept.pop(_key(kept.question, kept.version), None)

    # ---- the steps ----

    async def _asked_of(self, question: OcspQuestion) -> Version | None:
        found = None
        for version in await self._directory.versions():
            hashes = self._hashes.get(version.name)
            if hashes is None:
                hashes = self._hashes[version.name] = IssuerHashes.of(version.subject, version.public_key)
            if hashes.fits(question):
                found = version
        return found

    def _kept_for(self, question: OcspQuestion, version: Version) -> Answer | None:
        kept = self._kept.get(_key(question, version))
        now = _now()
        if kept is None or kept.next_update <= now:
            return None
        kept.asked += 1
        headers = cache_headers(kept.der, this_update=kept.this_update, next_update=kept.next_update, now=now)
        return Answer(kept.der, headers)

    def _put(self, question: OcspQuestion, version: Version) -> _Wanted:
        """Let it be signed for, once for all who ask the same."""
        key = _key(question, version)
        wanted = self._asked.get(key) if question.nonce is None else None
        if wanted is None:
            wanted = _Wanted(question, version)
            if question.nonce is None:
                self._asked[key] = wanted
            self._waiting.append(wanted)
            self._go_on()
        return wanted

    def _go_on(self) -> None:
        while self._waiting and len(self._tasks) < _UNDER_WAY:
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            task = asyncio.get_running_loop().create_task(self._sign(batch))
            self._tasks.add(task)
            task.add_done_callback(self._signed)

    def _signed(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._go_on()

    async def _sign(self, batch: list[_Wanted]) -> None:
        groups: dict[str, list[_Wanted]] = defaultdict(list)
        for wanted in batch:
            groups[wanted.version.name].append(wanted)
        try:
            for group in groups.values():
                await self._sign_or_say(group)
        finally:
            for wanted in batch:
                if wanted.question.nonce is None:
                    self._asked.pop(_key(wanted.question, wanted.version), None)
                if not wanted.done.done():
                    wanted.done.set_result(_failed(OCSPResponseStatus.TRY_LATER))

    async def _sign_or_say(self, group: Sequence[_Wanted]) -> None:
        """One authority's fault keeps no answer of another's back."""
        try:
            await self._sign_group(group)
        except HsmsignError as error:
            _log.warning("OCSP requests are not answered", error=error.message, hint=error.hint)
        except Exception:  # noqa: BLE001 - whoever asked gets an answer, whatever it was
            _log.exception("OCSP requests are not answered")

    async def _sign_group(self, group: Sequence[_Wanted]) -> None:
        """Answer questions about certificates of one version."""
        version = group[0].version
        delegate = await self._responders.of(version)
        began = time.monotonic()
        this_update = _now()
        next_update = this_update + dt.timedelta(seconds=int(self._times.lifetime))
        statuses = await self._statuses(group)
        parts = [
            response_data(
                wanted.question,
                status,
                delegate.responder,
                this_update=this_update,
                next_update=next_update,
                nonce=wanted.question.nonce,
            )
            for wanted, status in zip(group, statuses, strict=True)
        ]
        scheme = delegate.responder.scheme
        signatures = await self._signer.sign_with(ITSELF, delegate.key_version, scheme, parts)
        for wanted, status, part, signature in zip(group, statuses, parts, signatures, strict=True):
            if isinstance(signature, HsmsignError):
                _log.warning("an OCSP answer was not signed", error=signature.message)
                continue
            der = assemble(part, signature, delegate.responder)
            kept = _Kept(der, wanted.question, version, this_update, next_update)
            wanted.done.set_result(self._answered(wanted, status, kept, began))

    def _answered(self, wanted: _Wanted, status: Status, kept: _Kept, began: float) -> Answer:
        """`began`: when it was asked how the certificate does."""
        late = time.monotonic() - began > _OVERLAP / 2
        changed = self._changed.get(serial_text(wanted.question.serial), 0.0) >= began
        # what was never issued may be issued in a moment; what was revoked meanwhile is told to nobody else
        if wanted.question.nonce is not None or status is UNKNOWN or late or changed:
            return Answer(kept.der, NOT_CACHED)
        key = _key(wanted.question, wanted.version)
        self._kept[key] = kept
        self._kept.move_to_end(key)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        headers = cache_headers(kept.der, this_update=kept.this_update, next_update=kept.next_update, now=_now())
        return Answer(kept.der, headers)

    async def _statuses(self, group: Sequence[_Wanted]) -> list[Status]:
        row = group[0].version.row
        serials = {serial_text(wanted.question.serial) for wanted in group}
        found = await self._store.read(lambda connection: certificates.statuses(connection, serials))
        statuses = []
        for wanted in group:
            one = found.get(serial_text(wanted.question.serial))
            if one is None or (one.authority, one.version) != (row.authority, row.number):
                statuses.append(UNKNOWN)
            elif one.revoked is not None:
                when = dt.datetime.fromtimestamp(one.revoked, dt.UTC)
                statuses.append(revoked(when, ReasonFlags[one.reason] if one.reason else None))
            else:
                statuses.append(GOOD if one.state == CertificateState.ISSUED.value else UNKNOWN)
        return statuses

    def _forget(self, serials: Collection[str]) -> None:
        """Answers about these, also those that are on their way."""
        self._changed.update(dict.fromkeys(serials, time.monotonic()))
        for key in list(self._kept) if serials else ():
            if serial_text(key[1]) in serials:
                del self._kept[key]


def _key(question: OcspQuestion, version: Version) -> _Key:
    return version.name, question.serial, question.hash_name


def _failed(status: OCSPResponseStatus) -> Answer:
    return Answer(error_response(status), NOT_CACHED)


def _now() -> dt.datetime:
    return dt.datetime.fromtimestamp(int(time.time()), dt.UTC)

"""Certificates on their way: recorded together, signed together, and recorded together before they leave."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog
from cryptography import x509
from sqlalchemy import Connection

from hsmsign.model.algorithms import InputKind, SignatureFormat
from hsmsign.model.caller import Caller
from hsmsign.model.errors import (
    ApprovalRequiredError,
    DeviceError,
    FailedPreconditionError,
    HsmsignError,
    TokenSpentError,
)
from hsmsign.model.verification import is_good
from hsmsign.pki.authority import Version
from hsmsign.pki.certificates import assemble
from hsmsign.pki.signer import Signer
from hsmsign.store import Store, certificates
from hsmsign.store.pki_rows import CertificateRow, CertificateState, SpentToken

BATCH = 256
"""Certificates that go together at most."""
_UNDER_WAY = 2
"""Batches at a time: one is signed while another is recorded."""
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Job:
    """A certificate that is wanted."""

    caller: Caller
    version: Version
    row: CertificateRow
    """PENDING, with what is to be signed."""
    spent: SpentToken | None
    deadline: float
    request: str
    new: bool = True
    """Whether its row was made for it; else it goes on with one of before, which may be another's, too."""
    done: asyncio.Future[CertificateRow] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class IssueQueue:
    """Issues what is put into it. Belongs to one event loop."""

    def __init__(self, store: Store, signer: Signer) -> None:
        self._store = store
        self._signer = signer
        self._waiting: list[Job] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._by_serial: dict[str, Job] = {}

    async def put(self, job: Job) -> CertificateRow:
        """The certificate, ISSUED. What was begun is finished, also where the caller goes away meanwhile."""
        self._waiting.append(job)
        job.done.add_done_callback(_seen)
        self._go_on()
        return await asyncio.shield(job.done)

    async def close(self, seconds: float) -> None:
        """Finish what is on its way, at most in so many seconds."""
        end = time.monotonic() + seconds
        while self._tasks and time.monotonic() < end:
            await asyncio.wait(self._tasks, timeout=end - time.monotonic())

    def _go_on(self) -> None:
        while self._waiting and len(self._tasks) < _UNDER_WAY:
            jobs, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            task = asyncio.get_running_loop().create_task(self._run(jobs))
            self._tasks.add(task)
            task.add_done_callback(self._ran)

    def _ran(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._go_on()

    async def _run(self, jobs: list[Job]) -> None:
        try:
            wanted = await self._reserve(jobs)
            if wanted:
                await self._sign(wanted)
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it, whatever it is
            if not isinstance(error, HsmsignError):
                _log.exception("certificates were not issued")
                error = HsmsignError("something went wrong inside the daemon", hint="its log says what")
            for job in jobs:
                _fail(job, error)

    async def _reserve(self, jobs: list[Job]) -> list[Job]:
        """Record them. Answers with those that are to be signed; the others are answered, or follow one that is."""
        found = await self._store.write(lambda connection: _reserve(connection, jobs, self._by_serial), crossed=8)
        wanted = []
        for job, outcome in zip(jobs, found, strict=True):
            if isinstance(outcome, HsmsignError):
                _fail(job, outcome)
            elif outcome.state is CertificateState.ISSUED:
                _finish(job, outcome)
            elif (other := self._by_serial.get(outcome.serial)) is not None:
                _follow(job, other)
            else:
                job.row, job.new = outcome, outcome.serial == job.row.serial
                self._by_serial[outcome.serial] = job
                job.done.add_done_callback(functools.partial(self._forget, outcome.serial))
                wanted.append(job)
        return wanted

    def _forget(self, serial: str, _: asyncio.Future[CertificateRow]) -> None:
        self._by_serial.pop(serial, None)

    async def _sign(self, jobs: list[Job]) -> None:
        groups: dict[tuple[str, str], list[Job]] = defaultdict(list)
        for job in jobs:
            groups[job.caller.name, job.version.row.key_version].append(job)
        outcomes = await asyncio.gather(*(self._sign_group(group) for group in groups.values()))
        signed = [one for outcome in outcomes for one in outcome]
        made = [(job, content) for job, content in signed if isinstance(content, bytes)]
        failed = [(job, error) for job, error in signed if isinstance(error, HsmsignError)]
        lost = [job.row.serial for job, error in failed if job.new and not isinstance(error, ApprovalRequiredError)]
        if lost:
            await self._store.write(lambda connection: certificates.forget(connection, lost), crossed=8)
        for job, error in failed:
            _fail(job, error)
        if made:
            known = await self._store.write(lambda connection: _record(connection, made), crossed=8)
            for job, _ in made:
                _finish(job, known[job.row.serial])

    async def _sign_group(self, jobs: list[Job]) -> list[tuple[Job, bytes | HsmsignError]]:
        """The certificates, or why there are none, of one caller and one key."""
        first = jobs[0]
        parts = [job.row.content for job in jobs]
        # the one who waits longest decides: what others no longer wait for is issued all the same
        deadline = 0.0 if any(not job.deadline for job in jobs) else max(job.deadline for job in jobs)
        signatures = await self._signer.sign(first.caller, first.version, parts, deadline, first.request)
        if len(jobs) > 1 and all(_alone(one) for one in signatures):
            return [(await self._sign_group([job]))[0] for job in jobs]
        return [(job, _certificate(job, one)) for job, one in zip(jobs, signatures, strict=True)]


def _alone(outcome: bytes | HsmsignError) -> bool:
    """Whether the key signs one at a time: others have to approve each."""
    return isinstance(outcome, HsmsignError) and outcome.reason == "BATCH_SIZE"


def _reserve(
    connection: Connection, jobs: Sequence[Job], under_way: dict[str, Job]
) -> list[CertificateRow | HsmsignError]:
    """For each: its row, new or of before, or why it gets none."""
    repeated = certificates.by_request(connection, [job.row.request_id for job in jobs if job.row.request_id])
    waiting = certificates.pending(connection, {job.row.fingerprint for job in jobs})
    spent = certificates.spent(connection, [job.spent.fingerprint for job in jobs if job.spent])
    outcomes: list[CertificateRow | HsmsignError] = []
    new: list[Job] = []
    for job in jobs:
        outcome = _before(connection, job, repeated, waiting, under_way)
        if outcome is None and job.spent is not None and job.spent.fingerprint in spent:
            outcome = TokenSpentError("the identity token was used before", hint="get a new one from its issuer")
        if outcome is None:
            outcome = job.row
            new.append(job)
            if job.row.request_id:
                repeated[job.row.request_id] = job.row
            if job.spent is not None:
                spent[job.spent.fingerprint] = job.row.serial
        outcomes.append(outcome)
    certificates.add(connection, [job.row for job in new])
    certificates.spend(connection, [job.spent for job in new if job.spent is not None])
    return outcomes


def _before(
    connection: Connection,
    job: Job,
    repeated: dict[str, CertificateRow],
    waiting: dict[str, CertificateRow],
    under_way: dict[str, Job],
) -> CertificateRow | HsmsignError | None:
    """What the same request came to before: by its id, or because it waits for approvals."""
    id = job.row.request_id
    row = repeated.get(id) if id else waiting.get(job.row.fingerprint)
    if row is None:
        return None
    if id and row.fingerprint != job.row.fingerprint:
        return FailedPreconditionError(
            f"request_id {id} was used for another request",
            hint="a new request needs a new id; the same id repeats the same request",
        )
    if not id and (row.request_id or row.serial in under_way):
        return None
    if row.state is CertificateState.PENDING and row.serial not in under_way and _is_stale(row):
        certificates.forget(connection, [row.serial])  # it would be valid for a moment only, or not at all
        return None
    return row


def _is_stale(row: CertificateRow) -> bool:
    """Whether less than half of its life is left."""
    return row.not_after - time.time() < (row.not_after - row.not_before) / 2


def _record(connection: Connection, made: Sequence[tuple[Job, bytes]]) -> dict[str, CertificateRow]:
    """Put the certificates. Answers with what the store knows of each: where another daemon was faster with the same
    row, what that one gave out counts; where it gave the row up meanwhile, it is put again."""
    known = certificates.rows(connection, [job.row.serial for job, _ in made])
    signed, again = [], []
    for job, content in made:
        row = dataclasses.replace(job.row, state=CertificateState.ISSUED, content=content)
        before = known.get(row.serial)
        if before is None:
            again.append((row, job.spent))
        elif before.state is CertificateState.PENDING:
            signed.append((row.serial, content))
        else:
            row = before
        known[row.serial] = row
    certificates.issued(connection, signed)
    certificates.add(connection, [row for row, _ in again])
    tokens = [dataclasses.replace(token, serial=row.serial) for row, token in again if token is not None]
    there = certificates.spent(connection, [token.fingerprint for token in tokens])
    certificates.spend(connection, [token for token in tokens if token.fingerprint not in there])
    return known


def _certificate(job: Job, signature: bytes | HsmsignError) -> bytes | HsmsignError:
    """The certificate, if the signature is good."""
    if isinstance(signature, HsmsignError):
        return signature
    version, tbs = job.version, job.row.content
    if not is_good(version.public_key, version.scheme, signature, tbs, InputKind.MESSAGE, SignatureFormat.DER):
        return DeviceError(
            f"the device signed with {version.row.key_version}, and its public key does not verify it",
            hint="nothing was issued; is the token's key the one of that name? see: hsmsign key show",
        )
    made = assemble(tbs, version.scheme, signature)
    x509.load_der_x509_certificate(made)
    return made


def _follow(job: Job, other: Job) -> None:
    """Answer as the other is answered: it is the same request."""

    def copy(done: asyncio.Future[CertificateRow]) -> None:
        error = None if done.cancelled() else done.exception()
        if isinstance(error, HsmsignError):
            _fail(job, error)
        elif not done.cancelled():
            _finish(job, done.result())

    other.done.add_done_callback(copy)


def _finish(job: Job, row: CertificateRow) -> None:
    if not job.done.done():
        job.done.set_result(row)


def _fail(job: Job, error: HsmsignError) -> None:
    if not job.done.done():
        job.done.set_exception(error)


def _seen(done: asyncio.Future[CertificateRow]) -> None:
    if not done.cancelled():
        done.exception()  # where the caller has gone nobody else asks, and asyncio would complain

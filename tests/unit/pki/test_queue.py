"""Certificates on their way, also where two daemons meet at one row."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from cryptography import x509

from hsmsign.model.errors import ApprovalRequiredError, DeviceError, FailedPreconditionError, TokenSpentError
from hsmsign.pki.queue import IssueQueue
from hsmsign.store import certificates
from hsmsign.store.pki_rows import CertificateState
from tests.unit.pki.conftest import Desk


async def until(what) -> None:  # type: ignore[no-untyped-def]
    """Look until it is true: nothing else tells."""
    while not await what():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_those_that_come_while_others_are_signed_go_together(desk: Desk) -> None:
    signer = desk.signer()
    signer.gate.clear()
    queue = IssueQueue(desk.store, signer)
    rows = [desk.row() for _ in range(30)]
    tasks = [asyncio.create_task(queue.put(desk.job(row))) for row in rows]
    await asyncio.sleep(0.3)
    signer.gate.set()
    made = await asyncio.gather(*tasks)
    assert [one.serial for one in made] == [row.serial for row in rows]
    assert len(signer.batches) < 5
    for one in made:
        assert x509.load_der_x509_certificate(one.content).serial_number == int(one.serial, 16)
        assert await desk.known(one.serial) == one
    await queue.close(1.0)


async def test_what_another_daemon_gave_up_is_recorded_by_who_signs_it(desk: Desk) -> None:
    other = desk.second()
    first, second = desk.signer(), desk.signer()
    first.gate.clear()
    second.gate.clear()
    first.error = DeviceError("away")
    id = str(uuid.uuid4())
    row = desk.row(request_id=id, fingerprint="same")
    failing = asyncio.create_task(IssueQueue(desk.store, first).put(desk.job(row, "token")))
    await until(lambda: desk.known(row.serial))
    again = desk.row(request_id=id, fingerprint="same")
    going_on = asyncio.create_task(IssueQueue(other, second).put(desk.job(again, "token")))
    await until(lambda: asyncio.sleep(0, bool(second.batches)))
    first.gate.set()
    with pytest.raises(DeviceError):
        await failing
    second.gate.set()
    made = await going_on
    assert made.serial == row.serial
    assert await desk.known(made.serial) == made
    spent = await desk.store.read(lambda c: certificates.spent(c, ["token"]))
    assert spent == {"token": made.serial}
    other.close()


async def test_a_late_failure_does_not_give_a_used_token_back(desk: Desk) -> None:
    other = desk.second()
    first, second = desk.signer(), desk.signer()
    first.gate.clear()
    first.error = DeviceError("away")
    id = str(uuid.uuid4())
    row = desk.row(request_id=id, fingerprint="same")
    failing = asyncio.create_task(IssueQueue(desk.store, first).put(desk.job(row, "token")))
    await until(lambda: desk.known(row.serial))
    made = await IssueQueue(other, second).put(desk.job(desk.row(request_id=id, fingerprint="same"), "token"))
    assert made.state is CertificateState.ISSUED
    first.gate.set()
    with pytest.raises(DeviceError):
        await failing
    assert await desk.known(made.serial) == made
    with pytest.raises(TokenSpentError):
        await IssueQueue(other, second).put(desk.job(desk.row(), "token"))
    other.close()


async def test_two_daemons_that_sign_the_same_row_give_out_the_same_certificate(desk: Desk) -> None:
    other = desk.second()
    first, second = desk.signer(), desk.signer()
    first.gate.clear()
    second.gate.clear()
    id = str(uuid.uuid4())
    one = asyncio.create_task(IssueQueue(desk.store, first).put(desk.job(desk.row(request_id=id, fingerprint="same"))))
    await until(lambda: asyncio.sleep(0, bool(first.batches)))
    two = asyncio.create_task(IssueQueue(other, second).put(desk.job(desk.row(request_id=id, fingerprint="same"))))
    await until(lambda: asyncio.sleep(0, bool(second.batches)))
    first.gate.set()
    second.gate.set()
    assert (await one).content == (await two).content
    other.close()


async def test_a_failure_leaves_no_row_and_gives_the_token_back(desk: Desk) -> None:
    signer = desk.signer()
    signer.error = DeviceError("away")
    queue, row = IssueQueue(desk.store, signer), desk.row()
    with pytest.raises(DeviceError):
        await queue.put(desk.job(row, "token"))
    assert await desk.known(row.serial) is None
    signer.error = None
    assert (await queue.put(desk.job(desk.row(), "token"))).state is CertificateState.ISSUED


async def test_what_waits_for_approvals_is_the_same_when_it_is_asked_for_again(desk: Desk) -> None:
    signer = desk.signer()
    signer.error = ApprovalRequiredError("others must approve it")
    queue, row = IssueQueue(desk.store, signer), desk.row(fingerprint="same")
    with pytest.raises(ApprovalRequiredError):
        await queue.put(desk.job(row))
    signer.error = DeviceError("away for a moment")
    with pytest.raises(DeviceError):
        await queue.put(desk.job(desk.row(fingerprint="same")))
    signer.error = None
    made = await queue.put(desk.job(desk.row(fingerprint="same")))
    assert made.serial == row.serial
    assert (await queue.put(desk.job(desk.row(fingerprint="same")))).serial != row.serial


async def test_what_waited_for_most_of_its_life_is_drawn_up_anew(desk: Desk) -> None:
    signer = desk.signer()
    signer.error = ApprovalRequiredError("others must approve it")
    queue, id = IssueQueue(desk.store, signer), str(uuid.uuid4())
    row = desk.row(fingerprint="same", request_id=id)
    old = desk.row(fingerprint="same", request_id=id, not_before=row.not_before - 86_400, not_after=row.not_before + 60)
    with pytest.raises(ApprovalRequiredError):
        await queue.put(desk.job(old))
    signer.error = None
    made = await queue.put(desk.job(row))
    assert made.serial == row.serial
    assert await desk.known(old.serial) is None


async def test_an_id_of_another_request_is_refused(desk: Desk) -> None:
    queue, id = IssueQueue(desk.store, desk.signer()), str(uuid.uuid4())
    await queue.put(desk.job(desk.row(request_id=id, fingerprint="one")))
    with pytest.raises(FailedPreconditionError, match="another request"):
        await queue.put(desk.job(desk.row(request_id=id, fingerprint="two")))


async def test_a_token_is_used_once_also_within_one_batch(desk: Desk) -> None:
    signer = desk.signer()
    queue = IssueQueue(desk.store, signer)
    tasks = [asyncio.create_task(queue.put(desk.job(desk.row(), "token"))) for _ in range(5)]
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(one, TokenSpentError) for one in done) == 4


async def test_a_signature_that_is_not_good_is_not_given_out(desk: Desk) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    signer = desk.signer()
    signer.key = ec.generate_private_key(ec.SECP256R1())
    row = desk.row()
    with pytest.raises(DeviceError, match="does not verify"):
        await IssueQueue(desk.store, signer).put(desk.job(row))
    assert await desk.known(row.serial) is None


async def test_a_caller_who_goes_away_leaves_a_finished_certificate(desk: Desk) -> None:
    signer = desk.signer()
    signer.gate.clear()
    queue, row = IssueQueue(desk.store, signer), desk.row()
    task = asyncio.create_task(queue.put(desk.job(row)))
    await until(lambda: asyncio.sleep(0, bool(signer.batches)))
    task.cancel()
    signer.gate.set()
    await queue.close(5.0)
    known = await desk.known(row.serial)
    assert known is not None
    assert known.state is CertificateState.ISSUED

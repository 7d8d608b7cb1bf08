"""When CRLs are made, and that what was revoked is in them, whatever comes in between."""

from __future__ import annotations

import dataclasses
import time

import pytest
from cryptography import x509

from hsmsign.model.caller import Caller
from hsmsign.model.errors import (
    ApprovalDeniedError,
    ApprovalRequiredError,
    ClockError,
    DeviceError,
    StoreUnavailableError,
    UnavailableError,
)
from hsmsign.pki.authority import Urls
from hsmsign.pki.crl_writing import CrlWriter, Kind
from hsmsign.pki.directory import Directory
from hsmsign.pki.publishing import Publisher
from hsmsign.pki.revoking import Revoking
from hsmsign.pki.settings import CrlTimes
from hsmsign.store import authorities, certificates, crls
from hsmsign.store.pki_rows import CrlRow
from tests.unit.pki.conftest import Desk, KeySigner

QUICK = CrlTimes(settle=0.0)
DELTAS = CrlTimes(settle=0.0, delta_every=3600.0)


@pytest.fixture
def signer(desk: Desk) -> KeySigner:
    return desk.signer()


def publisher(desk: Desk, signer: KeySigner, times: CrlTimes = QUICK) -> Publisher:
    writer = CrlWriter(desk.store, signer, Urls("http://pki.example.org"))  # type: ignore[arg-type]
    return Publisher(desk.store, Directory(desk.store), writer, times)


def again(made: Publisher) -> Publisher:
    """Let it look at everything now."""
    for due in made._due.values():
        due.not_before = 0.0
    return made


async def newest(desk: Desk, *, delta: bool = False) -> tuple[CrlRow, x509.CertificateRevocationList]:
    row = await desk.store.read(lambda c: crls.crl(c, "root", 1, 0, delta=delta))
    assert row is not None
    data = [part async for part in CrlWriter(desk.store, desk.signer(), Urls("")).read(row)]  # type: ignore[arg-type]
    found = x509.load_der_x509_crl(b"".join(data))
    assert found.is_signature_valid(desk.key.public_key())
    return row, found


async def serials(desk: Desk, *, delta: bool = False) -> set[int]:
    return {entry.serial_number for entry in (await newest(desk, delta=delta))[1]}


async def test_the_first_is_made_at_once_and_no_second_without_need(desk: Desk, signer: KeySigner) -> None:
    made = publisher(desk, signer)
    await made.look()
    row, _ = await newest(desk)
    await again(made).look()
    assert (await newest(desk))[0] == row
    assert made.next_updates == {"cas/root/versions/1": row.next_update}


async def test_a_revocation_is_in_the_next_one_and_one_is_enough(desk: Desk, signer: KeySigner) -> None:
    made = publisher(desk, signer)
    await made.look()
    await desk.revoke(77)
    await again(made).look()
    assert await serials(desk) == {77}
    row, _ = await newest(desk)
    await again(made).look()
    assert (await newest(desk))[0] == row


async def test_what_was_revoked_before_a_restart_is_not_forgotten(desk: Desk, signer: KeySigner) -> None:
    await publisher(desk, signer).look()
    await desk.revoke(80)
    await publisher(desk, signer).look()
    assert await serials(desk) == {80}


async def test_what_was_revoked_while_the_device_was_away_is_not_forgotten(desk: Desk, signer: KeySigner) -> None:
    made = publisher(desk, signer)
    await made.look()
    await desk.revoke(81)
    signer.error = DeviceError("away")
    await again(made).look()
    assert await serials(desk) == set()
    signer.error = None
    await again(made).look()
    assert await serials(desk) == {81}


async def test_an_older_one_never_takes_the_place_of_a_newer(desk: Desk, signer: KeySigner) -> None:
    writer = CrlWriter(desk.store, signer, Urls(""))  # type: ignore[arg-type]
    first = await writer.gather(desk.version, Kind(), 86_400, deltas=False)
    await desk.revoke(77)
    second = await writer.gather(desk.version, Kind(), 86_400, deltas=False)
    assert (await writer.finish(second)).number == 2
    assert (await writer.finish(first)).number == 2
    assert await serials(desk) == {77}


async def test_one_that_waits_for_approval_is_the_same_and_what_came_meanwhile_is_in_the_next(
    desk: Desk, signer: KeySigner
) -> None:
    made = publisher(desk, signer)
    await desk.revoke(78)
    signer.error = ApprovalRequiredError("others must approve it")
    await made.look()
    await desk.revoke(79)
    signer.error = UnavailableError("for a moment")  # what was approved is not thrown away for that
    await again(made).look()
    signer.error = None
    await again(made).look()
    assert ((await newest(desk))[0].number, await serials(desk)) == (1, {78})
    await again(made).look()
    assert await serials(desk) == {78, 79}


async def test_one_that_was_denied_is_made_anew(desk: Desk, signer: KeySigner) -> None:
    made = publisher(desk, signer)
    signer.error = ApprovalRequiredError("others must approve it")
    await made.look()
    signer.error = ApprovalDeniedError("no")
    await again(made).look()
    signer.error = None
    await again(made).look()
    assert (await newest(desk))[0].number == 2


async def test_a_delta_has_what_changed_since_the_full_one(desk: Desk, signer: KeySigner) -> None:
    made = publisher(desk, signer, DELTAS)
    await desk.revoke(81, ago=5_000)
    await made.publish(desk.version)
    await desk.revoke(82)
    await again(made).look()
    assert (await serials(desk), await serials(desk, delta=True)) == ({81}, {82})
    revoking = Revoking(desk.store, lambda _: None)
    await revoking.revoke(Caller("a"), f"{81:x}", "keyCompromise")
    await again(made).look()
    _, delta = await newest(desk, delta=True)
    entry = delta.get_revoked_certificate_by_serial_number(81)
    assert entry is not None
    reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    assert reason is x509.ReasonFlags.key_compromise
    assert await serials(desk) == {81}


async def test_what_ended_is_on_one_more_and_then_no_longer(desk: Desk, signer: KeySigner) -> None:
    made = publisher(desk, signer)
    now = int(time.time())
    await desk.issued(90, revoked=now - 50, changed=now - 50, reason="superseded", not_after=now - 10)
    await made.publish(desk.version)
    assert await serials(desk) == {90}
    await made.publish(desk.version)
    assert await serials(desk) == set()


async def test_large_ones_are_made_in_parts_and_signed_by_their_digest(desk: Desk, signer: KeySigner) -> None:
    signer.largest = 1_000
    await _many(desk, 30_000)
    await publisher(desk, signer).publish(desk.version)
    row, found = await newest(desk)
    assert (len(found), signer.batches) == (30_000, [])
    parts = await desk.store.read(lambda c: [crls.part(c, "root", 1, row.number, part) for part in range(4)])
    assert all(parts[:3])
    await desk.store.write(lambda c: _lose(c, row.number))
    with pytest.raises(StoreUnavailableError):
        await newest(desk)


def _lose(connection, number: int) -> None:  # type: ignore[no-untyped-def]
    from hsmsign.store.pki_tables import crl_parts

    connection.execute(crl_parts.delete().where(crl_parts.c.number == number, crl_parts.c.part == 1))


async def _many(desk: Desk, count: int) -> None:
    """Certificates that were revoked."""
    at = int(time.time())
    one = dataclasses.replace(desk.row(1), revoked=at, changed=at, reason="superseded", content=b"")
    rows = [dataclasses.replace(one, serial=f"{(1 << 150) + n:x}", fingerprint=str(n)) for n in range(count)]
    await desk.store.write(lambda connection: certificates.add(connection, rows))


async def test_one_whose_entries_were_lost_is_not_published(desk: Desk, signer: KeySigner) -> None:
    writer = CrlWriter(desk.store, signer, Urls(""))  # type: ignore[arg-type]
    await desk.revoke(77)
    made = await writer.gather(desk.version, Kind(), 86_400, deltas=False)
    await desk.store.write(lambda c: _lose(c, made.facts.number))
    for signer.largest in (1 << 20, 10):
        with pytest.raises(StoreUnavailableError, match="missing"):
            await writer.finish(made)
    assert await desk.store.read(lambda c: crls.crl(c, "root", 1, 0, delta=False)) is None


async def test_what_somebody_reads_stays_for_a_while(desk: Desk, signer: KeySigner) -> None:
    made = publisher(desk, signer)
    await desk.revoke(77)
    await made.publish(desk.version)
    row, _ = await newest(desk)
    reading = CrlWriter(desk.store, signer, Urls("")).read(row)  # type: ignore[arg-type]
    first = await anext(reading)
    for _ in range(8):
        await made.publish(desk.version)
    rest = b"".join([part async for part in reading])
    assert len(first + rest) == row.size


async def test_one_that_is_published_is_not_dropped(desk: Desk, signer: KeySigner) -> None:
    writer = CrlWriter(desk.store, signer, Urls(""))  # type: ignore[arg-type]
    made = await writer.gather(desk.version, Kind(), 86_400, deltas=False)
    await writer.finish(made)
    await writer.drop(made)
    await newest(desk)


async def test_a_fault_of_one_look_ends_nothing(desk: Desk, signer: KeySigner, monkeypatch: pytest.MonkeyPatch) -> None:
    made = publisher(desk, signer)

    def fails(*_: object) -> None:
        raise RuntimeError("something nobody thought of")

    with monkeypatch.context() as patch:
        patch.setattr(crls, "crls_of", fails)
        assert await made.look() <= 60.0
    await again(made).look()
    await newest(desk)


async def test_only_one_daemon_makes_them_at_a_time(
    desk: Desk, signer: KeySigner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hsmsign.pki.publishing._TURN", 0.3)
    now = int(time.time())
    assert await desk.store.write(lambda c: authorities.claim_crls(c, "root", 1, now, now + 900))
    made = publisher(desk, signer)
    with pytest.raises(UnavailableError, match="being made already"):
        await made.publish(desk.version)
    await made.look()
    assert await desk.store.read(lambda c: crls.crls_of(c, "root", 1)) == []
    await desk.store.write(lambda c: authorities.release_crls(c, "root", 1))
    await again(made).look()
    await newest(desk)


async def test_a_clock_that_went_back_makes_no_older_crl(desk: Desk, signer: KeySigner) -> None:
    made = publisher(desk, signer)
    late = dataclasses.replace(desk.version.row, latest=int(time.time()) + 3600)
    await desk.store.write(lambda c: authorities.save_version(c, late))
    (version,) = await Directory(desk.store).versions()
    with pytest.raises(ClockError):
        await made.publish(version)

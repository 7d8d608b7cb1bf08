"""OCSP answers that are kept, and that are not."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from hsmsign.model.caller import Caller
from hsmsign.model.errors import DeviceError, HsmsignError
from hsmsign.pki.authority import Version
from hsmsign.pki.directory import Directory
from hsmsign.pki.ocsp_answers import NOT_CACHED, Responder
from hsmsign.pki.responders import Delegate
from hsmsign.pki.responding import Answer, Responding
from hsmsign.pki.revoking import Revoking
from hsmsign.pki.settings import OcspTimes
from tests.unit.pki.conftest import SCHEME, Desk, KeySigner


class Itself:
    """The authority signs its answers itself."""

    def __init__(self, desk: Desk) -> None:
        self._delegate = Delegate("keys/root/versions/1", Responder(desk.version.certificate, "key", SCHEME))
        self.error: HsmsignError | None = None

    async def of(self, version: Version) -> Delegate:
        if self.error is not None:
            raise self.error
        return self._delegate


@dataclasses.dataclass
class Bench:
    desk: Desk
    signer: KeySigner
    delegates: Itself
    responding: Responding

    def question(self, serial: int, nonce: bytes | None = None) -> bytes:
        digest = hashes.Hash(hashes.SHA1())
        digest.update(self.desk.version.subject.public_bytes())
        key = x509.SubjectKeyIdentifier.from_public_key(self.desk.key.public_key()).digest
        builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(digest.finalize(), key, serial, hashes.SHA1())
        if nonce is not None:
            builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
        return builder.build().public_bytes(Encoding.DER)

    async def ask(self, serial: int, nonce: bytes | None = None) -> Answer:
        return await self.responding.answer(self.question(serial, nonce))

    async def status(self, serial: int) -> str:
        return status(await self.ask(serial))


def status(answer: Answer) -> str:
    read = ocsp.load_der_ocsp_response(answer.der)
    if read.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        return read.response_status.name
    return read.certificate_status.name


@pytest.fixture
def bench(desk: Desk) -> Bench:
    signer, delegates = desk.signer(), Itself(desk)
    return Bench(desk, signer, delegates, Responding(desk.store, Directory(desk.store), delegates, signer, OcspTimes()))  # type: ignore[arg-type]


async def test_questions_that_come_together_are_signed_together(bench: Bench) -> None:
    for serial in range(1, 41):
        await bench.desk.issued(serial)
    bench.signer.gate.clear()
    asked = [asyncio.create_task(bench.ask(serial)) for serial in range(1, 41)]
    await asyncio.sleep(0.2)
    bench.signer.gate.set()
    assert {status(one) for one in await asyncio.gather(*asked)} == {"GOOD"}
    assert len(bench.signer.batches) < 5
    before = list(bench.signer.batches)
    assert await bench.status(7) == "GOOD"
    assert bench.signer.batches == before


async def test_those_that_are_asked_for_are_signed_anew_in_one_batch_and_others_forgotten(bench: Bench) -> None:
    for serial in (1, 2, 3):
        await bench.desk.issued(serial)
        await bench.ask(serial)
    await bench.ask(1)
    await bench.ask(2)
    for kept in bench.responding._kept.values():
        kept.this_update -= dt.timedelta(seconds=8_000)
    bench.signer.batches.clear()
    await bench.responding.look()
    await asyncio.sleep(0.3)
    assert sum(bench.signer.batches) == 2
    assert {key[1] for key in bench.responding._kept} == {1, 2}
    assert all(kept.this_update.timestamp() > time.time() - 60 for kept in bench.responding._kept.values())


async def test_a_revocation_here_is_told_at_once_and_one_elsewhere_at_the_next_look(bench: Bench) -> None:
    await bench.desk.issued(5)
    await bench.desk.issued(6)
    assert (await bench.status(5), await bench.status(6)) == ("GOOD", "GOOD")
    await Revoking(bench.desk.store, bench.responding.revoked).revoke(Caller("a"), "5", "superseded")
    assert await bench.status(5) == "REVOKED"
    elsewhere = Revoking(bench.desk.second(), lambda _: None)
    await elsewhere.revoke(Caller("a"), "6", "superseded")
    await bench.responding.look()
    assert await bench.status(6) == "REVOKED"
    await elsewhere.revoke(Caller("a"), "6", "keyCompromise")
    bench.responding._seen = frozenset()
    await bench.responding.look()
    answer = ocsp.load_der_ocsp_response((await bench.ask(6)).der)
    assert answer.revocation_reason is x509.ReasonFlags.key_compromise


async def test_one_that_was_revoked_while_it_was_signed_for_is_not_kept(bench: Bench) -> None:
    await bench.desk.issued(5)
    bench.signer.gate.clear()
    asked = asyncio.create_task(bench.ask(5))
    await asyncio.sleep(0.2)
    await Revoking(bench.desk.store, bench.responding.revoked).revoke(Caller("a"), "5", "superseded")
    bench.signer.gate.set()
    late = await asked
    assert late.headers == NOT_CACHED
    assert await bench.status(5) == "REVOKED"


async def test_a_nonce_and_the_unknown_are_not_kept(bench: Bench) -> None:
    await bench.desk.issued(5)
    for serial, nonce, said in ((5, b"nonce", "GOOD"), (9, None, "UNKNOWN")):
        answer = await bench.ask(serial, nonce)
        assert (status(answer), answer.headers) == (said, NOT_CACHED)
    await bench.desk.issued(9)
    assert await bench.status(9) == "GOOD"


async def test_what_was_recorded_and_not_signed_yet_is_unknown(bench: Bench) -> None:
    row = bench.desk.row(11)
    from hsmsign.store import certificates

    await bench.desk.store.write(lambda c: certificates.add(c, [row]))
    assert await bench.status(11) == "UNKNOWN"


async def test_a_device_that_is_away_is_try_later_and_nothing_is_left_waiting(bench: Bench) -> None:
    await bench.desk.issued(5)
    bench.signer.error = DeviceError("away")
    assert await bench.status(5) == "TRY_LATER"
    bench.signer.error = None
    bench.delegates.error = DeviceError("away")
    assert await bench.status(5) == "TRY_LATER"
    bench.delegates.error = None
    assert await bench.status(5) == "GOOD"
    assert bench.responding._asked == {}

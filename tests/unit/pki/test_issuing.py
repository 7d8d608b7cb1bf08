"""Issuing, where the clock or the store is not as it should be."""

from __future__ import annotations

import dataclasses
import sqlite3
import time
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from hsmsign.model.caller import Caller
from hsmsign.model.errors import ClockError, StoreUnavailableError
from hsmsign.pki.authority import Urls
from hsmsign.pki.catalogue import Catalogue
from hsmsign.pki.directory import Directory
from hsmsign.pki.identity.verifying import Identities
from hsmsign.pki.issuing import Issuing, Order
from hsmsign.pki.profiles import BUILT_IN
from hsmsign.pki.queue import IssueQueue
from hsmsign.store import authorities, certificates
from hsmsign.store.pki_rows import CertificateRow
from tests.support.pki import make_csr
from tests.unit.pki.conftest import Desk, KeySigner

ME = Caller("me")
PROFILES = [
    dataclasses.replace(one, names=dataclasses.replace(one.names, dns=("*.example.org",)))
    for one in BUILT_IN
    if one.name == "server"
]


def issuing(desk: Desk, signer: KeySigner, clock: Callable[[], float] = time.time) -> Issuing:
    queue = IssueQueue(desk.store, signer)
    return Issuing(Directory(desk.store), Catalogue(PROFILES), Identities(()), queue, Urls(""), clock=clock)


def order(name: str = "web.example.org") -> Order:
    return Order("root", "server", make_csr(name).public_bytes(Encoding.DER))


async def known(desk: Desk) -> list[CertificateRow]:
    everything = certificates.Wanted()
    return await desk.store.read(lambda connection: certificates.page(connection, everything, None, 10, ["root"]))


async def test_nothing_is_issued_while_the_clock_is_behind_what_was_signed(desk: Desk) -> None:
    signer = desk.signer()
    now = [time.time()]
    office = issuing(desk, signer, lambda: now[0])
    await desk.store.write(lambda connection: authorities.seen(connection, "root", 1, int(now[0])))
    now[0] -= 3600
    with pytest.raises(ClockError, match="the clock says") as caught:
        await office.issue(ME, order())
    assert "NTP" in caught.value.hint
    assert (signer.batches, await known(desk)) == ([], [])
    now[0] += 3600
    made = await office.issue(ME, order())
    assert await known(desk) == [made.row]


async def test_while_the_store_is_locked_nothing_is_signed(desk: Desk) -> None:
    signer = desk.signer()
    office = issuing(desk, signer)
    other = sqlite3.connect(desk.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreUnavailableError) as caught:
        await office.issue(ME, order())
    assert caught.value.hint
    assert signer.batches == []
    other.execute("ROLLBACK")
    other.close()
    assert await known(desk) == []
    made = await office.issue(ME, order())
    assert await known(desk) == [made.row]

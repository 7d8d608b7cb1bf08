"""Issuing while processes die and daemons meet: no certificate is out that the store does not know."""

from __future__ import annotations

import threading
import uuid
from base64 import b64decode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from json import loads

import psutil
import pytest
import sqlalchemy as sa
from cryptography import x509

from hsmsign.client import CertificateInfo, CertificateState
from hsmsign.model.errors import HsmsignError
from hsmsign.store.pki_tables import certificates
from tests.support.daemon import Daemon, eventually
from tests.support.pki import make_csr, make_hierarchy, with_ca
from tests.support.postgresql import PostgreSQL, start_postgresql


def rows(url: str) -> dict[str, sa.Row]:
    """What the store knows, by serial number."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        found = {row.serial: row for row in connection.execute(sa.select(certificates))}
    engine.dispose()
    return found


def test_nothing_is_out_that_the_store_does_not_know_whatever_is_killed(new_daemon: Callable[..., Daemon]) -> None:
    daemon = with_ca()(new_daemon()).start()
    with daemon.client() as client:
        make_hierarchy(client)
    got: list[CertificateInfo] = []
    stop = threading.Event()

    def issue() -> None:
        with daemon.unix_client(deadline=15) as client:
            while not stop.is_set():
                try:
                    got.append(client.ca.issue("issuing", make_csr("a.example.org"), profile="server"))
                except HsmsignError:
                    continue

    with ThreadPoolExecutor(4) as pool:
        work = [pool.submit(issue) for _ in range(4)]
        try:
            for what in ("worker", "host", "worker", "auditor", "worker"):
                size = len(got)
                eventually(lambda: len(got) > size + 8, "nothing is issued")  # noqa: B023
                daemon.kill(what)
        finally:
            stop.set()
        for one in work:
            one.result()
    for process in daemon.family():
        process.kill()
    assert daemon.process is not None
    psutil.Process(daemon.process.pid).wait()
    daemon.start()
    known = rows(f"sqlite:///{daemon.folder}/state/hsmsign.db")
    assert len({one.serial for one in got}) == len(got)
    for one in got:
        assert known[one.serial].state == "ISSUED"
        assert known[one.serial].content == one.der
    # and nothing was signed in the name of the authority of which there is no row
    with daemon.client() as client:
        records = [loads(record) for _, record in client.audit_records(last=1_000_000)]
    tbs = {sha256(_tbs(row)).digest() for row in known.values() if row.authority == "issuing"}
    for record in records:
        if record["event"] == "sign" and record.get("key") == "keys/issuing/versions/1" and record["outcome"] == "OK":
            inputs = b64decode(record["inputs"])
            signed = {inputs[at : at + 32] for at in range(0, len(inputs), 32)}
            assert signed <= tbs or record["principal"] == "hsmsign:ca"


def _tbs(row: sa.Row) -> bytes:
    if row.state == "PENDING":
        return bytes(row.content)
    return x509.load_der_x509_certificate(row.content).tbs_certificate_bytes


def test_a_request_whose_worker_died_gives_the_certificate_that_was_begun(new_daemon: Callable[..., Daemon]) -> None:
    """The device takes its time, and the worker dies meanwhile: the row is there, the certificate is not."""
    daemon = with_ca()(new_daemon()).start()
    url = f"sqlite:///{daemon.folder}/state/hsmsign.db"
    with daemon.client() as client:
        make_hierarchy(client)
    host = psutil.Process(daemon.pid("host"))
    host.suspend()
    csr, again = make_csr("a.example.org"), str(uuid.uuid4())

    def ask() -> CertificateInfo | None:
        try:
            with daemon.unix_client(deadline=15) as client:
                return client.ca.issue("issuing", csr, profile="server", request_id=again)
        except HsmsignError:
            return None

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask)
        pending = eventually(lambda: [row for row in rows(url).values() if row.state == "PENDING"], "not recorded")
        daemon.kill("worker")
        host.resume()
        made = waiting.result() or eventually(ask, "it is not issued")
    assert made.serial == pending[0].serial
    found = rows(url)[made.serial]
    assert (found.state, found.content) == ("ISSUED", made.der)


@pytest.fixture
def server() -> Iterator[PostgreSQL]:
    running = start_postgresql()
    yield running
    running.stop()


def test_two_daemons_on_one_database_issue_at_once(server: PostgreSQL, new_daemon: Callable[..., Daemon]) -> None:
    database = server.new_database()

    def on(daemon: Daemon) -> Daemon:
        daemon.configure(lambda text: text.replace("sqlite:///state/hsmsign.db", database))
        return with_ca()(daemon)

    first, second = on(new_daemon()), on(new_daemon())
    first.start()
    with first.client() as client:
        make_hierarchy(client)
    # the same token: one HSM that both reach
    text = first.config.read_text()
    second.config.write_text(
        second.config.read_text().split("[backends.", 1)[0] + "[backends." + _absolute(first, text)
    )
    second.start()
    with first.client() as one, second.client() as other:
        with ThreadPoolExecutor(8) as pool:
            work = [
                pool.submit(client.ca.issue, "issuing", make_csr(f"n{n}.example.org"), profile="server")
                for n in range(60)
                for client in (one, other)
            ]
            made = [each.result() for each in work]
        assert len({each.serial for each in made}) == 120
        assert {each.serial for each in one.ca.certificates(authority="issuing", profile="server")} == {
            each.serial for each in made
        }
        one.ca.revoke(made[0].serial)
        other.ca.revoke(made[1].serial)
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(client.ca.publish_crls, "issuing") for _ in range(6) for client in (one, other)]
            numbers = [crl.number for each in asked for crl in each.result()]
        assert len(set(numbers)) == len(numbers)
        crl = x509.load_der_x509_crl(b"".join(other.ca.crl("issuing")))
        assert {f"{entry.serial_number:x}" for entry in crl} == {made[0].serial, made[1].serial}
        assert other.ca.certificate(made[0].serial).state is CertificateState.REVOKED


def _absolute(daemon: Daemon, text: str) -> str:
    """The table of its backend, for a daemon in another folder."""
    table = text.split("[backends.", 1)[1]
    return table.replace('"softhsm/', f'"{daemon.folder}/softhsm/')

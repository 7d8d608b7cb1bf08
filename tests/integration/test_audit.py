"""The audit log of a real daemon: what is in it, and what happens when it cannot be written."""

from __future__ import annotations

import base64
import hashlib
import json
import resource
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hsmsign.audit import reading, verifying
from hsmsign.audit.notes import Verifier
from hsmsign.client import Client
from hsmsign.model.algorithms import InputKind
from hsmsign.model.errors import (
    AuditUnavailableError,
    FailedPreconditionError,
    HsmsignError,
    KeyNotFoundError,
    NotFoundError,
    PurposeError,
)
from hsmsign.model.purpose import PurposeKind
from tests.support.daemon import Daemon, eventually, hsmsign

DIGEST = hashlib.sha256(b"hello").digest()


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def records(daemon: Daemon) -> list[dict[str, Any]]:
    return [json.loads(line) for _, line in reading.records(daemon.folder / "audit", 0)]


def holds(record: dict[str, Any], what: str, digests: list[bytes]) -> bool:
    return base64.b64decode(record.get(what, "")) == b"".join(digests)


def run(daemon: Daemon, *words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = hsmsign(*words, environment={"HSMSIGN_CLIENT": str(daemon.folder / "client.toml")})
    assert done.returncode == code, done.stderr + done.stdout
    return done


@pytest.fixture
def audited() -> Iterator[Daemon]:
    """A daemon that makes a checkpoint each second."""
    running = Daemon(checkpoint_seconds=1).start()
    yield running
    running.remove()


def test_every_signature_and_every_refusal_is_recorded(shared_daemon: Daemon) -> None:
    with shared_daemon.client() as client:
        client.create_key("a1", "ecdsa-p256")
        client.create_key("a2", "ecdsa-p256", purpose=PurposeKind.JWT)
        before = reading.size(shared_daemon.folder / "audit")
        one = client.sign("a1", message=b"a secret message").value
        many = client.sign_batch("a1", [DIGEST, b"short", DIGEST])
        with pytest.raises(PurposeError):
            client.sign("a2", message=b"no token")
        with pytest.raises(PurposeError):
            client.sign("a2", digest=DIGEST)
        with pytest.raises(KeyNotFoundError):
            client.sign("nobody", digest=DIGEST)
        with pytest.raises(KeyNotFoundError):
            client.get_key("nobody")
        client.get_key("a1")
    text = b"\n".join(line for _, line in reading.records(shared_daemon.folder / "audit", 0))
    found = records(shared_daemon)[before:]
    outcomes = [(one["event"], one.get("key"), one["outcome"]) for one in found]
    assert outcomes == [
        ("sign", "keys/a1/versions/1", "OK"),
        ("sign", "keys/a1/versions/1", "OK"),
        ("sign", "keys/a2/versions/1", "OK"),
        ("sign", "keys/a2", "PURPOSE_MISMATCH"),
        ("sign", "keys/nobody", "KEY_NOT_FOUND"),
        ("call", "keys/nobody", "KEY_NOT_FOUND"),
        ("call", "keys/a1", "OK"),
    ]
    assert holds(found[0], "inputs", [sha(b"a secret message")])
    assert holds(found[0], "signatures", [sha(one)])
    assert found[0]["principal"].startswith("spiffe://") or found[0]["principal"]
    assert holds(found[1], "inputs", [sha(DIGEST), sha(b"short"), sha(DIGEST)])
    signatures = [entry for entry in many if isinstance(entry, bytes)]
    assert holds(found[1], "signatures", [sha(signatures[0]), bytes(32), sha(signatures[1])])
    assert found[1]["failures"] == {"1": "DIGEST_LENGTH"}
    assert found[2]["failures"] == {"0": "PURPOSE_MISMATCH"}
    assert b"a secret message" not in text
    assert (shared_daemon.folder / "softhsm" / "pin").read_bytes().strip() not in text
    assert len({one["id"] for one in records(shared_daemon)}) == len(records(shared_daemon))


def test_a_large_batch_is_several_records(shared_daemon: Daemon) -> None:
    with shared_daemon.client() as client:
        client.create_key("large", "ecdsa-p256")
        before = reading.size(shared_daemon.folder / "audit")
        made = client.sign_batch("large", [DIGEST] * 2500).signatures()
    found = records(shared_daemon)[before:]
    assert [(one["first"], one["count"]) for one in found] == [(0, 1024), (1024, 1024), (2048, 452)]
    assert holds(found[2], "signatures", [sha(one) for one in made[2048:]])


def test_the_log_is_proved_with_the_command_line(audited: Daemon, tmp_path: Path) -> None:
    folder = audited.folder / "audit"
    with audited.client() as client:
        client.create_key("web", "ecdsa-p256")
        client.sign("web", digest=DIGEST)
        eventually(lambda: (folder / "checkpoint").exists())
        assert client.get_key("audit-log").purpose.kind is PurposeKind.AUDIT
        with pytest.raises(PurposeError):
            client.sign("audit-log", message=b"example.com/log\n1\nAAAA\n")
        wanted = [index for index, record in enumerate(records(audited)) if record.get("key") == "keys/web/versions/1"]
        eventually(lambda: verifying.newest(folder, None).size > wanted[0])
    (tmp_path / "log.vkey").write_text(run(audited, "audit", "key").stdout)
    verifier = Verifier.parse((tmp_path / "log.vkey").read_text())
    assert verifying.newest(folder, verifier).origin in audited.config.read_text()
    kept = tmp_path / "kept"
    run(audited, "audit", "checkpoint", "--out", kept)
    proof = tmp_path / "web.tlog-proof"
    run(audited, "audit", "prove", str(wanted[0]), "--out", proof)
    shown = json.loads(run(audited, "audit", "check", proof, "--verifier", tmp_path / "log.vkey", "--json").stdout)
    assert shown == records(audited)[wanted[0]]
    assert "web/versions/1" in run(audited, "audit", "tail", "--last", "1000").stdout
    assert audited.stop() == 0
    shown = json.loads(run(audited, "audit", "verify", folder, "--verifier", str(verifier), "--json").stdout)
    assert shown["good"]
    assert shown["covered"] == shown["size"]  # one more checkpoint, at the end
    words = run(audited, "audit", "verify", folder, "--verifier", str(verifier), "--checkpoint", kept).stdout
    assert words.startswith("good: ")
    segment = folder / "records-000000000000.jsonl"
    segment.write_bytes(segment.read_bytes().replace(b"keys/web", b"keys/wob", 1))
    words = run(audited, "audit", "verify", folder, "--verifier", str(verifier), code=1).stdout
    assert "some were changed" in words
    proof.write_bytes(proof.read_bytes().replace(b"index ", b"index 1"))
    assert "not in the log" in run(audited, "audit", "check", proof, "--verifier", str(verifier), code=1).stderr


def test_records_are_followed(audited: Daemon) -> None:
    with audited.client() as client:
        client.create_key("web", "ecdsa-p256")
        heard: list[str] = []

        def follow() -> None:
            for _, record in client.audit_records(last=1, follow=True, deadline=20):
                heard.append(json.loads(record)["outcome"])
                if len(heard) == 3:
                    return

        thread = threading.Thread(target=follow)
        thread.start()
        eventually(lambda: heard)
        client.sign("web", digest=DIGEST)
        with pytest.raises(NotFoundError):
            client.get_key("nobody")
        thread.join(20)
    assert heard == ["OK", "OK", "KEY_NOT_FOUND"]


class Load:
    """Callers who keep every signature that they got."""

    def __init__(self, daemon: Daemon, callers: int = 4) -> None:
        self.signatures: list[bytes] = []
        self.errors: list[HsmsignError] = []
        self._stop = threading.Event()
        self._daemon = daemon
        self._threads = [threading.Thread(target=self._call, args=(number,)) for number in range(callers)]

    def _call(self, number: int) -> None:
        with self._daemon.client() as client:
            while not self._stop.is_set():
                try:
                    if number % 2:
                        self.signatures.append(client.sign("web", digest=DIGEST).value)
                    else:
                        made = client.sign_batch("web", [DIGEST] * 20, kind=InputKind.DIGEST)
                        self.signatures += made.signatures()
                except HsmsignError as error:
                    self.errors.append(error)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def grows(self) -> None:
        """Wait until more was signed."""
        count = len(self.signatures)
        eventually(lambda: len(self.signatures) > count + 50)


def recorded(daemon: Daemon) -> set[bytes]:
    found = set()
    for record in records(daemon):
        data = base64.b64decode(record.get("signatures", ""))
        found |= {data[at : at + 32] for at in range(0, len(data), 32)}
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_an_auditor_that_dies_or_hangs_is_replaced_and_no_call_fails(audited: Daemon, number: int) -> None:
    with audited.client() as client:
        client.create_key("web", "ecdsa-p256")
    with Load(audited) as load:
        for _ in range(3 if number == signal.SIGKILL else 1):
            load.grows()
            pid = audited.kill("auditor", number)
            eventually(lambda pid=pid: audited.pid("auditor") != pid)
            load.grows()
    assert not load.errors
    audited.stop()
    assert verifying.verify(audited.folder / "audit", None).good
    assert {sha(one) for one in load.signatures} <= recorded(audited)


def test_every_answered_signature_is_in_the_log_whatever_was_killed(audited: Daemon) -> None:
    with audited.client() as client:
        client.create_key("web", "ecdsa-p256")
    answered: list[bytes] = []
    for _ in range(3):
        with Load(audited) as load:
            load.grows()
            for one in audited.family():
                one.kill()
            assert audited.process is not None
            audited.process.wait()
        answered += load.signatures
        audited.start()
    audited.stop()
    report = verifying.verify(audited.folder / "audit", None)
    assert report.good, report.findings
    assert {sha(one) for one in answered} <= recorded(audited)


def sign_until(client: Client, error: type[HsmsignError] | None) -> None:
    def tried() -> bool:
        try:
            client.sign("web", digest=DIGEST)
        except HsmsignError as caught:
            return error is not None and isinstance(caught, error)
        return error is None

    eventually(tried)


def test_on_a_full_disk_nothing_is_signed_and_afterwards_everything_is(audited: Daemon) -> None:
    with audited.client() as client:
        client.create_key("web", "ecdsa-p256")
        client.sign("web", digest=DIGEST)
        pid, segment = audited.pid("auditor"), audited.folder / "audit" / "records-000000000000.jsonl"
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (segment.stat().st_size + 300, resource.RLIM_INFINITY))
        sign_until(client, AuditUnavailableError)
        size = segment.stat().st_size
        for _ in range(2):  # each is tried again by the client, for some seconds
            with pytest.raises(AuditUnavailableError, match="cannot take"):
                client.sign_batch("web", [DIGEST] * 50).signatures()
        assert segment.stat().st_size == size
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        sign_until(client, None)
    audited.stop()
    assert verifying.verify(audited.folder / "audit", None).good


def test_a_damaged_log_is_not_written_on(audited: Daemon) -> None:
    segment = audited.folder / "audit" / "records-000000000000.jsonl"
    audited.stop()
    segment.write_bytes(segment.read_bytes().replace(b"started", b"stopped", 1))
    audited.launch()
    assert audited.process is not None
    assert audited.process.wait(timeout=30) == 78
    assert "audit verify" in audited.log()


def test_who_may_not_read_the_log_is_told_so(new_daemon, tmp_path: Path) -> None:
    daemon = new_daemon()
    policy = daemon.folder / "policy.toml"
    policy.write_text(policy.read_text() + '\n[[deny]]\nprincipals = ["*"]\nactions = ["audit"]\n')
    daemon.start()
    with daemon.unix_client() as client:
        for call in (client.audit_checkpoint, lambda: client.audit_proof("1"), lambda: list(client.audit_records())):
            with pytest.raises(HsmsignError, match="may not audit"):
                call()


@pytest.mark.parametrize("durability", ["relaxed", "off"])
def test_less_is_an_explicit_choice(new_daemon, durability: str) -> None:
    daemon = new_daemon(edit=lambda text: text.replace('durability = "strict"', f'durability = "{durability}"')).start()
    with daemon.client() as client:
        client.create_key("web", "ecdsa-p256")
        made = client.sign_batch("web", [DIGEST] * 30).signatures()
        if durability == "off":
            with pytest.raises(FailedPreconditionError, match="no audit log"):
                client.audit_checkpoint()
    daemon.stop()
    if durability == "relaxed":
        assert {sha(one) for one in made} <= recorded(daemon)
        assert verifying.verify(daemon.folder / "audit", None).good
    else:
        assert not (daemon.folder / "audit").exists()
        assert "nothing is recorded" in daemon.log()

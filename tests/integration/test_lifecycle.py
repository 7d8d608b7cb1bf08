"""The daemon's processes: start, stop, replacement, reload, with everything real."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from hsmsign.client import Client
from hsmsign.model.errors import HsmsignError, UnavailableError
from tests.support.daemon import Daemon, NotifySocket, eventually, hsmsign
from tests.support.kernel import confines

DIGESTS = [hashlib.sha256(bytes([i])).digest() for i in range(64)]


def new_key(client: Client) -> str:
    name = f"keys/k{uuid.uuid4().hex[:12]}"
    client.create_key(name, algorithm="ecdsa-p256")
    return name


def check_batch(client: Client, name: str) -> None:
    public = client.public_key(name)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    for digest, signature in zip(DIGESTS, client.sign_batch(name, DIGESTS).signatures(), strict=True):
        public.verify(signature, digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))


class Load:
    """Threads that sign until they are told to stop; what went wrong is kept."""

    def __init__(self, client: Client, name: str) -> None:
        self.calls = 0
        self.errors: list[HsmsignError] = []
        self._client, self._name = client, name
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(3)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._client.sign_batch(self._name, DIGESTS).signatures()
                self._client.sign(self._name, digest=DIGESTS[0])
                self.calls += 2
            except HsmsignError as error:
                self.errors.append(error)

    def more(self, calls: int = 40) -> None:
        """Wait until so many more calls have ended."""
        wanted = self.calls + calls
        eventually(lambda: self.calls >= wanted or self.errors, "calls did not go on")

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_it_leaves_no_process_and_no_socket_when_it_stops(new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon().start()
    family = daemon.family()
    assert len(family) == 4  # supervisor, auditor, host, worker
    assert daemon.stop() == 0
    assert [process for process in family if process.is_running()] == []
    assert not (daemon.folder / "run" / "hsmsign.sock").exists()


def test_keys_survive_a_restart(daemon: Daemon) -> None:
    with daemon.client() as client:
        name = new_key(client)
        before = client.get_key(name)
    assert daemon.stop() == 0
    daemon.start()
    with daemon.client() as client:
        assert client.get_key(name) == before
        check_batch(client, name)


def test_calls_succeed_while_the_device_host_is_killed_again_and_again(daemon: Daemon) -> None:
    with daemon.client() as client:
        name = new_key(client)
        load = Load(client, name)
        for _ in range(3):
            load.more()
            killed = daemon.kill("host")
            eventually(lambda: daemon.pid("host") != killed)  # noqa: B023 - called in this turn
        load.more()
        load.stop()
        assert load.errors == []
        check_batch(client, name)


def test_a_host_that_hangs_is_replaced_and_calls_succeed(new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon(edit=lambda text: text.replace("heartbeat_seconds = 5 ", "heartbeat_seconds = 1.5 ")).start()
    with daemon.client() as client:
        name = new_key(client)
        load = Load(client, name)
        load.more()
        hung = daemon.kill("host", signal.SIGSTOP)
        eventually(lambda: daemon.pid("host") != hung)
        load.more()
        load.stop()
        assert load.errors == []


def test_a_worker_that_is_killed_is_replaced_at_the_same_address(daemon: Daemon) -> None:
    with daemon.client() as client, daemon.unix_client() as over_unix:
        name = new_key(client)
        endpoints = daemon.endpoints
        killed = daemon.kill("worker")
        eventually(lambda: daemon.pid("worker") != killed)
        check_batch(client, name)
        check_batch(over_unix, name)
        assert {**daemon.endpoints, "pids": None} == {**endpoints, "pids": None}


def test_its_children_go_when_the_supervisor_is_killed(daemon: Daemon) -> None:
    family = daemon.family()
    daemon.kill("supervisor")
    assert daemon.process is not None
    daemon.process.wait()
    eventually(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family))
    daemon.start()
    with daemon.client() as client:
        new_key(client)


def test_a_second_daemon_on_the_same_folder_is_refused(daemon: Daemon) -> None:
    second = hsmsign("serve", "--config", daemon.config)
    assert second.returncode == 75
    assert f"another daemon (process {daemon.pid('supervisor')})" in second.stderr
    with daemon.client() as client:
        new_key(client)


def test_a_reload_takes_the_new_configuration_and_drops_no_call(daemon: Daemon) -> None:
    with daemon.client() as client:
        name = new_key(client)
        load = Load(client, name)
        load.more()
        before = daemon.pid("worker")
        daemon.configure(lambda text: text.replace("max_batch_items = 10_000", "max_batch_items = 100"))
        daemon.kill("supervisor", signal.SIGHUP)
        eventually(lambda: daemon.pid("worker") != before)
        load.more()
        load.stop()
        assert load.errors == []
        with pytest.raises(HsmsignError) as refused:
            client.sign_batch(name, DIGESTS * 2).signatures()
        assert refused.value.reason == "BATCH_SIZE"


def test_a_reload_with_a_mistake_keeps_the_old_configuration_and_says_why(daemon: Daemon) -> None:
    with daemon.client() as client:
        name = new_key(client)
        before = daemon.pid("worker")
        daemon.configure(lambda text: text.replace("drain_seconds", "drain_second"))
        daemon.kill("supervisor", signal.SIGHUP)
        daemon.logged("did you mean 'drain_seconds'?")
        check_batch(client, name)
        assert daemon.pid("worker") == before


def test_systemd_is_told_when_it_is_ready_and_when_it_stops(tmp_path: Path, new_daemon: Callable[..., Daemon]) -> None:
    notify = NotifySocket(tmp_path)
    daemon = new_daemon()
    daemon.environment["NOTIFY_SOCKET"] = str(notify.path)
    daemon.launch()
    notify.wait_for("READY=1")
    with daemon.client() as client:
        new_key(client)
    assert daemon.stop() == 0
    notify.wait_for("STOPPING=1")


def test_what_is_under_way_is_finished_when_it_stops(daemon: Daemon) -> None:
    with daemon.client() as client:
        name = new_key(client)
        results: list[object] = []

        def sign() -> None:
            try:
                results.append(len(client.sign_batch(name, DIGESTS * 100).signatures()))
            except HsmsignError as error:
                results.append(error)

        worker = threading.Thread(target=sign)
        worker.start()
        eventually(lambda: any(backend.in_flight for backend in client.backends()))
        assert daemon.stop() == 0
        worker.join()
        # the batch is several calls: those under way ended well, one that came later was turned away
        assert results == [6400] or isinstance(results[0], UnavailableError)


def test_the_unix_socket_is_for_the_owner_and_the_group(daemon: Daemon) -> None:
    mode = Path(daemon.endpoints["unix"]).stat().st_mode
    assert stat.S_IMODE(mode) == 0o660
    with daemon.unix_client() as client:
        new_key(client)
    daemon.logged(f'"unix:{os.getuid()}"')


def test_nothing_secret_is_in_the_log_the_arguments_or_the_workers_environment(daemon: Daemon) -> None:
    pin = (daemon.folder / "softhsm" / "pin").read_text().strip()
    with daemon.client() as client:
        new_key(client)
    for process in daemon.family():
        assert pin not in " ".join(process.cmdline())
        assert pin not in Path(f"/proc/{process.pid}/environ").read_text()
    assert pin not in daemon.log()


@pytest.mark.skipif(not confines(), reason="this kernel lacks Landlock or seccomp")
def test_workers_and_hosts_have_given_up_what_they_do_not_need(daemon: Daemon) -> None:
    for what in ("worker", "host"):
        status = dict(line.split(":", 1) for line in Path(f"/proc/{daemon.pid(what)}/status").read_text().splitlines())
        assert status["NoNewPrivs"].strip() == "1"
        assert status["Seccomp"].strip() == "2"
    assert "lacks a protection" not in daemon.log()


def test_files_that_init_makes_are_the_owners_alone(daemon: Daemon) -> None:
    secret = [*(daemon.folder / "tls").iterdir(), daemon.folder / "softhsm" / "pin", daemon.config]
    assert len(secret) == 8
    assert [path.name for path in secret if stat.S_IMODE(path.stat().st_mode) != 0o600] == []


def test_init_again_changes_nothing(daemon: Daemon) -> None:
    def content() -> dict[Path, bytes]:
        roots = [daemon.folder / "tls", daemon.folder / "softhsm"]
        files = [path for root in roots for path in root.rglob("*") if path.is_file() and "tokens" not in path.parts]
        return {path: path.read_bytes() for path in [*files, daemon.config]}

    before = content()
    again = hsmsign("init", daemon.folder)
    assert again.returncode == 0
    assert "made" not in again.stdout
    assert content() == before

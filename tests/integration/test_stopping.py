"""A daemon that is asked to stop, or to reload, at a bad moment; and what each of its processes is told."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from hsmsign.model.errors import BackendNotFoundError, HsmsignError
from tests.support import softhsm
from tests.support.daemon import Daemon, NotifySocket, eventually
from tests.support.softhsm import calls


def add_backend(daemon: Daemon, name: str, pin: str) -> str:
    """A second token, with its PIN as `pin` says; the text in the configuration that stands for it."""
    token = softhsm.make_token(daemon.folder / name, name)
    block = (
        f'\n[backends.{name}]\nkind = "softhsm"\nmodule = "{softhsm.find_module()}"\ntoken_label = "{name}"\n'
        f'token_dir = "{token.token_dir}"\n{pin.format(file=token.pin_file)}\n'
    )
    daemon.configure(lambda text: text.replace("[backends.softhsm]", "[backends.softhsm]\ndefault = true") + block)
    return block


def environment_of(pid: int) -> dict[str, str]:
    return psutil.Process(pid).environ()


def test_sigterm_ends_a_daemon_whose_store_keeps_its_worker_waiting(new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon().start()
    assert daemon.stop() == 0
    with sqlite3.connect(next(daemon.folder.rglob("*.db"))) as other:
        other.execute("BEGIN EXCLUSIVE")
        daemon.launch()
        eventually(lambda: daemon.log().count("worker started") == 2)
        assert daemon.stop() == 0
    assert "cannot start" not in daemon.log()


def test_a_second_sigterm_does_not_wait_for_what_is_under_way(
    tmp_path: Path, new_daemon: Callable[..., Daemon]
) -> None:
    daemon = new_daemon(edit=lambda text: text.replace("drain_seconds = 10", "drain_seconds = 500"))
    faults = daemon.with_faults(tmp_path)
    daemon.start()
    with daemon.client(deadline=300) as client:
        client.create_key("keys/k", algorithm="ecdsa-p256")
        log = faults.log("C_Sign", "C_Sign hang")

        def sign() -> None:
            with contextlib.suppress(HsmsignError):
                client.sign("keys/k", digest=bytes(32))

        signing = threading.Thread(target=sign)
        signing.start()
        eventually(lambda: calls(log) == 1)
        daemon.kill("supervisor", signal.SIGTERM)
        daemon.logged('"event": "draining"')
        assert daemon.stop() == 0  # the second one
        signing.join()


def test_a_host_that_hangs_does_not_hold_up_the_end(new_daemon: Callable[..., Daemon]) -> None:
    def edit(text: str) -> str:
        text = text.replace("heartbeat_seconds = 5 ", "heartbeat_seconds = 1.5 ")
        return text.replace("drain_seconds = 10", "drain_seconds = 500")

    daemon = new_daemon(edit=edit).start()
    hung = daemon.pid("host")
    psutil.Process(hung).suspend()
    assert daemon.stop() == 0
    assert not psutil.pid_exists(hung)


def test_a_removed_backends_host_that_hangs_is_ended(new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon(edit=lambda text: text.replace("heartbeat_seconds = 5 ", "heartbeat_seconds = 1.5 "))
    block = add_backend(daemon, "second", 'pin.file = "{file}"')
    daemon.start()
    hung = eventually(lambda: daemon.endpoints["pids"]["hosts"].get("second"))
    daemon.logged("token 'second' is ready")
    psutil.Process(hung).suspend()
    daemon.configure(lambda text: text.replace(block, ""))
    daemon.kill("supervisor", signal.SIGHUP)
    daemon.logged('"event": "reloaded"')
    assert not psutil.pid_exists(hung)
    assert list(daemon.endpoints["pids"]["hosts"]) == ["softhsm"]
    with daemon.client() as client, pytest.raises(BackendNotFoundError):
        client.create_key("keys/k", algorithm="ecdsa-p256", backend="second")


def test_a_pin_in_the_environment_reaches_the_host_that_needs_it_and_nobody_else(
    new_daemon: Callable[..., Daemon],
) -> None:
    daemon = new_daemon()
    block = add_backend(daemon, "second", 'pin.env = "SECOND_PIN"')
    daemon.environment["SECOND_PIN"] = (daemon.folder / "second" / "pin").read_text().strip()
    daemon.environment["CREDENTIALS_DIRECTORY"] = "/run/credentials"
    daemon.start()
    daemon.logged("token 'second' is ready")

    def withheld(pid: int) -> bool:
        return not {"SECOND_PIN", "CREDENTIALS_DIRECTORY"} & environment_of(pid).keys()

    hosts = daemon.endpoints["pids"]["hosts"]
    assert "SECOND_PIN" in environment_of(hosts["second"])
    assert withheld(hosts["softhsm"])
    assert withheld(daemon.pid("worker"))
    # a backend that is gone: its variable is in our own environment still
    worker = daemon.pid("worker")
    daemon.configure(lambda text: text.replace(block, ""))
    daemon.kill("supervisor", signal.SIGHUP)
    eventually(lambda: daemon.pid("worker") != worker)
    daemon.logged('"event": "reloaded"')
    killed = hosts["softhsm"]
    psutil.Process(killed).kill()
    eventually(lambda: daemon.endpoints["pids"]["hosts"]["softhsm"] != killed)
    assert withheld(daemon.endpoints["pids"]["hosts"]["softhsm"])
    assert withheld(daemon.pid("worker"))


def test_a_host_whose_configuration_changed_is_replaced_and_the_other_stays(new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon()
    block = add_backend(daemon, "second", 'pin.file = "{file}"\nsessions = 1')
    daemon.start()
    before = daemon.endpoints["pids"]["hosts"]
    daemon.configure(lambda text: text.replace(block, block.replace("sessions = 1", "sessions = 3")))
    daemon.kill("supervisor", signal.SIGHUP)
    eventually(lambda: daemon.endpoints["pids"]["hosts"].get("second") not in (None, before["second"]))
    assert daemon.endpoints["pids"]["hosts"]["softhsm"] == before["softhsm"]
    with daemon.client() as client:
        client.create_key("keys/k", algorithm="ecdsa-p256", backend="second")


def test_a_backend_that_keeps_its_name_may_become_another_kind(new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon()
    block = add_backend(daemon, "second", 'pin.file = "{file}"')
    conf = daemon.folder / "second" / "softhsm2.conf"
    daemon.environment["SOFTHSM2_CONF"] = str(conf)
    daemon.start()
    other = block.replace('kind = "softhsm"', 'kind = "pkcs11"')
    other = "\n".join(line for line in other.splitlines() if not line.startswith("token_dir")) + "\n"
    daemon.configure(lambda text: text.replace(block, other))
    daemon.kill("supervisor", signal.SIGHUP)
    daemon.logged('"event": "reloaded"')
    with daemon.client() as client:

        def second() -> tuple[str, str]:
            return next((b.kind, b.state) for b in client.backends() if b.name == "backends/second")

        eventually(lambda: second() == ("pkcs11", "ready"))


def test_a_pin_whose_try_ended_the_host_is_not_tried_again_before_a_reload(
    tmp_path: Path, new_daemon: Callable[..., Daemon]
) -> None:
    daemon = new_daemon()
    faults = daemon.with_faults(tmp_path)
    log = faults.log("C_Login", "C_Login crash")
    daemon.start()
    with daemon.client() as client:
        eventually(lambda: client.backends()[0].state == "pin-refused")
        assert calls(log) == 1
        faults.log("C_Login")
        daemon.kill("supervisor", signal.SIGHUP)
        eventually(lambda: client.backends()[0].state == "ready")
        assert calls(log) == 2
        # the PIN is known to be good now: a host that ends in its login is replaced as ever
        faults.log("C_Login", "C_Login crash")
        daemon.kill("host")
        eventually(lambda: calls(log) > 3)
        faults.set()
        eventually(lambda: client.backends()[0].state == "ready")
        client.create_key("keys/k", algorithm="ecdsa-p256")
        reload_and_wait(daemon)  # which says nothing of the PIN: it is the same one
        before = calls(faults.log("C_Login", "C_Login crash"))
        daemon.kill("host")
        eventually(lambda: calls(log) > before + 1)
        faults.set()
        eventually(lambda: client.backends()[0].state == "ready")
        # another PIN, of which nothing is known
        pin = daemon.folder / "softhsm" / "pin"
        pin.write_text(pin.read_text())
        before = calls(faults.log("C_Login", "C_Login crash"))
        daemon.kill("host")
        eventually(lambda: client.backends()[0].state == "pin-refused")
        assert calls(log) == before + 1


def reload_and_wait(daemon: Daemon) -> None:
    """SIGHUP, and its end."""
    reloads = daemon.log().count('"event": "reloaded"')
    daemon.kill("supervisor", signal.SIGHUP)
    eventually(lambda: daemon.log().count('"event": "reloaded"') > reloads)


def test_systemd_is_told_of_a_reload_and_that_the_daemon_lives(
    tmp_path: Path, new_daemon: Callable[..., Daemon]
) -> None:
    notify = NotifySocket(tmp_path)
    daemon = new_daemon()
    daemon.environment |= {"NOTIFY_SOCKET": str(notify.path), "WATCHDOG_USEC": "2000000"}
    daemon.start()
    notify.wait_for("READY=1")
    notify.wait_for("WATCHDOG=1")
    daemon.kill("supervisor", signal.SIGHUP)
    notify.wait_for("RELOADING=1")
    notify.wait_for("READY=1")

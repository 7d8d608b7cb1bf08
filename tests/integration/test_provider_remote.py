"""The C client of the OpenSSL provider (native/provider/remote) against a real daemon."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from tests.support.daemon import Daemon
from tests.support.softhsm import ROOT

SCHEME = "1"  # ECDSA_P256_SHA256
NOBODY = 65534
DRIVERS = ROOT / "native" / "build"


@pytest.fixture(scope="module", autouse=True)
def drivers() -> None:
    """Compile the driver, plain and with AddressSanitizer."""
    command = ["make", "-s", "-C", str(ROOT / "native"), "remote-plain", "remote-asan", f"PYTHON={sys.executable}"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)


@pytest.fixture(scope="module")
def home() -> Iterator[Daemon]:
    """A daemon with one key."""
    daemon = Daemon().start()
    with daemon.client() as client:
        client.create_key("keys/k", algorithm="ecdsa-p256")
    yield daemon
    daemon.remove()


def tls(daemon: Daemon) -> tuple[str, ...]:
    return (str(daemon.tls.ca), str(daemon.tls.certificate), str(daemon.tls.key))


def target(daemon: Daemon, kind: str) -> str:
    return f"unix://{daemon.endpoints['unix']}" if kind == "unix" else f"dns:///{daemon.endpoints['tcp']}"


def launch(
    where: str,
    *files: str,
    key: str = "keys/k",
    deadline_ms: int = 30_000,
    threads: int = 1,
    rounds: int = 1,
    how: str = "plain",
    build: str = "asan",
    user: int | None = None,
) -> subprocess.Popen[str]:
    words = [where, str(deadline_ms), key, SCHEME, str(threads), str(rounds), how, *files]
    driver = DRIVERS / build / "remote" / "driver"
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=1"}
    return subprocess.Popen(
        [driver, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, user=user
    )


def ended(process: subprocess.Popen[str]) -> list[list[str]]:
    out, err = process.communicate(timeout=120)
    assert process.returncode in (0, 1), err
    assert err == ""  # what a sanitizer would say
    return [line.split(" ", 4) for line in out.splitlines()]


def check(daemon: Daemon, lines: list[list[str]], count: int) -> None:
    """All were signed, each over its own digest."""
    with daemon.client() as client:
        public = client.public_key("keys/k")
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert [line for line in lines if line[0] != "ok"] == []
    assert len(lines) == count
    for _, thread, round_, signature in lines:
        digest = bytes([int(thread) * 16 + int(round_)]) * 32
        public.verify(bytes.fromhex(signature), digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))


def refused(process: subprocess.Popen[str]) -> tuple[int, str]:
    [[word, _, _, status, words]] = ended(process)
    assert word == "failed"
    return int(status), words


@pytest.mark.parametrize("kind", ["unix", "tls"])
def test_many_threads_share_a_few_connections(home: Daemon, kind: str) -> None:
    files = tls(home) if kind == "tls" else ()
    check(home, ended(launch(target(home, kind), *files, threads=24, rounds=8)), 24 * 8)


@pytest.mark.parametrize("kind", ["unix", "tls"])
def test_parent_and_child_go_on_after_a_fork_in_the_middle_of_a_signature(home: Daemon, kind: str) -> None:
    # not the sanitized build: AddressSanitizer's own allocator may be locked for good in a child of threads
    files = tls(home) if kind == "tls" else ()
    lines = ended(launch(target(home, kind), *files, threads=2, rounds=8, how="fork", build="plain"))
    check(home, lines, 1 + 8 + 2 * 16)


def test_an_application_may_close_all_descriptors(home: Daemon) -> None:
    check(home, ended(launch(target(home, "tls"), *tls(home), rounds=3, how="close")), 4)


def test_the_server_name_is_checked_in_the_daemons_certificate(home: Daemon) -> None:
    check(home, ended(launch(target(home, "tls"), *tls(home), "localhost")), 1)
    status, words = refused(launch(target(home, "tls"), *tls(home), "other.example"))
    assert status == 102
    assert "hostname mismatch" in words


def test_a_daemon_of_another_ca_gets_nothing(home: Daemon) -> None:
    _, certificate, key = tls(home)
    status, words = refused(launch(target(home, "tls"), certificate, certificate, key))
    assert status == 102
    assert "is not accepted" in words


def test_a_key_that_is_no_private_key_is_refused_in_words(home: Daemon, tmp_path: Path) -> None:
    reference = tmp_path / "reference.pem"
    reference.write_text("-----BEGIN HSMSIGN KEY-----\nAAAA\n-----END HSMSIGN KEY-----\n")
    ca, certificate, _ = tls(home)
    status, words = refused(launch(target(home, "tls"), ca, certificate, str(reference)))
    assert status == 102
    assert "not a reference to one in a device" in words


def test_a_client_certificate_of_strangers_is_pointed_at(home: Daemon, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=stranger -days 1"
    made = [*command.split(), "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True, timeout=60)
    files = (str(home.tls.ca), str(certificate), str(key))
    status, words = refused(launch(target(home, "tls"), *files, deadline_ms=500))
    assert status == 102
    assert "is this client's certificate in date" in words


def test_an_unknown_key_is_named_in_the_daemons_words(home: Daemon) -> None:
    status, words = refused(launch(target(home, "unix"), key="keys/none"))
    assert status == 3
    assert "'keys/none' does not exist" in words


@contextlib.contextmanager
def socket_of_mode(daemon: Daemon, mode: int) -> Iterator[str]:
    """The Unix socket with another mode, in folders that everybody may enter."""
    path = Path(daemon.endpoints["unix"])
    before = {each: each.stat().st_mode & 0o7777 for each in (path, path.parent, daemon.folder)}
    path.chmod(mode)
    path.parent.chmod(0o755)
    daemon.folder.chmod(0o755)
    yield f"unix://{path}"
    for each, old in before.items():
        each.chmod(old)


def test_a_socket_of_others_is_refused_at_once(home: Daemon) -> None:
    with socket_of_mode(home, 0o600) as where:
        status, words = refused(launch(where, user=NOBODY, deadline_ms=60_000))
    assert status == 102
    assert "may not connect" in words


def test_a_caller_without_rights_is_told_so_in_the_daemons_words(home: Daemon) -> None:
    with socket_of_mode(home, 0o666) as where:
        status, words = refused(launch(where, user=NOBODY))
    assert status == 3
    assert f"unix:{NOBODY} may not sign-digest keys/k" in words


def test_a_daemon_that_is_away_is_an_error_in_words(tmp_path: Path) -> None:
    status, words = refused(launch(f"unix://{tmp_path}/none.sock", deadline_ms=300))
    assert status == 102
    assert "cannot reach the daemon" in words


@pytest.mark.parametrize("kind", ["unix", "tls"])
def test_no_signature_fails_while_the_daemon_restarts(home: Daemon, kind: str) -> None:
    where, files = target(home, kind), tls(home) if kind == "tls" else ()
    home.configure(lambda text: text.replace('"127.0.0.1:0"', f'"{home.endpoints["tcp"]}"'))
    process = launch(where, *files, threads=8, rounds=400)
    assert process.stdout is not None
    assert process.stderr is not None
    first = process.stdout.readline()  # it is under way
    home.stop()
    assert process.poll() is None
    home.start()
    lines = [line.split() for line in (first, *process.stdout)]
    assert process.wait(60) == 0, process.stderr.read()
    check(home, lines, 8 * 400)

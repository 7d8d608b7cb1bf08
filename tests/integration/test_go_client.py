"""The Go client: its own tests, against a real daemon."""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from hsmsign.model.purpose import Purpose, PurposeKind
from tests.support.daemon import Daemon, eventually

MODULE = Path(__file__).parents[2] / "clients" / "go"
GO = shutil.which("go")
ALGORITHMS = ("ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-2048", "rsa-3072", "rsa-4096", "ed25519")
DENIED = '\n[[deny]]\nprincipals = ["*"]\nactions = ["sign", "sign-digest"]\nkeys = ["go-forbidden"]\n'
RESTARTED = "TestADaemonThatIsRestartedInMidLoadIsFoundAgain"

pytestmark = pytest.mark.skipif(GO is None, reason="Go is not on this machine: the Go client was not tested")


def with_metrics(text: str) -> str:
    return text.replace('[metrics]\nlisten = ""', '[metrics]\nlisten = "127.0.0.1:0"')


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """With the keys that the Go tests want."""
    running = Daemon(edit=with_metrics)
    try:
        policy = running.folder / "policy.toml"
        policy.write_text(policy.read_text() + DENIED)
        running.start()
        with running.unix_client() as client:
            for algorithm in ALGORITHMS:
                client.create_key(f"go-{algorithm}", algorithm)
            client.create_key("go-forbidden", "ecdsa-p256")
            for purpose in ("tls-server", "tls-client", "csr"):
                client.create_key(f"go-{purpose}", "ecdsa-p256", purpose=purpose)
            client.create_key("go-ca", "ecdsa-p256", purpose=Purpose(PurposeKind.CA, "CN=Go CA"))
        yield running
    finally:
        running.remove()


def environment(daemon: Daemon, folder: Path) -> dict[str, str]:
    """Where the daemon is, for the Go tests."""
    file, tls = folder / "client.toml", daemon.tls
    tcp = f"dns:///{daemon.endpoints['tcp']}"
    file.write_text(f'endpoint = "{tcp}"\nca = "{tls.ca}"\ncertificate = "{tls.certificate}"\nkey = "{tls.key}"\n')
    return {
        **os.environ,
        "HSMSIGN_TEST_UNIX": f"unix://{daemon.endpoints['unix']}",
        "HSMSIGN_TEST_TCP": tcp,
        "HSMSIGN_TEST_CLIENT": str(file),
        "HSMSIGN_TEST_TLS": str(daemon.folder / "tls"),
        "HSMSIGN_TEST_METRICS": f"http://{daemon.endpoints['metrics']}/metrics",
    }


def go(*words: str, environment: Mapping[str, str] | None = None) -> str:
    """Run Go to its end; what it said. It must not fail."""
    assert GO is not None
    command = [GO, *words]
    done = subprocess.run(
        command,
        cwd=MODULE,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_tests_pass_against_a_daemon(daemon: Daemon, tmp_path: Path) -> None:
    said = go("test", "-count=1", "-v", "-skip", RESTARTED, ".", environment=environment(daemon, tmp_path))
    assert "SKIP" not in said, said


def test_a_daemon_that_is_restarted_in_mid_load_is_found_again(daemon: Daemon, tmp_path: Path) -> None:
    assert GO is not None
    command = [GO, "test", "-count=1", "-v", "-run", RESTARTED, "."]
    variables = {**environment(daemon, tmp_path), "HSMSIGN_TEST_RESTART": str(tmp_path)}
    with subprocess.Popen(command, cwd=MODULE, env=variables, stdout=subprocess.PIPE, text=True) as process:
        try:
            eventually(lambda: (tmp_path / "loaded").exists() or process.poll() is not None)
            daemon.stop()
            daemon.start()
        finally:
            (tmp_path / "restarted").touch()
        said = process.communicate(timeout=120)[0]
    assert process.returncode == 0, said
    assert f"--- PASS: {RESTARTED}" in said, said


def test_coalescing_has_no_data_race() -> None:
    go("test", "-race", "-count=1", ".")


def test_it_is_in_go_s_form_and_vet_finds_nothing() -> None:
    gofmt = Path(go("env", "GOROOT").strip()) / "bin" / "gofmt"
    assert subprocess.run([gofmt, "-l", MODULE], capture_output=True, text=True, check=True).stdout == ""
    go("vet", "./...")


def test_its_stubs_are_those_of_the_protos(tmp_path: Path) -> None:
    subprocess.run([MODULE / "generate", tmp_path], check=True, timeout=600)
    kept = MODULE / "internal" / "hsmsignv1"
    names = sorted(path.name for path in kept.iterdir())
    assert names == sorted(path.name for path in tmp_path.iterdir())
    assert filecmp.cmpfiles(kept, tmp_path, names, shallow=False)[0] == names

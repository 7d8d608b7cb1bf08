"""Many handshakes, a short form of `make soak-tls`: hsmsign.so in a program with threads and children, under
AddressSanitizer, and the provider within Python."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from tests.soak import handshakes
from tests.support.authority import Authority
from tests.support.daemon import Daemon
from tests.support.softhsm import ROOT


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    daemon = Daemon().start()
    yield daemon
    daemon.remove()


@pytest.fixture(scope="module")
def references(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return handshakes.references(daemon, tmp_path_factory.mktemp("references"))


@pytest.mark.parametrize("leave_keys", [False, True], ids=["closed", "left-open"])
def test_threads_and_children_shake_hands_and_end_cleanly(references: list[Path], leave_keys: bool) -> None:
    done = handshakes.soak(references, 160, under="asan", threads=2, leave_keys=leave_keys)
    assert (done.stdout, done.stderr) == ("160 handshakes, 0 failed\n", "")
    assert done.returncode == 0


def test_python_shakes_hands_in_threads_and_children_without_growing(
    daemon: Daemon, references: list[Path], tmp_path: Path
) -> None:
    authority = Authority()
    with daemon.client() as client:
        key = client.key(next(iter(handshakes.KEYS)))
        (tmp_path / "chain.pem").write_bytes(authority.certify(key, x509.DNSName("localhost")))
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    files = [str(path) for path in (tmp_path / "chain.pem", references[0], tmp_path / "ca.pem")]
    command = [sys.executable, "-m", "tests.soak.inprocess", *files, "1000", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said | {"grown": 0} == {"failures": 0, "bad": 0, "grown": 0, "left": 0}, done.stderr
    assert said["grown"] < 3 << 20  # a leak of an SSL object each would be far more

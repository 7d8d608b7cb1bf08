"""A whole daemon whose keys are in a TPM: the same calls, the same words."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from hsmsign.model.errors import CapabilityMissingError, DeviceBusyError, VersionStateError
from tests.support.daemon import Daemon, eventually, hsmsign
from tests.support.swtpm import Swtpm
from tests.support.tpm_proxy import SIGN, Fault, Proxy


@pytest.fixture(scope="module")
def tpm() -> Iterator[Daemon]:
    running = Daemon(options=("--backend", "tpm2", "--simulator")).start()
    with running.client() as client:
        eventually(lambda: client.backends()[0].state == "ready", running.log())
    yield running
    running.remove()


def test_a_tpm_key_is_used_as_any_other(tpm: Daemon, tmp_path: Path) -> None:
    with tpm.client() as client:
        made = client.create_key("keys/ca", algorithm="ecdsa-p256")
        assert made.primary is not None
        assert made.primary.facts.never_extractable is True
        name = x509.Name.from_rfc4514_string("CN=from a TPM")
        csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(client.key("keys/ca"), hashes.SHA256())
        assert csr.is_signature_valid
        digests = [bytes([number]) * 32 for number in range(50)]
        assert client.sign_batch("keys/ca", digests).errors == {}
        client.rotate_key("keys/ca")
        client.destroy_key("keys/ca/versions/1")
        client.sign("keys/ca", digest=bytes(32))
        with pytest.raises(VersionStateError):
            client.sign("keys/ca/versions/1", digest=bytes(32))
        with pytest.raises(CapabilityMissingError, match="ed25519"):
            client.create_key("keys/no", algorithm="ed25519")


def test_the_command_line_and_openssl_agree_on_a_tpm_keys_signature(tpm: Daemon, tmp_path: Path) -> None:
    client = ("--client", str(tpm.folder / "client.toml"))
    assert hsmsign("key", "create", "web", "--algorithm", "rsa-2048", "--pcr", "sha256:16", *client).returncode == 0
    assert "sha256:16" in hsmsign("key", "show", "web", *client).stdout
    (tmp_path / "data").write_text("signed in a TPM")
    scheme = ("--scheme", "rsa-pkcs1-sha256")
    signed = hsmsign("sign", "web", tmp_path / "data", "--out", tmp_path / "sig", *scheme, *client)
    assert signed.returncode == 0, signed.stderr
    public = hsmsign("key", "public", "web", *client)
    (tmp_path / "pem").write_text(public.stdout)
    command = ["openssl", "dgst", "-sha256", "-verify", "pem", "-signature", "sig", "data"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout == "Verified OK\n"


def test_keys_survive_a_restart_of_the_daemon_and_of_its_tpm(tpm: Daemon) -> None:
    with tpm.client() as client:
        client.create_key("keys/lasting", algorithm="ecdsa-p384")
        before = client.public_key("keys/lasting")
    assert tpm.stop() == 0
    tpm.start()
    with tpm.client() as client:
        signature = client.sign("keys/lasting", message=b"still here").value
        assert isinstance(before, ec.EllipticCurvePublicKey)
        before.verify(signature, b"still here", ec.ECDSA(hashes.SHA384()))


def test_init_and_doctor_say_what_the_tpm_is(tpm: Daemon) -> None:
    again = hsmsign("init", tpm.folder, "--backend", "tpm2", "--simulator")
    assert "kept  tpm/: a simulated TPM" in again.stdout
    assert "made" not in again.stdout
    said = hsmsign("doctor", "--config", tpm.config).stdout
    assert "the TPM is simulated" in said
    for path in ("state", "ca", "key-auth"):
        assert (tpm.folder / "tpm" / path).stat().st_mode & 0o077 == 0
    assert b"BEGIN CERTIFICATE" in (tpm.folder / "tpm" / "ek-ca.pem").read_bytes()


def test_init_wants_to_know_which_tpm() -> None:
    folder = tempfile.mkdtemp()
    try:
        done = hsmsign("init", folder, "--backend", "tpm2")
        assert done.returncode == 78
        assert "--tcti device:/dev/tpmrm0" in done.stderr
        assert list(Path(folder).iterdir()) == []
    finally:
        shutil.rmtree(folder)


def test_a_tpm_killed_under_load_costs_time_and_no_signature(tpm: Daemon) -> None:
    with tpm.client() as client:
        client.create_key("keys/under-load", algorithm="ecdsa-p256")
        public = client.public_key("keys/under-load")
        assert isinstance(public, ec.EllipticCurvePublicKey)
        answers = client.sign_stream("keys/under-load", (b"%032d" % number for number in range(400)), group_size=8)
        signatures = []
        for number, signature in enumerate(answers):
            if number in (50, 200):
                _simulator(tpm).kill()
            signatures.append(signature)
    assert len(signatures) == 400
    for number, signature in enumerate(signatures):
        assert isinstance(signature, bytes), signature
        public.verify(signature, b"%032d" % number, ec.ECDSA(utils.Prehashed(hashes.SHA256())))


def _simulator(daemon: Daemon) -> psutil.Process:
    """The swtpm that the device host started."""

    def find() -> psutil.Process | None:
        for child in psutil.Process(daemon.pid("host")).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.name() == "swtpm":
                    return child
        return None

    return eventually(find)


@pytest.fixture
def two_devices(tmp_path: Path) -> Iterator[tuple[Daemon, Proxy]]:
    """A token, and a TPM that does what a proxy in front of it says."""
    chip = Swtpm(tmp_path / "tpm")
    proxy = Proxy(chip.port)
    backend = f'\n[backends.tpm]\nkind = "tpm2"\ntcti = "{proxy.tcti}"\nkey_auth = {{ file = "key-auth" }}\n'
    backend += 'authorization = "password"\n'
    softhsm = 'kind = "softhsm"\n'
    daemon = Daemon(edit=lambda text: text.replace(softhsm, softhsm + "default = true\n") + backend)
    (daemon.folder / "key-auth").write_text("a secret of this test alone, long enough")
    (daemon.folder / "key-auth").chmod(0o600)
    daemon.start()
    with daemon.client() as client:
        eventually(lambda: all(backend.state == "ready" for backend in client.backends()), daemon.log())
    yield daemon, proxy
    for fault in proxy.faults:
        if fault.hold is not None:
            fault.hold.set()
    daemon.remove()
    proxy.stop()
    chip.stop()


def test_a_slow_tpm_does_not_slow_the_tokens_keys(two_devices: tuple[Daemon, Proxy]) -> None:
    daemon, proxy = two_devices
    with daemon.client() as client, ThreadPoolExecutor(1) as pool:
        client.create_key("keys/slow", algorithm="ecdsa-p256", backend="tpm")
        client.create_key("keys/quick", algorithm="ecdsa-p256")
        go = threading.Event()
        proxy.faults = [Fault(SIGN, hold=go, times=1)]
        waiting = pool.submit(client.sign_batch, "keys/slow", [bytes(32)] * 100)
        eventually(lambda: SIGN in proxy.seen)
        assert client.sign_batch("keys/quick", [bytes(32)] * 2000).errors == {}
        client.create_key("keys/quick-too", algorithm="ecdsa-p256")
        assert not waiting.done()
        go.set()
        assert waiting.result().errors == {}


def test_what_a_tpm_cannot_serve_in_time_is_refused_at_once_with_when_to_come_back(
    two_devices: tuple[Daemon, Proxy],
) -> None:
    daemon, proxy = two_devices
    with daemon.client() as client, ThreadPoolExecutor(1) as pool:
        client.create_key("keys/slow", algorithm="ecdsa-p256", backend="tpm")
        assert client.sign_batch("keys/slow", [bytes(32)] * 100).errors == {}  # it learns how long a signature takes
        go = threading.Event()
        proxy.faults = [Fault(SIGN, hold=go, times=1)]
        before = len(proxy.seen)
        waiting = pool.submit(client.sign_batch, "keys/slow", [bytes(32)] * 2000)
        eventually(lambda: SIGN in proxy.seen[before:])
        refused = client.sign_batch("keys/slow", [bytes(32)] * 2000, deadline=0.5).errors.values()
        go.set()
        assert len(refused) == 2000
        assert all(isinstance(error, DeviceBusyError) and error.retry_after for error in refused), next(iter(refused))
        assert waiting.result().errors == {}


def test_a_single_signature_does_not_wait_for_the_end_of_a_long_batch(two_devices: tuple[Daemon, Proxy]) -> None:
    daemon, proxy = two_devices
    with daemon.client() as client, ThreadPoolExecutor(1) as pool:
        client.create_key("keys/slow", algorithm="ecdsa-p256", backend="tpm")
        assert client.sign_batch("keys/slow", [bytes(32)] * 100).errors == {}
        before = len(proxy.seen)
        waiting = pool.submit(client.sign_batch, "keys/slow", [bytes(32)] * 4000)
        eventually(lambda: SIGN in proxy.seen[before:])
        assert client.sign("keys/slow", digest=bytes(32), deadline=1).value
        assert not waiting.done()
        assert waiting.result().errors == {}

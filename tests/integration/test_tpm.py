"""A whole daemon whose keys are in a TPM: the same calls, the same words."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from hsmsign.model.errors import CapabilityMissingError, VersionStateError
from tests.support.daemon import Daemon, eventually, hsmsign


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

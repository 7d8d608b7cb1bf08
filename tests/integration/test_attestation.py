"""Proof of where a key lives: made by a daemon on a TPM, or asserted for a token, checked by a stranger offline."""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from tpm2_pytss import ESAPI, ESYS_TR, TPM2B_NV_PUBLIC, TPMA_NV, TPMS_NV_PUBLIC

from hsmsign.attestation import AttestationError, Attested, Binding, Challenge, Evidence, challenge, verify
from hsmsign.client import Client
from hsmsign.daemon import simulated_tpm
from hsmsign.model.errors import CapabilityMissingError, InvalidArgumentError, VersionStateError
from tests.support.daemon import Daemon, eventually, hsmsign

NONCE = bytes(range(16))


@dataclass(frozen=True)
class Tpm:
    """A daemon whose keys are in a TPM."""

    daemon: Daemon
    client: Client
    roots: list[x509.Certificate]

    @property
    def ca_file(self) -> Path:
        return self.daemon.folder / "tpm" / "ek-ca.pem"


@pytest.fixture(scope="module")
def tpm() -> Iterator[Tpm]:
    running = Daemon(options=("--backend", "tpm2", "--simulator")).start()
    with running.client() as client:
        eventually(lambda: client.backends()[0].state == "ready", running.log())
        client.create_key("keys/web", algorithm="ecdsa-p256")
        made = Tpm(running, client, [])
        made.roots.extend(x509.load_pem_x509_certificates(made.ca_file.read_bytes()))
        yield made  # the client knows the port of the daemon as it is now: a test that restarts it comes last
    running.remove()


@pytest.mark.parametrize("algorithm", ["ecdsa-p384", "rsa-2048"])
def test_a_tpm_proves_that_a_key_was_made_in_it(tpm: Tpm, algorithm: str) -> None:
    name = f"keys/{algorithm}"
    tpm.client.create_key(name, algorithm=algorithm)
    first = tpm.client.attest_key(name, NONCE)
    question, secret = challenge(first, ek_roots=tpm.roots)
    nonce = secrets.token_bytes(32)
    said = verify(
        tpm.client.attest_key(name, nonce, challenge=question), ek_roots=tpm.roots, nonce=nonce, secret=secret
    )
    assert said.proved
    assert said.binding is Binding.CHALLENGED
    assert said.evidence is Evidence.TPM2_CERTIFY
    assert said.public_key == tpm.client.public_key_info(name).der
    assert said.name == f"{name}/versions/1"
    assert said.ek_certificate is not None
    assert said.device["manufacturer"]
    known = tpm.client.attest_key("keys/web", nonce)
    assert verify(known, known_attester=said.ak_name, nonce=nonce).binding is Binding.KNOWN


def test_the_example_of_the_documentation_works(tpm: Tpm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "attestation.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    tpm.client.create_key("keys/device-1", algorithm="ecdsa-p256")
    (tmp_path / "tpm-makers.pem").write_bytes(tpm.ca_file.read_bytes())
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"client": tpm.client}
    exec(example, names)
    assert isinstance(names["said"], Attested)


def test_without_a_challenge_it_is_said_that_the_attester_is_only_claimed(tpm: Tpm) -> None:
    said = verify(tpm.client.attest_key("keys/web", NONCE), ek_roots=tpm.roots, nonce=NONCE)
    assert said.binding is Binding.CLAIMED
    assert not said.proved


def test_a_key_bound_to_registers_says_so_by_its_policy(tpm: Tpm) -> None:
    tpm.client.create_key("keys/bound", algorithm="ecdsa-p256", pcrs="sha256:16")
    said = verify(tpm.client.attest_key("keys/bound", NONCE), ek_roots=tpm.roots)
    assert said.facts["pcrs"] == "sha256:16"
    assert len(said.policy) == 32


def test_another_nonce_another_ca_another_secret_another_attester_are_refused(tpm: Tpm, tmp_path: Path) -> None:
    document = tpm.client.attest_key("keys/web", NONCE)
    simulated_tpm.make(tmp_path)
    others = x509.load_pem_x509_certificates((tmp_path / "ek-ca.pem").read_bytes())
    with pytest.raises(AttestationError, match="another nonce"):
        verify(document, ek_roots=tpm.roots, nonce=bytes(16))
    with pytest.raises(AttestationError, match="no CA that you trust"):
        verify(document, ek_roots=others, nonce=NONCE)
    with pytest.raises(AttestationError, match="no CA"):
        verify(document, nonce=NONCE)
    with pytest.raises(AttestationError, match="did not open the challenge"):
        verify(document, ek_roots=tpm.roots, nonce=NONCE, secret=bytes(32))
    with pytest.raises(AttestationError, match="not made with the attestation key"):
        verify(document, ek_roots=tpm.roots, nonce=NONCE, known_attester=bytes(34))


def test_the_secret_of_one_challenge_does_not_stand_for_another(tpm: Tpm) -> None:
    document = tpm.client.attest_key("keys/web", NONCE)
    question, _ = challenge(document, ek_roots=tpm.roots)
    _, other = challenge(document, ek_roots=tpm.roots)
    answer = tpm.client.attest_key("keys/web", NONCE, challenge=question)
    with pytest.raises(AttestationError, match="did not open the challenge"):
        verify(answer, ek_roots=tpm.roots, nonce=NONCE, secret=other)


def test_any_bit_changed_is_noticed(tpm: Tpm) -> None:
    document = tpm.client.attest_key("keys/web", NONCE)
    verify(document, ek_roots=tpm.roots, nonce=NONCE)
    passed = []
    for place in range(len(document)):
        for bit in range(8):
            changed = bytearray(document)
            changed[place] ^= 1 << bit
            try:
                verify(bytes(changed), ek_roots=tpm.roots, nonce=NONCE)
            except AttestationError:
                continue
            passed.append((place, bit))
    assert passed == []


def test_what_cannot_be_attested_is_refused(tpm: Tpm) -> None:
    with tpm.daemon.client() as client:
        with pytest.raises(InvalidArgumentError, match="8 to 64 bytes"):
            client.attest_key("keys/web", b"short")
        document = client.attest_key("keys/web", NONCE)
        question, _ = challenge(document, ek_roots=tpm.roots)
        changed = type(question)(question.credential[:-1] + b"\0", question.encrypted_secret)
        with pytest.raises(InvalidArgumentError, match="cannot open the challenge"):
            client.attest_key("keys/web", NONCE, challenge=changed)
        garbage = type(question)(b"garbage", b"")
        with pytest.raises(InvalidArgumentError, match="cannot open the challenge"):
            client.attest_key("keys/web", NONCE, challenge=garbage)
        client.create_key("keys/gone", algorithm="ecdsa-p256")
        client.rotate_key("keys/gone")
        client.destroy_key("keys/gone/versions/1")
        with pytest.raises(VersionStateError):
            client.attest_key("keys/gone/versions/1", NONCE)


def test_the_command_line_takes_a_stranger_from_a_claim_to_a_proof(tpm: Tpm, tmp_path: Path) -> None:
    use, ca = ("--client", str(tpm.daemon.folder / "client.toml")), ("--ek-ca", str(tpm.ca_file))
    first, second, question, secret = (tmp_path / name for name in ("first", "second", "challenge", "secret"))
    assert hsmsign("key", "attest", "web", "--nonce", "00" * 16, "--out", first, *use).returncode == 0
    claimed = hsmsign("attest", "verify", first, *ca, "--nonce", "00" * 16)
    assert claimed.returncode == 0
    assert "NOT PROVED" in claimed.stderr
    assert hsmsign("attest", "verify", first, *ca, "--require-proof").returncode == 1
    assert hsmsign("attest", "verify", first, *ca, "--nonce", "11" * 16).returncode == 1
    made = hsmsign("attest", "challenge", first, *ca, "--out", question, "--secret", secret)
    assert made.returncode == 0, made.stderr
    assert secret.stat().st_mode & 0o077 == 0
    assert secret.read_text().strip() not in question.read_text() + made.stdout
    answered = ("--nonce", "22" * 16, "--challenge", question, "--out", second)
    assert hsmsign("key", "attest", "web", *answered, *use).returncode == 0
    proof = ("--nonce", "22" * 16, "--secret", secret, "--require-proof")
    proved = hsmsign("attest", "verify", second, *ca, *proof, "--json")
    assert proved.returncode == 0, proved.stderr
    said = json.loads(proved.stdout)
    assert said["proved"] is True
    assert base64.b64decode(said["public_key"]) == tpm.client.public_key_info("web").der
    assert hsmsign("attest", "verify", tmp_path / "nothing", *ca).returncode == 64
    assert hsmsign("attest", "verify", secret, *ca).returncode == 1
    assert hsmsign("attest", "verify", second, "--ek-ca", secret).returncode == 64


def test_issuers_that_the_tpm_holds_itself_are_used(tpm: Tpm, tmp_path: Path) -> None:
    issuer, root = tpm.roots
    with pytest.raises(AttestationError, match="no CA that you trust"):
        verify(tpm.client.attest_key("keys/web", NONCE), ek_roots=[root])
    assert tpm.daemon.stop() == 0
    _store_in_nv(tpm.daemon.folder / "tpm" / "state", issuer)
    tpm.daemon.start()
    with tpm.daemon.client() as client:
        verify(client.attest_key("keys/web", NONCE), ek_roots=[root], nonce=NONCE)


def _store_in_nv(state: Path, certificate: x509.Certificate) -> None:
    """Where a TPM's maker puts the certificates of the issuers (TCG EK Credential Profile, section 2.2.1.4)."""
    from cryptography.hazmat.primitives.serialization import Encoding

    from tests.support.swtpm import Swtpm

    der = certificate.public_bytes(Encoding.DER)
    chip = Swtpm(state.parent, state=state)
    try:
        with ESAPI(chip.tcti) as esys:
            attributes = TPMA_NV.OWNERWRITE | TPMA_NV.OWNERREAD | TPMA_NV.AUTHREAD | TPMA_NV.AUTHWRITE | TPMA_NV.NO_DA
            public = TPM2B_NV_PUBLIC(
                TPMS_NV_PUBLIC(nvIndex=0x01C00100, nameAlg=0x000B, attributes=attributes, dataSize=len(der))
            )
            index = esys.nv_define_space(b"", public)
            for start in range(0, len(der), 512):
                esys.nv_write(index, der[start : start + 512], start, auth_handle=ESYS_TR.OWNER)
    finally:
        chip.stop()


def test_a_tokens_key_is_marked_as_asserted(shared_daemon: Daemon, tmp_path: Path) -> None:
    use = ("--client", str(shared_daemon.folder / "client.toml"))
    with shared_daemon.client() as client:
        for algorithm in ("ecdsa-p521", "rsa-2048", "ed25519"):
            client.create_key(f"keys/asserted-{algorithm}", algorithm=algorithm)
            document = client.attest_key(f"keys/asserted-{algorithm}", NONCE)
            said = verify(document, nonce=NONCE)
            assert (said.evidence, said.binding, said.proved) == (Evidence.ASSERTED, Binding.NONE, False)
            assert "SoftHSM" in said.device["manufacturer"] + said.device["library"] + said.device["model"]
            assert said.facts["never_extractable"] is True
            with pytest.raises(AttestationError, match="only asserts"):
                verify(document, nonce=NONCE, secret=bytes(32))
        (tmp_path / "said").write_bytes(document)
        with pytest.raises(CapabilityMissingError):
            client.attest_key("keys/asserted-ed25519", NONCE, challenge=Challenge(b"credential", b"secret"))
    assert hsmsign("attest", "verify", tmp_path / "said").returncode == 1
    allowed = hsmsign("attest", "verify", tmp_path / "said", "--allow-asserted")
    assert allowed.returncode == 0
    assert "not proved by the device" in allowed.stdout
    assert hsmsign("key", "attest", "asserted-ed25519", "--nonce", "xyz", *use).returncode == 64
    changed = document.replace(b'"never_extractable":true', b'"never_extractable":null')
    with pytest.raises(AttestationError, match="did not sign"):
        verify(changed, nonce=NONCE)

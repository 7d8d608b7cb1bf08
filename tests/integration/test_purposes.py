"""A CA whose key signs for that CA and nothing else, and what a stolen credential can do with it: nothing more."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import subprocess
from pathlib import Path

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from hsmsign.model.algorithms import InputKind
from hsmsign.model.errors import InvalidArgumentError, PermissionDeniedError, PurposeError
from hsmsign.model.purpose import Purpose, PurposeKind
from tests.support.daemon import Daemon, hsmsign

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
ROOT = x509.Name.from_rfc4514_string("CN=Root,O=Example")


def issue(key, subject: str, *, ca: bool = False, issuer: x509.Name = ROOT) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(x509.Name.from_rfc4514_string(subject))
        .public_key(ec.generate_private_key(ec.SECP256R1()).public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW)
        .not_valid_after(NOW + dt.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca, 0 if ca else None), critical=True)
        .sign(key, hashes.SHA256())
    )


def test_a_ca_key_issues_and_does_nothing_else(shared_daemon: Daemon) -> None:
    with shared_daemon.client() as client:
        purpose = Purpose(PurposeKind.CA, "CN=Root,O=Example", max_validity_days=30)
        assert client.create_key("ca", "ecdsa-p256", purpose=purpose).purpose == purpose
        assert client.get_key("ca").purpose == purpose
        key = client.key("ca")
        leaf = issue(key, "CN=leaf")
        key.public_key().verify(leaf.signature, leaf.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256()))
        with pytest.raises(PurposeError, match="CA:FALSE"):
            issue(key, "CN=sub", ca=True)
        with pytest.raises(PurposeError, match="own name"):
            issue(key, "CN=leaf", issuer=x509.Name.from_rfc4514_string("CN=Another"))
        with pytest.raises(PurposeError):
            key.sign(b"anything", ec.ECDSA(hashes.SHA256()))
        with pytest.raises(PermissionDeniedError, match="no bare digests"):
            client.sign("ca", digest=hashlib.sha256(leaf.tbs_certificate_bytes).digest())
        mixed = client.sign_batch("ca", [leaf.tbs_certificate_bytes, b"anything"], kind=InputKind.MESSAGE)
        assert list(mixed.errors) == [1]


def test_a_large_crl_is_sent_whole(shared_daemon: Daemon) -> None:
    with shared_daemon.client() as client:
        client.create_key("crl", "ecdsa-p256", purpose=Purpose(PurposeKind.CA, "CN=Root,O=Example"))
        builder = x509.CertificateRevocationListBuilder().issuer_name(ROOT).last_update(NOW).next_update(NOW)
        for serial in range(1, 4000):
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW).build()
            builder = builder.add_revoked_certificate(entry)
        key = client.key("crl")
        crl = builder.sign(key, hashes.SHA256())
        assert len(crl.tbs_certlist_bytes) > 64 << 10
        assert crl.is_signature_valid(key.public_key())


def test_tokens_of_one_issuer(shared_daemon: Daemon) -> None:
    with shared_daemon.client() as client:
        client.create_key("jwt", "ecdsa-p256", purpose=Purpose(PurposeKind.JWT, jwt_issuers=("https://id",)))
        key = client.key("jwt")
        token = jwt.encode({"iss": "https://id", "sub": "ci"}, key, "ES256")
        assert jwt.decode(token, key.public_key(), ["ES256"])["sub"] == "ci"
        with pytest.raises(PurposeError, match="https://id"):
            jwt.encode({"iss": "https://other"}, key, "ES256")


def test_the_command_line_makes_shows_and_changes_purposes(shared_daemon: Daemon, tmp_path: Path) -> None:
    at = {"HSMSIGN_CLIENT": str(shared_daemon.folder / "client.toml")}

    def run(*words: str, good: bool = True) -> subprocess.CompletedProcess[str]:
        done = hsmsign(*words, environment=at)
        assert not good or done.returncode == 0, done.stderr
        return done

    run("key", "create", "web", "-a", "ecdsa-p256", "--purpose", "csr")
    assert "for        csr" in run("key", "show", "web").stdout
    request = run("csr", "web", "--subject", "CN=web.example").stdout
    assert x509.load_pem_x509_csr(request.encode()).is_signature_valid
    run("key", "update", "web", "--purpose", "tls-server")
    assert json.loads(run("key", "show", "web", "--json").stdout)["purpose"]["kind"] == "tls-server"
    (tmp_path / "message").write_bytes(b"attack at dawn")
    refused = run("sign", "web", str(tmp_path / "message"), good=False)
    assert refused.returncode == 77
    assert "CertificateVerify of a TLS 1.3 server" in refused.stderr
    run("key", "create", "ca2", "-a", "ecdsa-p256", "--purpose", "ca", "--issuer", "CN=R", "--permit", "dns:a.example")
    assert "ca, as CN=R, no CAs below it, names in dns:a.example" in run("key", "show", "ca2").stdout
    for wrong in (["--issuer", "CN=R"], ["--purpose", "ca"], ["--purpose", "csr", "--max-days", "3"]):
        assert run("key", "create", "never", "-a", "ecdsa-p256", *wrong, good=False).returncode in (64, 65)


def test_nobody_makes_a_key_for_the_daemons_own_log(shared_daemon: Daemon) -> None:
    with shared_daemon.client() as client, pytest.raises(InvalidArgumentError, match="by the daemon alone"):
        client.create_key("log", "ecdsa-p256", purpose=PurposeKind.AUDIT)

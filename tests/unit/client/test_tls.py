from __future__ import annotations

import datetime as dt

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import hsmsign
from hsmsign.model import errors
from tests.support import fake_server


def issue(folder, name, issuer=None, host=None):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if host:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    certificate = builder.sign(issuer[1] if issuer else key, hashes.SHA256())
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}-key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, key


@pytest.fixture
def pki(tmp_path):
    authority = issue(tmp_path, "ca")
    issue(tmp_path, "server", authority, "signer.internal")
    issue(tmp_path, "client", authority)
    issue(tmp_path, "stranger")
    return tmp_path


@pytest.fixture
def port(pki):
    credentials = grpc.ssl_server_credentials(
        [((pki / "server-key.pem").read_bytes(), (pki / "server.pem").read_bytes())],
        (pki / "ca.pem").read_bytes(),
        require_client_auth=True,
    )
    server, _, port = fake_server.serve("localhost:0", credentials)
    yield port
    server.stop(0).wait()


def test_a_client_file_leads_to_a_daemon_over_mutual_tls(pki, port):
    (pki / "client.toml").write_text(
        f'endpoint = "dns:///localhost:{port}"\nca = "ca.pem"\ncertificate = "client.pem"\n'
        'key = "client-key.pem"\nserver_name = "signer.internal"\n'
    )
    with hsmsign.connect(client_file=pki / "client.toml") as client:
        assert client.health() is hsmsign.Health.SERVING


@pytest.mark.parametrize(
    ("ca", "certificate", "name", "word"),
    [
        ("stranger", "client", "signer.internal", "certificate was not accepted"),
        ("ca", "client", "other.internal", "certificate was not accepted"),
        ("ca", "stranger", "signer.internal", "client_ca"),
    ],
)
def test_tls_that_fails_says_what_to_look_at(pki, port, ca, certificate, name, word):
    files = hsmsign.TlsFiles(pki / f"{ca}.pem", pki / f"{certificate}.pem", pki / f"{certificate}-key.pem", name)
    with hsmsign.connect(f"dns:///localhost:{port}", tls=files) as client:
        with pytest.raises(errors.UnavailableError) as caught:
            client.get_key("web-1")
        assert word in caught.value.hint, str(caught.value)


def test_a_missing_file_is_named(pki):
    files = hsmsign.TlsFiles(pki / "no.pem", pki / "client.pem", pki / "client-key.pem")
    with pytest.raises(errors.ConfigurationError, match=r"no\.pem"):
        hsmsign.connect("dns:///localhost:1", tls=files)

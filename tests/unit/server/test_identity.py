"""Who calls: what a certificate or a Unix socket proves, and nobody without a proof."""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass, field

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hsmsign.keyring import Keyring
from hsmsign.model.errors import UnauthenticatedError
from hsmsign.server.app import build
from hsmsign.server.identity import Identifier
from hsmsign.signing import Limits, SigningPipeline
from hsmsign.store import Store
from hsmsign.v1 import backends_pb2, backends_pb2_grpc
from tests.support.fake_device import FakeDevice
from tests.support.statuses import refusal


@dataclass
class FakeContext:
    address: str
    auth: dict = field(default_factory=dict)

    def peer(self) -> str:
        return self.address

    def auth_context(self) -> dict:
        return self.auth


class Authority:
    """A CA for an afternoon."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._make("ca", self.key, [], ca=True)

    def issue(self, *names: x509.GeneralName) -> tuple[bytes, bytes]:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._make("leaf", key, list(names), ca=False)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return pem, certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def _make(self, name: str, key, names: list, *, ca: bool) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())


URI, DNS = x509.UniformResourceIdentifier, x509.DNSName


def with_certificate(pem: bytes) -> FakeContext:
    return FakeContext("ipv4:127.0.0.1:5", {"transport_security_type": [b"ssl"], "x509_pem_cert": [pem]})


def test_a_spiffe_id_comes_before_a_dns_name_and_a_dns_name_before_the_key() -> None:
    authority, identify = Authority(), Identifier(None)
    both = authority.issue(DNS("web.internal"), URI("https://x"), URI("spiffe://corp/web"))[1]
    assert identify(with_certificate(both)).name == "spiffe://corp/web"
    dns = authority.issue(URI("https://x"), DNS("Web.internal"), DNS("b"))[1]
    assert identify(with_certificate(dns)).name == "dns:web.internal"
    bare = authority.issue()[1]
    der = (
        x509.load_pem_x509_certificate(bare)
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    assert identify(with_certificate(bare)).name == f"sha256:{hashlib.sha256(der).hexdigest()}"


def test_two_spiffe_ids_are_nobody() -> None:
    pem = Authority().issue(URI("spiffe://corp/web"), URI("spiffe://corp/admin"))[1]
    with pytest.raises(UnauthenticatedError, match="SPIFFE"):
        Identifier(None)(with_certificate(pem))


def test_a_certificate_that_cannot_be_read_is_nobody() -> None:
    with pytest.raises(UnauthenticatedError):
        Identifier(None)(with_certificate(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))


@pytest.mark.parametrize("peer", ["unix-abstract:nonce/1000/100/7/1", "unix-abstract:nonce%2F1000/100/7/1"])
def test_a_unix_caller_is_its_user(peer: str) -> None:
    assert Identifier("nonce")(FakeContext(peer)).name == "unix:1000"


@pytest.mark.parametrize(
    "peer",
    [
        "unix:",
        "unix:/run/x.sock",
        "unix-abstract:other/1000/100/7/1",
        "unix-abstract:nonce/1000/100/7",
        "unix-abstract:nonce/1000/100/7/1/0",
        "unix-abstract:nonce/-1/100/7/1",
        "unix-abstract:nonce/٣/100/7/1",
        "unix-abstract:nonce//100/7/1",
        "unix-abstract:nonceX/1000/100/7/1",
        "ipv4:127.0.0.1:1",
        "",
    ],
)
def test_who_came_another_way_is_nobody(peer: str) -> None:
    with pytest.raises(UnauthenticatedError):
        Identifier("nonce")(FakeContext(peer))


def test_without_a_door_nobody_comes_through_it() -> None:
    with pytest.raises(UnauthenticatedError):
        Identifier(None)(FakeContext("unix-abstract:None/1000/100/7/1"))


@pytest.fixture
async def server(tmp_path):
    """A server with its real identifier, and whom it last heard."""
    device = FakeDevice()
    store = Store.open(f"sqlite:///{tmp_path}/store.db")
    keyring = Keyring(store, {"soft": device}, "soft")
    heard = []
    identifier = Identifier("nonce")

    def identify(context):
        heard.append(identifier(context))
        return heard[-1]

    app = build(
        keyring=keyring,
        pipeline=SigningPipeline(keyring, {"soft": device}, Limits()),
        devices={"soft": device},
        default_backend="soft",
        limits=Limits(),
        doorman_prefix="nonce",
        version="1",
        identify=identify,
    )
    yield app.server, heard
    await app.stop(0)
    store.close()


async def ask(channel: grpc.aio.Channel):
    return await backends_pb2_grpc.BackendServiceStub(channel).ListBackends(backends_pb2.ListBackendsRequest())


async def test_mutual_tls_names_the_caller(server) -> None:
    authority = Authority()
    made, heard = server
    credentials = grpc.ssl_server_credentials([authority.issue(DNS("localhost"))], authority.pem, True)
    port = made.add_secure_port("localhost:0", credentials)
    await made.start()
    key, certificate = authority.issue(URI("spiffe://corp/ci"), DNS("ci"))
    ours = grpc.ssl_channel_credentials(authority.pem, key, certificate)
    async with grpc.aio.secure_channel(f"localhost:{port}", ours) as channel:
        await ask(channel)
    assert [caller.name for caller in heard] == ["spiffe://corp/ci"]


@pytest.mark.parametrize("address", ["127.0.0.1:0", "unix"])
async def test_a_caller_without_a_proof_is_unauthenticated(server, tmp_path, address: str) -> None:
    made, heard = server
    target = f"unix://{tmp_path}/s" if address == "unix" else address
    port = made.add_insecure_port(target)
    await made.start()
    async with grpc.aio.insecure_channel(target if address == "unix" else f"127.0.0.1:{port}") as channel:
        said = await refusal(ask(channel))
    assert (said.code, said.reason, heard) == ("UNAUTHENTICATED", "UNAUTHENTICATED", [])
    assert "certificate" in said.metadata["hint"]

"""Who calls: what a certificate or a Unix socket proves, and nobody without a proof."""

from __future__ import annotations

import datetime as dt
import hashlib
import time
from dataclasses import dataclass, field

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from hsmsign.audit.auditing import NoAudit
from hsmsign.keyring import Keyring
from hsmsign.keyring.approvals import Approvals
from hsmsign.model.errors import ConfigurationError, UnauthenticatedError
from hsmsign.model.revocation import NO_CRLS, read
from hsmsign.policy import Policy
from hsmsign.server.app import build
from hsmsign.server.identity import Identifier
from hsmsign.signing import Admission, Limits, SigningPipeline
from hsmsign.signing.places import Places
from hsmsign.store import Store
from hsmsign.v1 import backends_pb2, backends_pb2_grpc
from tests.support import policies
from tests.support.authority import Authority
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


URI, DNS = x509.UniformResourceIdentifier, x509.DNSName


def with_certificate(pem: bytes, version: bytes = b"TLSv1.3") -> FakeContext:
    return FakeContext("ipv4:127.0.0.1:5", {"ssl_tls_version": [version], "x509_pem_cert": [pem]})


def test_a_spiffe_id_comes_first_then_a_dns_name_an_address_the_subject_and_the_key() -> None:
    authority, identify = Authority(), Identifier(None)

    def name(*names: x509.GeneralName, subject: str = "leaf") -> str:
        return identify(with_certificate(authority.issue(*names, subject=subject)[1])).name

    assert name(DNS("web.internal"), URI("https://x"), URI("spiffe://corp/web")) == "spiffe://corp/web"
    assert name(URI("https://x"), x509.RFC822Name("a@b"), DNS("Web.internal"), DNS("b")) == "dns:web.internal"
    assert name(x509.RFC822Name("Ann@corp.example")) == "email:ann@corp.example"
    assert name(subject="Ann, of Corp") == "subject:CN=Ann\\, of Corp"
    assert name(subject="").startswith("sha256:")


def test_every_caller_is_known_by_the_key_of_the_certificate_too() -> None:
    pem = Authority().issue(URI("spiffe://corp/web"))[1]
    key = x509.load_pem_x509_certificate(pem).public_key()
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert Identifier(None)(with_certificate(pem)).also == (f"sha256:{hashlib.sha256(der).hexdigest()}",)


def test_tls_1_2_is_not_enough_unless_that_was_said() -> None:
    pem = Authority().issue(URI("spiffe://corp/web"))[1]
    old, unknown = with_certificate(pem, b"TLSv1.2"), with_certificate(pem, b"TLSv1.1")
    with pytest.raises(UnauthenticatedError, match=r"TLS 1\.3"):
        Identifier(None)(old)
    assert Identifier(None, tls12=True)(old).name == "spiffe://corp/web"
    with pytest.raises(UnauthenticatedError):
        Identifier(None, tls12=True)(unknown)
    del old.auth["ssl_tls_version"]
    with pytest.raises(UnauthenticatedError):
        Identifier(None, tls12=True)(old)


def test_a_certificate_that_ends_while_its_connection_lasts_is_refused() -> None:
    pem = Authority().issue(URI("spiffe://corp/web"))[1]
    now = time.time()
    identify = Identifier(None, clock=lambda: now)
    assert identify(with_certificate(pem)).name == "spiffe://corp/web"
    now += 3601
    with pytest.raises(UnauthenticatedError, match="has expired"):
        identify(with_certificate(pem))


def test_a_revoked_certificate_is_refused_and_so_is_one_of_which_nobody_knows() -> None:
    authority, other = Authority(), Authority("other")
    good, bad = authority.issue(DNS("good"))[1], authority.issue(DNS("bad"))[1]
    now, crls = time.time(), NO_CRLS
    identify = Identifier(None, crls=lambda: crls, clock=lambda: now)
    assert identify(with_certificate(bad)).name == "dns:bad"
    crls = read(authority.crl(bad), [authority.certificate, other.certificate])
    assert identify(with_certificate(good)).name == "dns:good"
    with pytest.raises(UnauthenticatedError, match="was revoked"):
        identify(with_certificate(bad))
    with pytest.raises(UnauthenticatedError, match="no CRL of who issued"):
        identify(with_certificate(other.issue(DNS("unknown"))[1]))
    now += 3590
    crls = read(authority.crl(lasts=dt.timedelta(seconds=60)), [authority.certificate])
    with pytest.raises(UnauthenticatedError, match="out of date"):
        identify(with_certificate(good))


def test_a_crl_that_nobody_known_signed_is_refused() -> None:
    authority, impostor = Authority(), Authority()
    with pytest.raises(ConfigurationError, match="signed by none"):
        read(impostor.crl(), [authority.certificate])
    with pytest.raises(ConfigurationError, match="signed by none"):
        read(Authority("other").crl(), [authority.certificate])
    with pytest.raises(ConfigurationError, match="no CRL"):
        read(b"nothing", [authority.certificate])
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read(authority.crl().replace(b"MI", b"XX", 1), [authority.certificate])


def test_a_crl_of_a_part_of_the_certificates_is_refused() -> None:
    authority = Authority()
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateRevocationListBuilder().issuer_name(authority.certificate.subject)
    builder = builder.last_update(now).next_update(now + dt.timedelta(hours=1))
    delta = builder.add_extension(x509.DeltaCRLIndicator(1), critical=True).sign(authority.key, hashes.SHA256())
    with pytest.raises(ConfigurationError, match="of a kind that is not known"):
        read(delta.public_bytes(serialization.Encoding.PEM), [authority.certificate])


NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)


def crl_of(authority: Authority, *serials: int, since: int, lasts: int) -> bytes:
    """A CRL of `since` minutes ago that holds for so many from now."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(authority.certificate.subject)
    builder = builder.last_update(NOW - dt.timedelta(minutes=since)).next_update(NOW + dt.timedelta(minutes=lasts))
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def refused(crls, authority: Authority, serial: int, *, after: int = 0) -> str:
    """Why a certificate with that serial is refused so many minutes from now; nothing where it is not."""
    issuer, now = authority.certificate.subject.public_bytes(), NOW + dt.timedelta(minutes=after)
    try:
        crls.check("leaf", issuer, serial, now.timestamp())
    except UnauthenticatedError as error:
        return error.message
    return ""


@pytest.mark.parametrize("turned", [False, True])
def test_the_crls_of_two_keys_of_one_ca_hold_together_in_any_order(turned: bool) -> None:
    old, new = Authority(), Authority()
    parts = [crl_of(old, 77, since=9, lasts=30), crl_of(new, 78, since=5, lasts=60)]
    crls = read(b"".join(reversed(parts) if turned else parts), [old.certificate, new.certificate])
    assert "was revoked" in refused(crls, old, 77)
    assert "was revoked" in refused(crls, old, 78)
    assert refused(crls, old, 79, after=29) == ""
    assert "out of date" in refused(crls, old, 79, after=31)  # the old key's is; nobody knows whose 79 is


@pytest.mark.parametrize("turned", [False, True])
def test_an_older_crl_takes_nothing_back_and_does_not_end_the_newer(turned: bool) -> None:
    authority = Authority()
    parts = [crl_of(authority, 1, 2, since=9, lasts=10), crl_of(authority, 2, 3, since=5, lasts=60)]
    crls = read(b"".join(reversed(parts) if turned else parts), [authority.certificate])
    assert all("was revoked" in refused(crls, authority, serial) for serial in (1, 2, 3))
    assert refused(crls, authority, 4, after=59) == ""
    assert "out of date" in refused(crls, authority, 4, after=61)


def test_of_two_crls_of_one_moment_the_one_that_ends_first_counts() -> None:
    authority = Authority()
    parts = [crl_of(authority, since=5, lasts=lasts) for lasts in (60, 10, 30)]
    crls = read(b"".join(parts), [authority.certificate])
    assert refused(crls, authority, 4, after=9) == ""
    assert "out of date" in refused(crls, authority, 4, after=11)


def test_two_spiffe_ids_are_nobody() -> None:
    pem = Authority().issue(URI("spiffe://corp/web"), URI("spiffe://corp/admin"))[1]
    with pytest.raises(UnauthenticatedError, match="SPIFFE"):
        Identifier(None)(with_certificate(pem))


def test_a_certificate_that_cannot_be_read_is_nobody() -> None:
    with pytest.raises(UnauthenticatedError):
        Identifier(None)(with_certificate(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))


@pytest.mark.parametrize("peer", ["unix-abstract:nonce/1000/100/7/1", "unix-abstract:nonce%2F1000/100/7/1"])
def test_a_unix_caller_is_its_user(peer: str) -> None:
    assert Identifier("nonce")(FakeContext(peer)).names == ("unix:1000", "unix-group:100")


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

    policy, admission, approvals = Policy(policies.EVERYTHING), Admission((), 1000), Approvals(store)
    app = build(
        keyring=keyring,
        pipeline=SigningPipeline(
            keyring, Places({"soft": device}, 1000), Limits(), policy, admission, NoAudit(), approvals
        ),
        policy=policy,
        devices={"soft": device},
        default_backend="soft",
        limits=Limits(),
        version="1",
        audit=NoAudit(),
        approvals=approvals,
        audit_log=(None, "audit-log"),
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

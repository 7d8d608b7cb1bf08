"""A machine whose key is on its own device, at its own daemon, calls another daemon over mutual TLS with it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from cryptography import x509

import hsmsign.aio
from hsmsign.client import Client, TlsFiles, connect
from hsmsign.model.errors import CapabilityMissingError, ConfigurationError, PermissionDeniedError, UnavailableError
from hsmsign.tls.grpc_credentials import HANDSHAKE_OPTIONS, channel_credentials
from tests.support.daemon import Daemon, eventually
from tests.support.site import Site
from tests.support.swtpm import Swtpm

RULES = """
[[allow]]
principals = ["spiffe://corp/machine/*"]
actions = ["read", "sign", "create"]
"""
DOCS = Path(__file__).parents[2] / "docs" / "client.md"
KINDS = ["ecdsa-p256", "ecdsa-p384", "rsa-2048"]


class Machine:
    """A daemon of its own, and certificates of the site for its keys."""

    def __init__(self, site: Site, daemon: Daemon, folder: Path) -> None:
        self.site = site
        self.daemon = daemon
        self.folder = folder
        self.local = daemon.unix_client()

    def key(self, name: str, algorithm: str = "ecdsa-p256", **options: str) -> Path:
        """Make a key, and its certificate in a file."""
        self.local.create_key(name, algorithm, purpose="tls-client", **options)  # type: ignore[arg-type]
        return self.certify(name)

    def certify(self, name: str) -> Path:
        """A certificate of the site for the key as it is now."""
        san = x509.UniformResourceIdentifier(f"spiffe://corp/machine/{name}")
        path = self.folder / f"{name}.pem"
        path.write_bytes(self.site.authority.certify(self.local.key(name), san))
        return path

    def tls(self, name: str, certificate: Path) -> TlsFiles:
        """How the site is called with that key."""
        key = f"hsmsign:keys/{name}?endpoint=unix://{self.daemon.endpoints['unix']}"
        return TlsFiles(self.site.daemon.tls.ca, certificate, key)

    @property
    def target(self) -> str:
        """The site's daemon."""
        return f"dns:///{self.site.daemon.endpoints['tcp']}"

    def connect(self, name: str, certificate: Path) -> Client:
        """A client of the site."""
        return connect(self.target, tls=self.tls(name, certificate), deadline=20)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    made = Site(RULES)
    yield made
    made.daemon.remove()


@pytest.fixture(scope="module")
def machine(site: Site) -> Iterator[Machine]:
    daemon = Daemon().start()
    with tempfile.TemporaryDirectory() as folder:
        yield Machine(site, daemon, Path(folder))
    daemon.remove()


@pytest.mark.parametrize("algorithm", KINDS)
def test_a_device_key_for_tls_clients_is_an_identity_towards_another_daemon(machine: Machine, algorithm: str) -> None:
    with machine.connect(algorithm, machine.key(algorithm, algorithm)) as client:
        client.create_key(f"made-by-{algorithm}", "ecdsa-p256")
        assert client.get_key(f"made-by-{algorithm}").name == f"keys/made-by-{algorithm}"
        with pytest.raises(PermissionDeniedError):
            client.destroy_key(f"made-by-{algorithm}")


async def test_the_asyncio_client_uses_it_too(machine: Machine) -> None:
    certificate = machine.key("awaited")
    async with hsmsign.aio.connect(machine.target, tls=machine.tls("awaited", certificate)) as client:
        await asyncio.gather(*(client.daemon_version() for _ in range(5)))


def test_a_client_file_names_a_key_on_a_device(machine: Machine) -> None:
    certificate = machine.key("filed")
    tls = machine.tls("filed", certificate)
    file = machine.folder / "client.toml"
    file.write_text(f'endpoint = "{machine.target}"\nca = "{tls.ca}"\ncertificate = "filed.pem"\nkey = "{tls.key}"\n')
    with connect(client_file=file) as client:
        assert client.daemon_version()
    done = subprocess.run(
        [sys.executable, "-m", "hsmsign", "--client", str(file), "key", "list"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_a_certificate_for_another_key_is_an_error_before_anything_is_sent(machine: Machine) -> None:
    machine.key("mine")
    other = machine.key("other")
    with pytest.raises(ConfigurationError, match="is not for keys/mine/versions/1") as caught:
        machine.connect("mine", other)
    assert "hsmsign:keys/mine?endpoint=unix:///" in caught.value.hint


def test_after_a_rotation_the_version_signs_that_the_certificate_is_for(machine: Machine) -> None:
    certificate = machine.key("rotated")
    machine.local.rotate_key("rotated")
    with machine.connect("rotated", certificate) as client:
        assert client.daemon_version()


def test_a_disabled_key_is_what_the_error_is_about(machine: Machine) -> None:
    certificate = machine.key("disabled")
    with machine.connect("disabled", certificate) as client:
        machine.local.disable_version("disabled/versions/1")
        with pytest.raises(UnavailableError, match=r"keys/disabled/versions/1 is disabled") as caught:
            client.daemon_version()
        assert "the client's own key, hsmsign:keys/disabled?" in caught.value.hint
        machine.local.enable_version("disabled/versions/1")
        assert client.daemon_version()


def test_a_key_that_is_for_something_else_is_not_used(machine: Machine) -> None:
    certificate = machine.key("server")
    machine.local.set_purpose("server", "tls-server")
    with machine.connect("server", certificate) as client:
        with pytest.raises(UnavailableError) as caught:
            client.daemon_version()
        assert caught.value.metadata["reason"] == "PURPOSE_MISMATCH"


def test_who_may_read_the_key_and_not_sign_with_it_is_told_so(machine: Machine) -> None:
    certificate = machine.key("forbidden")
    policy = machine.daemon.folder / "policy.toml"
    before = policy.read_text()
    policy.write_text(
        before + '\n[[deny]]\nprincipals = ["role:owner"]\nactions = ["sign", "sign-digest"]\nkeys = ["forbidden"]\n'
    )
    try:
        machine.daemon.kill("supervisor", 1)
        with machine.connect("forbidden", certificate) as client:
            eventually(lambda: _reason(client) == "PERMISSION_DENIED", "it may still sign")
    finally:
        policy.write_text(before)
        machine.daemon.kill("supervisor", 1)


def _reason(client: Client) -> str:
    with connect(client.endpoint.target, tls=client.endpoint.tls) as again:
        try:
            again.daemon_version()
        except UnavailableError as error:
            return error.metadata.get("reason", "")
    return ""


def test_a_restart_of_the_daemon_with_the_key_ends_nothing(machine: Machine, new_daemon: Callable[..., Daemon]) -> None:
    own = Machine(machine.site, new_daemon().start(), machine.folder)
    tls = own.tls("again", own.key("again"))
    with connect(own.target, tls=tls, deadline=20) as client:
        assert client.daemon_version()
        own.daemon.stop()
        assert client.daemon_version(), "a connection that is made needs the key no more"
        with pytest.raises(UnavailableError, match="cannot reach the daemon at unix:"):
            connect(own.target, tls=tls)
        own.daemon.start()
        own.site.daemon.kill("worker")  # the connection is gone: the next one wants a signature
        assert eventually(lambda: _answers(client), "it never came back")


def _answers(client: Client) -> bool:
    try:
        return bool(client.daemon_version())
    except UnavailableError:
        return False


def test_a_key_in_a_tpm_is_an_identity(machine: Machine, new_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    swtpm = Swtpm(tmp_path)
    try:
        secret = tmp_path / "secret"
        secret.write_text("a secret for the authorizations of keys")
        secret.chmod(0o600)
        table = f'\n[backends.tpm]\nkind = "tpm2"\ntcti = "{swtpm.tcti}"\nkey_auth = {{ file = "{secret}" }}\n'
        softhsm = 'kind = "softhsm"\n'
        own = Machine(
            machine.site,
            new_daemon(edit=lambda text: text.replace(softhsm, softhsm + "default = true\n") + table).start(),
            machine.folder,
        )
        with own.connect("in-a-tpm", own.key("in-a-tpm", backend="tpm")) as client:
            assert client.daemon_version()
    finally:
        swtpm.stop()


def test_many_handshakes_one_after_the_other_all_end(machine: Machine) -> None:
    certificate = machine.key("many")
    for _ in range(400):  # an answer that is there before gRPC has heard that it will come is rare
        with machine.connect("many", certificate) as client:
            assert client.daemon_version()


def test_an_ed25519_key_is_refused_with_words(machine: Machine) -> None:
    machine.local.create_key("edwards", "ed25519")
    with pytest.raises(CapabilityMissingError, match="Ed25519"):
        machine.connect("edwards", machine.certify("edwards"))


def test_a_p521_key_is_told_that_this_daemon_takes_none(machine: Machine) -> None:
    with machine.connect("large", machine.key("large", "ecdsa-p521")) as client:
        with pytest.raises(UnavailableError) as caught:
            client.daemon_version()
        assert "use P-256, P-384 or RSA" in caught.value.hint


@pytest.mark.parametrize(
    ("algorithm", "options", "said"),
    [
        ("ecdsa-p521", [], "Peer signing digest: SHA512"),
        ("rsa-2048", [], "Peer signature type: RSA-PSS"),
        ("rsa-2048", ["-tls1_2", "-client_sigalgs", "RSA+SHA384"], "Peer signing digest: SHA384"),
        ("ecdsa-p256", ["-tls1_2"], "Peer signature type: ECDSA"),
    ],
)
def test_openssl_accepts_what_a_grpc_client_signs(
    machine: Machine, tmp_path: Path, algorithm: str, options: list[str], said: str
) -> None:
    name = f"openssl-{algorithm}-{len(options)}"
    certificate = machine.key(name, algorithm)
    credentials = channel_credentials(
        (machine.local, name), certificate.read_bytes(), machine.site.daemon.tls.ca.read_bytes()
    )
    with s_server(machine, tmp_path, options) as (port, output):
        channel = grpc.secure_channel(f"localhost:{port}", credentials, options=HANDSHAKE_OPTIONS)
        watching = threading.Thread(target=lambda: grpc.channel_ready_future(channel))
        watching.start()
        eventually(lambda: said in output.read_text(errors="replace"), output.read_text(errors="replace"))
        assert "Verify return code: 0 (ok)" in output.read_text(
            errors="replace"
        ) or "verify error" not in output.read_text(errors="replace")
        channel.close()
        watching.join()


@contextlib.contextmanager
def s_server(machine: Machine, folder: Path, options: list[str]) -> Iterator[tuple[int, Path]]:
    """A TLS server made of OpenSSL, that wants a certificate."""
    tls = machine.site.daemon.folder / "tls"
    output = folder / "s_server.out"
    command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", tls / "server.pem", "-key"]
    command += [tls / "server-key.pem", "-CAfile", tls / "ca.pem", "-Verify", "2", "-alpn", "h2", *options]
    with output.open("wb") as file:
        server = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=file, stderr=file)
    try:
        found = eventually(
            lambda: re.search(r"ACCEPT .*:(\d+)", output.read_text(errors="replace")), "openssl does not listen"
        )
        yield int(found[1]), output
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("hsmsign:keys/a", "does not say, once, which daemon"),
        ("hsmsign:keys/a?endpoint=dns:///h:1", "over a Unix socket"),
        ("hsmsign:keys/A B?endpoint=unix:///s", "A B"),
        ("hsmsign:keys/a?endpoint=unix:///s&pin=1", "does not say, once, which daemon"),
    ],
)
def test_a_device_key_that_is_not_well_named_is_refused(key: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        TlsFiles("ca", "certificate", key)


def test_the_example_of_the_documentation_runs(machine: Machine, tmp_path: Path) -> None:
    section = DOCS.read_text().split("## A key on a device as the client's own")[1].split("\n## ")[0]
    toml, code = (
        textwrap.dedent(re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)[1])  # type: ignore[index]
        for language in ("toml", "python")
    )
    machine.key("machine")
    (tmp_path / "machine.pem").write_bytes((machine.folder / "machine.pem").read_bytes())
    (tmp_path / "ca.pem").write_bytes(machine.site.daemon.tls.ca.read_bytes())

    def here(text: str) -> str:
        text = text.replace("unix:///run/hsmsign/hsmsign.sock", f"unix://{machine.daemon.endpoints['unix']}")
        return text.replace("signer.example.org:7443", str(machine.site.daemon.endpoints["tcp"]))

    (tmp_path / "client.toml").write_text(here(toml))
    done = subprocess.run(
        [sys.executable, "-c", here(code)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PYTHONPATH": str(DOCS.parents[1]), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    assert "keys/" in done.stdout

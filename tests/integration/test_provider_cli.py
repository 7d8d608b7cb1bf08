"""hsmsign key reference and hsmsign provider: what they write, print and find wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsmsign.tls import module
from tests.support.daemon import Daemon
from tests.support.daemon import hsmsign as run
from tests.support.programs import Place, ask, nginx, program

ALGORITHMS = {"p256": "ecdsa-p256", "p384": "ecdsa-p384", "rsa": "rsa-2048", "ed25519": "ed25519"}


class Home:
    """A daemon, and the command with its client file."""

    def __init__(self) -> None:
        self.daemon = Daemon().start()

    def __call__(self, *words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "HSMSIGN_CLIENT": str(self.daemon.folder / "client.toml")}
        command = [sys.executable, "-m", "hsmsign", *map(str, words)]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, cwd=cwd, timeout=120
        )


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    made = Home()
    with made.daemon.unix_client() as client:
        for name, algorithm in ALGORITHMS.items():
            client.create_key(name, algorithm)
        client.create_key("server", "ecdsa-p256", purpose="tls-server")
        client.create_key("client", "ecdsa-p256", purpose="tls-client")
        client.create_key("turned", "ecdsa-p256")
        client.rotate_key("keys/turned")
    yield made
    made.daemon.remove()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_reference_of_the_command_serves_nginx(home: Home, place: Place) -> None:
    with home.daemon.unix_client() as client:
        made = place.pair(client, "server")
    made.reference.unlink()
    done = home("key", "reference", "server", "--out", made.reference)
    assert (done.returncode, done.stdout) == (0, "")
    assert made.reference.stat().st_mode & 0o777 == 0o644
    with nginx(place, made) as server:
        assert ask(place, server.port, "1.2")[1].startswith("TLSv1.2")


def said(place: Place, reference: Path) -> str:
    return place.good("openssl", "asn1parse", "-in", reference).decode()


def test_a_reference_is_for_one_version(home: Home, place: Place) -> None:
    for name, version in (("turned", 2), ("turned/versions/1", 1)):
        out = place.folder / f"{version}.ref"
        done = home("--json", "key", "reference", name, "--out", out)
        assert json.loads(done.stdout)["key_version"] == f"keys/turned/versions/{version}"
        assert f":keys/turned/versions/{version}\n" in said(place, out)


def test_options_are_in_the_reference(home: Home, place: Place) -> None:
    out = place.folder / "x.ref"
    files = ("--endpoint-ca", "ca.pem", "--endpoint-certificate", "own.pem", "--endpoint-key", "own.key")
    where = ("--endpoint", "dns:///signer.example:7443", *files, "--endpoint-server-name", "signer")
    done = home("key", "reference", "p256", *where, "--deadline", "1.5", "--verify", "--out", out, cwd=place.folder)
    assert done.returncode == 0, done.stderr
    words = said(place, out)
    # the paths are absolute: nginx has another working directory
    for path in ("ca.pem", "own.pem", "own.key"):
        assert f":{place.folder}/{path}\n" in words
    assert ":dns:///signer.example:7443\n" in words
    assert ":05DC\n" in words
    assert "BOOLEAN           :255" in words


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("p256", "--endpoint-ca", "ca.pem"), 64, "are said together"),
        (("p256", "--endpoint-server-name", "x"), 64, "goes with --endpoint-ca"),
        (("p256", "--endpoint", "signer:7443"), 78, "is not an endpoint"),
        (("p256", "--deadline", "0"), 78, "a deadline of 0 s"),
        (("none",), 65, "'keys/none' does not exist"),
        (("p256", "--out", "/nowhere/x.ref"), 73, "cannot write /nowhere/x.ref"),
    ],
)
def test_what_cannot_be_is_refused_in_words(home: Home, options: tuple[str, ...], code: int, words: str) -> None:
    done = home("key", "reference", *options)
    assert done.returncode == code
    assert words in done.stderr


@pytest.mark.parametrize("name", ["p384", "rsa", "ed25519", "server"])
def test_check_has_a_signature_made(home: Home, place: Place, name: str) -> None:
    with home.daemon.unix_client() as client:
        made = place.pair(client, name)
    done = run("provider", "check", made.reference, "--cert", made.certificate, "--conf", place.configuration)
    assert done.returncode == 0, done.stderr
    assert "had a signature made, and verified it" in done.stdout


def test_check_tries_a_key_for_clients_when_told_so(home: Home, place: Place) -> None:
    with home.daemon.unix_client() as client:
        made = place.pair(client, "client")
    refused = run("provider", "check", made.reference)
    assert refused.returncode == 70
    assert "tls-client" in refused.stderr
    assert run("provider", "check", made.reference, "--tls-client").returncode == 0


def test_check_says_what_is_wrong(home: Home, place: Place) -> None:
    with home.daemon.unix_client() as client:
        made, other = place.pair(client, "p256"), place.pair(client, "rsa")
    cut = place.folder / "cut.ref"
    cut.write_bytes(made.reference.read_bytes()[:120])
    away = place.folder / "away.ref"
    home("key", "reference", "p256", "--endpoint", "unix:///nowhere.sock", "--deadline", "0.2", "--out", away)
    secret = place.folder / "key.pem"
    place.good("openssl", "genpkey", "-algorithm", "ED25519", "-out", secret)
    lacking = place.folder / "lacking.cnf"
    lacking.write_text(place.configuration.read_text().replace("module = ", "module = /nowhere"))
    cases = [
        ((made.reference, "--conf", lacking), 78, "openssl does not load the provider that"),
        ((made.reference, "--cert", other.certificate), 78, "is not for the key of"),
        ((cut,), 78, "is cut or altered"),
        ((away,), 70, "cannot reach the daemon at unix:///nowhere.sock"),
        ((made.certificate,), 78, "is no key reference"),
        ((secret,), 78, "has a private key in it, not on a device"),
        ((place.folder / "none",), 78, "cannot be read by this user"),
    ]
    for words, code, expected in cases:
        done = run("provider", "check", *words)
        assert (done.returncode, expected in done.stderr) == (code, True), done.stderr


def test_the_module_needs_nothing_but_openssl_and_http2() -> None:
    found = run("provider", "path").stdout.strip()
    lines = subprocess.run(["ldd", found], capture_output=True, text=True, check=True).stdout.splitlines()
    needed = {line.split()[0].split(".so")[0].rpartition("/")[2] for line in lines}
    loader = {"linux-vdso", "ld-linux-x86-64", "ld-linux-aarch64"}
    assert needed - loader == {"libcrypto", "libssl", "libnghttp2", "libc"}


def test_the_printed_configuration_activates_both_providers(place: Place) -> None:
    text = run("provider", "conf", "openssl").stdout
    place.configuration.write_text(text)
    listed = place.good("openssl", "list", "-providers").decode()
    assert "Keys on devices behind hsmsign" in listed
    assert "OpenSSL Default Provider" in listed
    assert text.index("default = ") < text.index("hsmsign = ")


@pytest.mark.parametrize("name", ["nginx", "haproxy", "curl"])
def test_each_program_has_an_example(name: str) -> None:
    done = run("provider", "conf", name)
    assert done.returncode == 0
    assert "OPENSSL_CONF" in done.stdout
    assert "@" not in done.stdout


def test_install_puts_the_module_where_it_is_told(place: Place) -> None:
    target = place.folder / module.NAME
    dry = run("provider", "install", "--to", place.folder, "--dry-run")
    assert dry.stdout.startswith("would copy ")
    assert not target.exists()
    assert run("provider", "install", "--to", place.folder).stdout.startswith("copied ")
    assert target.read_bytes() == module.built().read_bytes()
    assert target.stat().st_mode & 0o777 == 0o644
    assert run("provider", "install", "--to", place.folder).stdout.endswith("is there already\n")
    target.write_bytes(b"an older one")
    assert json.loads(run("--json", "provider", "install", "--to", place.folder).stdout)["changed"]
    assert target.read_bytes() == module.built().read_bytes()
    assert [path.name for path in place.folder.glob(f".{module.NAME}*")] == []


def test_install_goes_where_openssl_says(place: Place) -> None:
    folder = subprocess.run([program("openssl"), "version", "-m"], capture_output=True, text=True, check=True).stdout
    done = run("--json", "provider", "install", "--dry-run")
    assert json.loads(done.stdout)["target"] == f"{folder.split(chr(34))[1]}/{module.NAME}"


def test_an_installation_without_the_module_says_what_to_install(tmp_path: Path) -> None:
    package = Path(module.__file__).parents[1]
    shutil.copytree(package, tmp_path / "hsmsign", symlinks=False, ignore=shutil.ignore_patterns("hsmsign.so"))
    words = [sys.executable, "-m", "hsmsign", "provider", "install", "--to", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert done.returncode == 65
    assert "apt-get install gcc make libssl-dev libnghttp2-dev libnanopb-dev nanopb" in done.stderr

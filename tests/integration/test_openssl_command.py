"""The openssl command and curl with keys on a device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.programs import Pair, Place, nginx, s_server

KEYS = {"p256": "ecdsa-p256", "p384": "ecdsa-p384", "p521": "ecdsa-p521", "rsa": "rsa-2048", "ed25519": "ed25519"}
DIGESTS = {"p256": "sha256", "p384": "sha384", "p521": "sha512", "rsa": "sha256"}
PSS = ("-pkeyopt", "rsa_padding_mode:pss", "-pkeyopt", "rsa_pss_saltlen:digest")
CA = """\
[ca]
default_ca = own
[own]
database = index.txt
new_certs_dir = .
serial = serial
default_md = sha256
default_days = 1
policy = policy
[policy]
commonName = supplied
[req]
distinguished_name = dn
[dn]
"""


@pytest.fixture(scope="module")
def home() -> Iterator[Daemon]:
    daemon = Daemon().start()
    with daemon.unix_client() as client:
        for name, algorithm in KEYS.items():
            client.create_key(name, algorithm)
        client.create_key("bound", "ecdsa-p256", purpose="tls-client")
        client.create_key("bound-rsa", "rsa-2048", purpose="tls-client")
    yield daemon
    daemon.remove()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    (tmp_path / "file").write_bytes(b"what is signed\n")
    return place


def pair(home: Daemon, place: Place, name: str) -> Pair:
    with home.unix_client() as client:
        (place.folder / f"{name}.pub").write_text(client.public_key_info(f"keys/{name}").pem)
        return place.pair(client, name)


def uri(home: Daemon, name: str) -> str:
    return f"hsmsign:keys/{name}?endpoint=unix://{home.endpoints['unix']}"


@pytest.mark.parametrize("name", list(KEYS))
def test_req_makes_a_request(home: Daemon, place: Place, name: str) -> None:
    made = pair(home, place, name)
    request = place.good("openssl", "req", "-new", "-key", made.reference, "-subj", "/CN=x")
    done = place.run("openssl", "req", "-verify", "-noout", stdin=request)
    assert b"verify OK" in done.stderr


def test_ca_issues_certificates(home: Daemon, place: Place) -> None:
    authority, asks = pair(home, place, "p256"), pair(home, place, "rsa")
    (place.folder / "ca.cnf").write_text(CA)
    (place.folder / "index.txt").touch()
    (place.folder / "serial").write_text("01\n")
    root = ("req", "-x509", "-new", "-key", authority.reference, "-subj", "/CN=root", "-config", "ca.cnf")
    place.good("openssl", *root, "-addext", "basicConstraints=critical,CA:TRUE", "-out", "root.pem")
    place.good("openssl", "req", "-new", "-key", asks.reference, "-subj", "/CN=leaf", "-out", "leaf.csr")
    issue = ("ca", "-batch", "-config", "ca.cnf", "-cert", "root.pem", "-in", "leaf.csr", "-out", "leaf.pem")
    place.good("openssl", *issue, "-keyfile", authority.reference)
    assert b"leaf.pem: OK" in place.good("openssl", "verify", "-CAfile", "root.pem", "leaf.pem")


@pytest.mark.parametrize("name", list(DIGESTS))
@pytest.mark.parametrize("how", ["reference", "uri"])
def test_dgst_signs(home: Daemon, place: Place, name: str, how: str) -> None:
    made = pair(home, place, name)
    key = made.reference if how == "reference" else uri(home, name)
    digest = f"-{DIGESTS[name]}"
    place.good("openssl", "dgst", digest, "-sign", key, "-out", "signature", "file")
    said = place.good("openssl", "dgst", digest, "-verify", f"{name}.pub", "-signature", "signature", "file")
    assert b"Verified OK" in said


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("p256", ("-rawin", "-digest", "sha256")),
        ("p384", ("-rawin", "-digest", "sha384")),
        ("rsa", ("-rawin", "-digest", "sha512")),
        ("rsa", ("-rawin", "-digest", "sha256", *PSS)),
        ("ed25519", ("-rawin",)),
    ],
)
def test_pkeyutl_signs(home: Daemon, place: Place, name: str, options: tuple[str, ...]) -> None:
    made = pair(home, place, name)
    place.good("openssl", "pkeyutl", "-sign", "-inkey", made.reference, "-in", "file", *options, "-out", "signature")
    verify = ("pkeyutl", "-verify", "-pubin", "-inkey", f"{name}.pub", "-in", "file", *options)
    assert b"Verified Successfully" in place.good("openssl", *verify, "-sigfile", "signature")


@pytest.mark.parametrize(
    ("tail", "words"),
    [
        ("", b"it looks like hsmsign:keys/web-1?endpoint="),
        ("?endpoint=unix:///nowhere&verify=maybe", b"it looks like hsmsign:keys/web-1?endpoint="),
        ("?endpoint=ftp://x", b"an endpoint is unix:///path/to/socket or dns:///host:port"),
        ("?endpoint=unix:///nowhere&deadline-ms=100", b"cannot reach the daemon at unix:///nowhere"),
    ],
)
def test_a_uri_that_cannot_be_is_refused_in_words(place: Place, tail: str, words: bytes) -> None:
    done = place.run("openssl", "pkey", "-in", f"hsmsign:keys/p256{tail}", "-noout")
    assert done.returncode == 1
    assert words in done.stderr


def test_a_uri_of_no_key_is_refused_in_the_daemons_words(home: Daemon, place: Place) -> None:
    done = place.run("openssl", "pkey", "-in", uri(home, "none"), "-noout")
    assert done.returncode == 1
    assert b"'keys/none' does not exist on this daemon" in done.stderr


@pytest.mark.parametrize("name", ["p256", "rsa", "ed25519"])
def test_no_private_key_comes_out(home: Daemon, place: Place, name: str) -> None:
    made = pair(home, place, name)
    own = ("-in", made.certificate, "-inkey", made.reference, "-passout", "pass:x")
    for words in (
        ("pkey", "-in", made.reference),
        ("pkcs12", "-export", *own),
        ("pkcs8", "-topk8", "-in", made.reference),
    ):
        done = place.run("openssl", *words)
        assert done.returncode != 0
        assert done.stdout == b""


def test_what_a_key_does_not_sign_is_said_in_words(home: Daemon, place: Place) -> None:
    made = pair(home, place, "p384")
    done = place.run("openssl", "dgst", "-sha256", "-sign", made.reference, "file")
    assert done.returncode == 1
    assert b"a key on secp384r1 signs by SHA384 alone, not by" in done.stderr


def test_what_a_purpose_forbids_is_said_in_the_daemons_words(home: Daemon, place: Place) -> None:
    made = pair(home, place, "bound")
    done = place.run("openssl", "dgst", "-sha256", "-sign", made.reference, "file")
    assert done.returncode == 1
    assert b"keys/bound" in done.stderr
    assert b"tls-client" in done.stderr


@pytest.mark.parametrize("name", ["p256", "p384", "rsa"])
def test_cms_signs_what_others_verify(home: Daemon, place: Place, name: str) -> None:
    made = pair(home, place, name)
    sign = ("cms", "-sign", "-nodetach", "-binary", "-in", "file", "-md", DIGESTS[name])
    own = ("-signer", made.certificate, "-inkey", made.reference)
    place.good("openssl", *sign, *own, "-outform", "DER", "-out", "signed")
    verify = ("cms", "-verify", "-inform", "DER", "-in", "signed", "-CAfile", place.ca, "-purpose", "any", "-binary")
    assert place.good("openssl", *verify) == b"what is signed\n"


@pytest.mark.parametrize("name", list(KEYS))
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_s_server_serves_and_s_client_proves_who_it_is(home: Daemon, place: Place, name: str, version: str) -> None:
    made = pair(home, place, name)
    wants = ("-Verify", "1", "-verify_return_error", "-CAfile", str(place.ca))
    with s_server(place, made, *wants) as server:
        address = ("-connect", f"127.0.0.1:{server.port}", "-CAfile", place.ca, "-verify_return_error", version)
        own = ("-cert", made.certificate, "-key", uri(home, name), "-quiet", "-no_ign_eof", "-ign_eof")
        said = place.good("openssl", "s_client", *address, *own, stdin=b"GET / HTTP/1.0\r\n\r\n").decode()
        assert f"subject=CN = {name}" in said or "Client certificate" in said


def test_a_key_by_its_uri_stays_the_version_that_its_certificate_is_for(home: Daemon, place: Place) -> None:
    with home.unix_client() as client:
        client.create_key("turned", "ecdsa-p256")
        made = place.pair(client, "turned")
        by_uri = Pair(made.certificate, uri(home, "turned"))  # type: ignore[arg-type]  # a Path has no ///
        with s_server(place, by_uri) as server:
            client.rotate_key("turned")
            assert "Verify return code: 0 (ok)" in place.s_client(server.port)


@pytest.mark.parametrize("name", ["p256", "p384", "rsa", "ed25519", "bound", "bound-rsa"])
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_curl_proves_who_it_is(home: Daemon, place: Place, name: str, version: str) -> None:
    made, server_pair = pair(home, place, name), pair(home, place, "p256")
    with nginx(place, server_pair, more=f"ssl_verify_client on; ssl_client_certificate {place.ca};") as server:
        words = ("--silent", "--show-error", "--fail", "--cacert", place.ca, "--max-time", "30")
        limits = (f"--tlsv{version}", "--tls-max", version)
        target = f"https://localhost:{server.port}/"
        said = place.good("curl", *words, *limits, "--cert", made.certificate, "--key", made.reference, target)
        assert said.decode().endswith(f"CN={name}\n")
        without = place.run("curl", *words, *limits, target)
        assert without.returncode != 0

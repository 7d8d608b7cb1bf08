"""Servers and clients of Python's own `ssl` whose keys are on a device, with a real daemon behind them."""

from __future__ import annotations

import asyncio
import gc
import http.server
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsmsign.client.client import Client
from hsmsign.model.errors import ConfigurationError
from hsmsign.tls import KeyReference, client_context, examples, provider, server_context, use_key
from hsmsign.tls.sni import Host, ServerNames
from tests.support.authority import Authority
from tests.support.daemon import Daemon, eventually
from tests.support.tls_site import handshake, running

ALGORITHMS = ("ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-2048", "ed25519")
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
LOCALHOST = x509.DNSName("localhost")
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tls.md").read_text(encoding="utf-8").partition("## Serving")[0]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    made = Daemon()
    made.start()
    yield made
    made.stop()
    made.remove()


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[Client]:
    """One with keys of every kind: keys/ALGORITHM."""
    with daemon.unix_client() as made:
        for algorithm in ALGORITHMS:
            made.create_key(f"keys/{algorithm}", algorithm)
        yield made


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def chain(client: Client, authority: Authority, name: str = "ecdsa-p256") -> bytes:
    """A certificate for localhost and a key on the device."""
    return authority.certify(client.key(name), LOCALHOST)


def write(client: Client, path: Path, name: str = "ecdsa-p256", **more: float | bool) -> Path:
    """A reference in a file."""
    info = client.public_key_info(name)
    path.write_bytes(KeyReference.at(client.endpoint, info.key_version, info.der, **more).to_pem())  # type: ignore[arg-type]
    return path


@contextmanager
def threaded_server(context: ssl.SSLContext) -> Iterator[int]:
    """Says "hello" over TLS to whoever comes, a thread each; a handshake that fails is not the end."""
    listener = socket.create_server(("localhost", 0))

    def talk(raw: socket.socket) -> None:
        with raw, suppress(OSError), context.wrap_socket(raw, server_side=True) as tls:
            tls.sendall(b"hello")

    def run() -> None:
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(raw,), daemon=True).start()

    def stop() -> None:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()

    with running(run, stop):
        yield listener.getsockname()[1]


def greet(port: int, context: ssl.SSLContext) -> tuple[bytes, bytes]:
    """What the server says, and its certificate."""
    with (
        socket.create_connection(("localhost", port), timeout=20) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        return tls.recv(5), tls.getpeercert(binary_form=True) or b""


def public_of(certificate: bytes) -> bytes:
    found = x509.load_der_x509_certificate(certificate).public_key()
    return found.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_server_proves_itself_with_a_key_of_each_kind(
    client: Client, authority: Authority, algorithm: str, version: ssl.TLSVersion
) -> None:
    server = server_context(chain(client, authority, algorithm), client.key(algorithm))
    ours = client_context(ca=authority.pem)
    ours.minimum_version = ours.maximum_version = version
    theirs, mine = handshake(server, ours)
    assert theirs.version() == mine.version() == {771: "TLSv1.2", 772: "TLSv1.3"}[version.value]
    assert public_of(mine.getpeercert(binary_form=True) or b"") == client.public_key_info(algorithm).der


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_client_proves_itself_with_a_key_of_each_kind(
    client: Client, authority: Authority, algorithm: str, version: ssl.TLSVersion
) -> None:
    server = server_context(chain(client, authority), (client, "ecdsa-p256"), client_ca=authority.pem)
    mine = authority.certify(client.key(algorithm), x509.UniformResourceIdentifier("spiffe://example.org/me"))
    ours = client_context(mine, (client, algorithm), ca=authority.pem)
    ours.minimum_version = ours.maximum_version = version
    theirs, _ = handshake(server, ours)
    assert public_of(theirs.getpeercert(binary_form=True) or b"") == client.public_key_info(algorithm).der
    with pytest.raises(ssl.SSLError):
        handshake(server, client_context(ca=authority.pem))  # who has no certificate is not let in


def test_keys_that_are_for_tls_alone_are_enough(client: Client, authority: Authority) -> None:
    client.create_key("keys/server-only", "ecdsa-p256", purpose="tls-server")
    client.create_key("keys/client-only", "rsa-2048", purpose="tls-client")
    server = server_context(chain(client, authority, "server-only"), (client, "server-only"), client_ca=authority.pem)
    mine = authority.certify(client.key("client-only"), LOCALHOST)
    ours = client_context(mine, (client, "client-only"), ca=authority.pem)
    for version in VERSIONS:
        ours.minimum_version = ours.maximum_version = version
        theirs, _ = handshake(server, ours)
        assert theirs.getpeercert(binary_form=True)


def test_openssl_and_curl_talk_with_an_asyncio_server(client: Client, authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    context = server_context(chain(client, authority, "ecdsa-p384"), client.key("ecdsa-p384"))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        await writer.drain()
        writer.close()

    async def run() -> tuple[bytes, bytes]:
        server = await asyncio.start_server(answer, "localhost", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        where = ["--cacert", str(tmp_path / "ca.pem"), f"https://localhost:{port}/"]
        curl = await asyncio.create_subprocess_exec("curl", "-sS", *where, stdout=-1, stderr=-1)
        said, complaint = await curl.communicate()
        assert curl.returncode == 0, complaint
        check = ["-verify_return_error", "-CAfile", str(tmp_path / "ca.pem")]
        openssl = await asyncio.create_subprocess_exec(
            "openssl", "s_client", "-tls1_2", "-connect", f"localhost:{port}", *check, stdin=-3, stdout=-1, stderr=-1
        )
        shown, complaint = await openssl.communicate()
        assert openssl.returncode == 0, complaint
        server.close()
        return said, shown

    said, shown = asyncio.run(run())
    assert said == b"hello"
    assert b"Verification: OK" in shown
    assert b"ECDSA" in shown


def test_http_server_takes_the_context(client: Client, authority: Authority) -> None:
    class Hello(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("localhost", 0), Hello)
    server.socket = server_context(chain(client, authority), client.key("ecdsa-p256")).wrap_socket(
        server.socket, server_side=True
    )
    with closing(server.socket), running(server.serve_forever, server.shutdown):
        url = f"https://localhost:{server.server_port}/"
        with urllib.request.urlopen(url, context=client_context(ca=authority.pem), timeout=20) as answer:
            assert answer.read() == b"hello"


def test_aiohttp_and_uvicorn_take_the_contexts(client: Client, authority: Authority) -> None:
    import aiohttp
    import uvicorn
    from aiohttp import web

    pem = chain(client, authority, "rsa-2048")
    mine = authority.certify(client.key("ecdsa-p256"), LOCALHOST)

    async def application(scope: dict[str, str], receive: object, send: Callable[..., object]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[misc]
        await send({"type": "http.response.body", "body": b"uvicorn"})  # type: ignore[misc]

    async def hello(_: web.Request) -> web.Response:
        return web.Response(body=b"aiohttp")

    async def run() -> tuple[bytes, bytes]:
        server_side = server_context(pem, (client, "rsa-2048"), client_ca=authority.pem)
        handler = web.Application()
        handler.router.add_get("/", hello)
        runner = web.AppRunner(handler)
        await runner.setup()
        site = web.TCPSite(runner, "localhost", 0, ssl_context=server_side)
        await site.start()
        port = runner.addresses[0][1]
        config = uvicorn.Config(application, port=0, lifespan="off", log_level="error")  # type: ignore[arg-type]
        config.load()
        config.ssl = server_side
        other = uvicorn.Server(config)
        task = asyncio.create_task(other.serve())
        while not other.started:  # noqa: ASYNC110 - it has no event for that
            await asyncio.sleep(0.01)
        second = other.servers[0].sockets[0].getsockname()[1]
        ours = client_context(mine, (client, "ecdsa-p256"), ca=authority.pem)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=ours)) as session:
            async with session.get(f"https://localhost:{port}/") as answer:
                one = await answer.read()
            async with session.get(f"https://localhost:{second}/", headers={"Host": "localhost"}) as answer:
                two = await answer.read()
        other.should_exit = True
        await task
        await runner.cleanup()
        return one, two

    assert asyncio.run(run()) == (b"aiohttp", b"uvicorn")


def test_a_reference_in_a_file_is_taken_like_a_key(client: Client, authority: Authority, tmp_path: Path) -> None:
    reference = write(client, tmp_path / "web.ref")
    (tmp_path / "web.pem").write_bytes(chain(client, authority))
    assert b"PRIVATE" not in reference.read_bytes()
    server = server_context(tmp_path / "web.pem", reference, verify=True)
    theirs, _ = handshake(server, client_context(ca=authority.pem))
    assert theirs.version() == "TLSv1.3"


def test_a_uri_is_taken_like_a_key(daemon: Daemon, client: Client, authority: Authority) -> None:
    files = daemon.folder / "tls"
    for where in (
        client.endpoint.target,
        f"dns:///{daemon.endpoints['tcp']}&ca={files}/ca.pem&certificate={files}/client%2Epem&key={files}/client-key.pem",
    ):
        server = server_context(chain(client, authority), f"hsmsign:keys/ecdsa-p256?endpoint={where}&verify=yes")
        theirs, _ = handshake(server, client_context(ca=authority.pem))
        assert theirs.version() == "TLSv1.3"


@pytest.mark.parametrize(
    "query", ["", "?", "?ca=x", "?endpoint=", "?endpoint=unix:///x&endpoint=unix:///y", "?endpoint=%"]
)
def test_a_uri_that_names_nothing_is_refused(client: Client, authority: Authority, query: str) -> None:
    with pytest.raises(ConfigurationError, match="does not name a key"):
        server_context(chain(client, authority), f"hsmsign:keys/ecdsa-p256{query}")


def test_a_certificate_for_another_key_is_refused_when_it_is_loaded(
    client: Client, authority: Authority, tmp_path: Path
) -> None:
    other = chain(client, authority, "ecdsa-p384")
    with pytest.raises(ConfigurationError, match="not for keys/ecdsa-p256/versions/1"):
        server_context(other, client.key("ecdsa-p256"))
    for name in ("ecdsa-p256", "rsa-2048"):
        with pytest.raises(ConfigurationError, match=r"not for .*web\.ref: its public key is another"):
            server_context(other, write(client, tmp_path / "web.ref", name))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda pem: pem[:200],
        lambda pem: pem.replace(b"\nMI", b"\nMA"),
        lambda pem: b"-----BEGIN HSMSIGN KEY REFERENCE-----\nMAA=\n-----END HSMSIGN KEY REFERENCE-----\n",
        lambda pem: b"",
    ],
    ids=["cut", "altered", "empty sequence", "empty"],
)
def test_a_broken_reference_is_refused_with_words(
    client: Client, authority: Authority, tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    path = write(client, tmp_path / "web.ref")
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ConfigurationError, match=r"web\.ref cannot be used") as caught:
        server_context(chain(client, authority), path)
    if path.stat().st_size:
        assert "cut or altered" in caught.value.message


def test_a_client_that_knows_none_of_the_keys_algorithms_gets_an_alert(
    client: Client, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    with threaded_server(server_context(chain(client, authority), client.key("ecdsa-p256"))) as port:
        only = ["-sigalgs", "rsa_pss_rsae_sha256", "-connect", f"localhost:{port}"]
        done = subprocess.run(["openssl", "s_client", *only], stdin=-3, capture_output=True, timeout=20)
        assert b"alert handshake failure" in done.stderr
        assert greet(port, client_context(ca=authority.pem))[0] == b"hello"


def test_a_p384_key_serves_clients_that_would_rather_have_sha256(
    client: Client, authority: Authority, tmp_path: Path
) -> None:
    with threaded_server(server_context(chain(client, authority, "ecdsa-p384"), client.key("ecdsa-p384"))) as port:
        offer = ["-tls1_2", "-sigalgs", "ECDSA+SHA256:ECDSA+SHA384", "-connect", f"localhost:{port}"]
        done = subprocess.run(["openssl", "s_client", *offer], stdin=-3, capture_output=True, timeout=20)
        assert b"Peer signing digest: SHA384" in done.stdout


def test_certificate_and_key_are_rotated_under_load(client: Client, authority: Authority) -> None:
    client.create_key("keys/rotated", "ecdsa-p256")

    def context() -> ssl.SSLContext:
        key = client.key("rotated")
        return server_context(authority.certify(key, LOCALHOST), key)

    names = ServerNames([Host((), context)])
    ours = client_context(ca=authority.pem)
    seen: list[bytes] = []
    stop = threading.Event()

    def load(port: int) -> None:
        while not stop.is_set():
            said, certificate = greet(port, ours)
            assert said == b"hello"
            seen.append(public_of(certificate))

    with threaded_server(names.context) as port:
        threads = [threading.Thread(target=load, args=(port,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        eventually(lambda: len(seen) > 10)
        old = client.public_key_info("rotated").der
        client.rotate_key("rotated")
        new = client.public_key_info("rotated").der
        names.reload()
        count = len(seen)
        eventually(lambda: len(seen) > count + 10 or not any(thread.is_alive() for thread in threads))
        stop.set()
        for thread in threads:
            thread.join(20)
    assert set(seen) == {old, new}
    assert seen[-1] == new


async def test_a_context_of_one_loop_is_given_another_pair_under_load(client: Client, authority: Authority) -> None:
    client.create_key("keys/turned", "ecdsa-p256")
    context = server_context(chain(client, authority, "turned"), client.key("turned"))
    seen = []

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def ask(port: int) -> None:
        _, writer = await asyncio.open_connection("localhost", port, ssl=client_context(ca=authority.pem))
        seen.append(public_of(writer.get_extra_info("ssl_object").getpeercert(binary_form=True)))
        writer.close()

    server = await asyncio.start_server(answer, "localhost", 0, ssl=context)
    for turn in range(3):
        await asyncio.gather(*(ask(server.sockets[0].getsockname()[1]) for _ in range(8)))
        assert seen[-1] == client.public_key_info("turned").der
        if turn < 2:
            await asyncio.to_thread(client.rotate_key, "turned")
            use_key(context, chain(client, authority, "turned"), client.key("turned"))
    server.close()
    assert len(seen) == 24


def test_a_daemon_that_is_away_costs_handshakes_and_nothing_else(authority: Authority, tmp_path: Path) -> None:
    daemon = Daemon()
    daemon.start()
    try:
        with daemon.unix_client() as asking:
            asking.create_key("keys/web", "ecdsa-p256")
            pem = authority.certify(asking.key("web"), LOCALHOST)
            reference = write(asking, tmp_path / "web.ref", "web", deadline=1.0)
        with threaded_server(server_context(pem, reference)) as port:
            ours = client_context(ca=authority.pem)
            assert greet(port, ours)[0] == b"hello"
            daemon.stop()
            with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
                greet(port, ours)
            daemon.start()
            assert eventually(lambda: _greeted(port, ours)) == b"hello"
    finally:
        daemon.stop()
        daemon.remove()


def _greeted(port: int, context: ssl.SSLContext) -> bytes:
    try:
        return greet(port, context)[0]
    except ssl.SSLError:
        return b""


FORKING = """
import os, socket, ssl, sys
from hsmsign.tls import client_context, server_context

server, ours = server_context(sys.argv[1], sys.argv[2]), client_context(ca=sys.argv[3])

def shake():
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (ours.wrap_bio(down, up, server_hostname="localhost"), server.wrap_bio(up, down, server_side=True))
    for _ in range(4):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
    return sides[0].version()

children = []
for _ in range(3):
    child = os.fork()
    if not child:
        os._exit(0 if [shake() for _ in range(5)] == ["TLSv1.3"] * 5 else 1)
    children.append(child)
print([os.waitpid(child, 0)[1] for child in children], shake())
"""


def test_workers_that_are_forked_have_connections_of_their_own(
    client: Client, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    (tmp_path / "web.pem").write_bytes(chain(client, authority))
    files = [tmp_path / "web.pem", write(client, tmp_path / "web.ref"), tmp_path / "ca.pem"]
    done = subprocess.run([sys.executable, "-c", FORKING, *files], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[0, 0, 0] TLSv1.3\n", done.stderr


def test_what_a_context_held_is_let_go_with_it(client: Client, authority: Authority, tmp_path: Path) -> None:
    reference = write(client, tmp_path / "web.ref")
    gc.collect()
    before = len(provider._opened)
    context = server_context(chain(client, authority), reference)
    handshake(context, client_context(ca=authority.pem))
    assert len(provider._opened) == before + 1
    del context
    gc.collect()
    assert len(provider._opened) == before


def test_a_signature_by_another_key_is_found_where_it_is_asked_for(
    client: Client, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The daemon has another key by that name than when the reference was written."""
    client.create_key("keys/other", "ecdsa-p256")
    there = client.public_key_info("ecdsa-p256")
    for verify in (True, False):
        wrong = KeyReference.at(client.endpoint, "keys/other/versions/1", there.der, verify=verify)
        (tmp_path / "wrong.ref").write_bytes(wrong.to_pem())
        server = server_context(chain(client, authority), tmp_path / "wrong.ref")
        with pytest.raises(ssl.SSLError) as caught:
            handshake(server, client_context(ca=authority.pem))
        # checked, the client sees no signature at all; else it is the client who finds it to be bad
        assert ("BAD_SIGNATURE" in str(caught.value)) is not verify


def test_another_openssl_under_ssl_is_said() -> None:
    """As where `_ssl` is linked to an OpenSSL that nobody else sees: here it is a module without any."""
    words = "import _json\nfrom hsmsign.tls import provider\nprovider._ssl = _json\nprovider.load()"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, timeout=60)
    assert "CapabilityMissingError: Python's ssl has an OpenSSL of its own" in done.stderr


def test_hsmsign_so_in_openssl_cnf_reads_references_and_leaves_no_place_for_keys_of_a_client(
    daemon: Daemon, client: Client, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "openssl.cnf").write_text(examples.text("openssl"))
    (tmp_path / "web.pem").write_bytes(chain(client, authority))
    write(client, tmp_path / "web.ref")
    words = """
import hsmsign
from hsmsign.tls import client_context, server_context
from tests.support.tls_site import handshake
server = server_context("web.pem", "web.ref")
print(handshake(server, client_context(ca="ca.pem"))[0].version())
with hsmsign.connect() as client:
    server_context("web.pem", (client, "ecdsa-p256"))
"""
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    environment = {**os.environ, "HSMSIGN_CLIENT": str(daemon.folder / "client.toml"), "PYTHONPATH": str(ROOT)}
    environment["OPENSSL_CONF"] = str(tmp_path / "openssl.cnf")
    done = subprocess.run(
        [sys.executable, "-c", words], cwd=tmp_path, capture_output=True, text=True, timeout=60, env=environment
    )
    assert done.stdout == "TLSv1.3\n", done.stderr
    assert "CapabilityMissingError: openssl.cnf has loaded hsmsign.so into this process" in done.stderr


def test_ctrl_c_in_the_middle_of_a_signature_is_not_lost(
    client: Client, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = server_context(chain(client, authority), client.key("ecdsa-p256"))

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt  # what Python does in whichever function it is when SIGINT comes

    monkeypatch.setattr(type(client), "sign", interrupted)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        with suppress(ssl.SSLError):
            handshake(server, client_context(ca=authority.pem))
        time.sleep(1)  # it comes at the next step of Python, which may be in the handling of that error


def test_an_error_of_ours_fails_the_handshake_and_is_logged(
    client: Client, authority: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = server_context(chain(client, authority), client.key("ecdsa-p256"))

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(type(client), "sign", broken)
    with pytest.raises(ssl.SSLError):
        handshake(server, client_context(ca=authority.pem))
    assert "ZeroDivisionError" in caplog.text


def test_a_wrong_endpoint_is_found_when_it_is_loaded(client: Client, authority: Authority, tmp_path: Path) -> None:
    info = client.public_key_info("ecdsa-p256")
    (tmp_path / "web.ref").write_bytes(KeyReference(info.key_version, info.der, "dns:///localhost:7443").to_pem())
    with pytest.raises(ConfigurationError, match="no certificate was given"):
        server_context(chain(client, authority), tmp_path / "web.ref")


def test_files_that_are_not_there_are_named(client: Client, authority: Authority, tmp_path: Path) -> None:
    for chain_file, key in ((tmp_path / "nix", client.key("ecdsa-p256")), (chain(client, authority), tmp_path / "nix")):
        with pytest.raises(ConfigurationError, match=r"nix cannot be read: No such file"):
            server_context(chain_file, key)


def test_two_threads_may_load_contexts_at_once(client: Client, authority: Authority) -> None:
    pem, made = chain(client, authority), []

    def load() -> None:
        made.append(handshake(server_context(pem, client.key("ecdsa-p256")), client_context(ca=authority.pem)))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(made) == 8


def test_the_example_of_the_page_does_what_it_says(
    daemon: Daemon, client: Client, authority: Authority, tmp_path: Path
) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    for name in ("web", "caller"):
        client.create_key(name, "ecdsa-p256", purpose="tls-server" if name == "web" else "tls-client")
        (tmp_path / f"{name}.pem").write_bytes(authority.certify(client.key(name), LOCALHOST))
    shake = (
        "from tests.support.tls_site import handshake\n"
        + example
        + "    print(handshake(server, caller)[0].version())\n"
    )
    environment = {**os.environ, "HSMSIGN_CLIENT": str(daemon.folder / "client.toml"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", shake], cwd=tmp_path, capture_output=True, text=True, timeout=60, env=environment
    )
    assert done.stdout == "TLSv1.3\n", done.stderr

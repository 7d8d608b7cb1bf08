"""docs/tls.md, "Serving": its examples, run as they stand; the frameworks; and a daemon as the CA behind it."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import hsmsign.tls.uvicorn
from hsmsign.tls import server_context
from hsmsign.tls.asgi import RightsMiddleware
from hsmsign.tls.clients import check_client, require_clients
from hsmsign.tls.reading import parse
from hsmsign.tls.sni import Host, ServerNames
from hsmsign.tls.stapling import Stapler, from_daemon, from_file
from tests.support.daemon import Daemon, eventually
from tests.support.pki import fetch, make_csr, make_hierarchy, with_ca
from tests.support.tls_serving import Certificates, ask, s_client, serving
from tests.support.tls_site import handshake, running

PAGE = (Path(__file__).parents[2] / "docs" / "tls.md").read_text(encoding="utf-8")
SERVING = PAGE.partition("## Serving: names, staples, client certificates")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"^```python\n# (\S+)\n(.*?)^```", SERVING, re.MULTILINE | re.DOTALL)
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
GREEN = "spiffe://example.org/green"
PROFILES = """
[profiles.server]
names.dns = ["*.example.org"]
must_staple = true

[profiles.client]
names.uri = ["spiffe://example.org/**"]
"""


def free_port() -> int:
    with socket.create_server(("localhost", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.fixture
def files(tmp_path: Path) -> Certificates:
    made = Certificates(tmp_path)
    made.issue("shop", "shop.example.org", "*.shop.example.org")
    made.issue("bank", "bank.example.org")
    made.issue("default", "localhost")
    for name in ("green", "orange"):
        made.issue(name, f"uri:spiffe://example.org/{name}")
    (tmp_path / "shop.ocsp").write_bytes(made.answer(leaf(made, "shop")))
    revoke(made)
    return made


def leaf(files: Certificates, name: str) -> bytes:
    return files.chain(name).partition(files.authority.pem)[0]


def revoke(files: Certificates, *names: str) -> None:
    aside = files.folder / "new.crl"
    aside.write_bytes(files.authority.crl(*(leaf(files, one) for one in names)))
    aside.replace(files.folder / "clients.crl")


@pytest.fixture
def page(files: Certificates) -> Iterator[int]:
    """The server of the page, on a port."""
    for name, text in BLOCKS:
        (files.folder / name).write_text(text)
    port = free_port()
    with (files.folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "serve.py", str(port)], cwd=files.folder, stdout=log, stderr=log, env=ENVIRONMENT
        )

    def listens() -> bool:
        assert process.poll() is None, (files.folder / "serve.log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("localhost", port)) == 0

    try:
        eventually(listens)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def curl(files: Certificates, port: int, host: str, *words: str, who: str = "") -> tuple[int, str]:
    """Exit code and output."""
    command = ["curl", "-sS", "--max-time", "30", "--cacert", "ca.pem", "--resolve", f"*:{port}:127.0.0.1", *words]
    if who:
        command += ["--cert", f"{who}.pem", "--key", f"{who}.key"]
    done = subprocess.run(
        [*command, f"https://{host}:{port}/"],
        cwd=files.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("version", ["--tls-max=1.2", "--tlsv1.3"])
def test_curl_and_the_server_of_the_page(files: Certificates, page: int, version: str) -> None:
    words = version.split("=")
    assert curl(files, page, "shop.example.org", "--cert-status", *words) == (0, "hello, you\n")
    assert curl(files, page, "a.shop.example.org", "--cert-status", *words) == (0, "hello, you\n")
    assert curl(files, page, "bank.example.org", *words, who="green") == (0, f"hello, {GREEN}\n")
    assert curl(files, page, "bank.example.org", *words)[0] != 0
    code, said = curl(files, page, "other.example.org", *words)
    assert code == 35
    assert "unrecognized name" in said


def test_the_server_of_the_page_takes_up_new_files(files: Certificates, page: int) -> None:
    assert curl(files, page, "bank.example.org", who="orange")[0] == 0
    revoke(files, "orange")
    eventually(lambda: curl(files, page, "bank.example.org", who="orange")[0] != 0)
    assert curl(files, page, "bank.example.org", who="green")[0] == 0
    files.issue("shop", "shop.example.org", "*.shop.example.org")
    (files.folder / "shop.ocsp").write_bytes(files.answer(leaf(files, "shop")))
    # the answer for the old certificate is not sent with the new one, and the new one is
    eventually(lambda: curl(files, page, "shop.example.org", "--cert-status")[0] == 0)


def test_the_client_of_the_page_sees_the_staple(files: Certificates, page: int) -> None:
    done = subprocess.run(
        [sys.executable, "look.py", str(page)],
        cwd=files.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("good until ")


def names_of(files: Certificates) -> ServerNames:
    """One host for everybody, one for those who have a certificate."""
    bank, shop = files.server("bank"), files.server("shop")
    require_clients(bank, files.folder / "ca.pem", files.folder / "clients.crl")
    Stapler(shop, files.chain("shop"), from_file(files.folder / "shop.ocsp")).start()
    return ServerNames([Host(("bank.example.org",), bank), Host(("shop.example.org",), shop)])


def test_uvicorn_serves_the_names_and_knows_the_clients(files: Certificates) -> None:
    async def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.state.peer.name)

    port = free_port()
    app = Starlette(routes=[Route("/", answer)])
    rules = parse(f'[[rule]]\npeers = ["{GREEN}"]\nmethods = ["GET"]\n', "rights.toml")
    config = hsmsign.tls.uvicorn.Config(
        RightsMiddleware(app, rules), host="localhost", port=port, tls=names_of(files).context, log_level="warning"
    )
    server = uvicorn.Server(config)

    def stop() -> None:
        server.should_exit = True

    with running(server.run, stop):
        eventually(lambda: server.started)
        assert curl(files, port, "bank.example.org", who="green") == (0, GREEN)
        assert "orange may not" in curl(files, port, "bank.example.org", who="orange")[1]
        code, said = curl(files, port, "shop.example.org", "--cert-status", who="green")
        assert code == 0
        assert "did not prove who it is" in said  # nobody verified it there


async def test_aiohttp_serves_the_names(files: Certificates) -> None:
    web = pytest.importorskip("aiohttp.web")

    async def answer(request):  # type: ignore[no-untyped-def]
        peer = request.transport.get_extra_info("ssl_object").getpeercert()
        return web.Response(text=peer["subjectAltName"][0][1] if peer else "nobody")

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    try:
        await web.TCPSite(runner, "localhost", port, ssl_context=names_of(files).context).start()
        for host, who, said in (("bank", "green", GREEN), ("shop", "", "nobody")):
            found = await asyncio.to_thread(curl, files, port, f"{host}.example.org", who=who)
            assert found == (0, said)
    finally:
        await runner.cleanup()


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    port = free_port()
    running = with_ca(PROFILES, f"http://127.0.0.1:{port}", f"127.0.0.1:{port}")(Daemon()).start()
    with running.client() as client:
        make_hierarchy(client)
    yield running
    running.remove()


def test_a_daemons_certificates_are_stapled_by_its_responder(daemon: Daemon, tmp_path: Path) -> None:
    files = Certificates(tmp_path)
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "web.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with daemon.client() as client:
        made = client.ca.issue("issuing", make_csr("web.example.org", key=key), profile="server")
        (tmp_path / "web.pem").write_text(made.chain)
        (tmp_path / "root.pem").write_bytes(fetch(daemon, "/ca/root.pem").body)
        server = files.server("web")
        with Stapler(server, files.chain("web")) as stapler, serving(server) as port:
            health = stapler.health()
            assert (health.ok, health.stapled, health.must_staple, health.error) == (True, True, True, "")
            words = ("-status", "-servername", "web.example.org", "-CAfile", tmp_path / "root.pem")
            said = s_client(port, *words)
            assert "Cert Status: good" in said
            assert "Verify return code: 0 (ok)" in said
            other = Stapler(server, files.chain("web"), from_daemon(client))
            other._renew()
            assert other.health().stapled
            client.ca.revoke(made.serial, reason="keyCompromise")
            stapler._renew()
            assert "revoked" in stapler.health().error
            assert not stapler.health().ok
            assert "no response sent" in s_client(port, *words)


def test_a_daemons_clients_are_asked_about(daemon: Daemon, tmp_path: Path) -> None:
    files = Certificates(tmp_path)
    files.issue("web", "localhost")
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "green.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with daemon.client() as client:
        made = client.ca.issue("issuing", make_csr(f"uri:{GREEN}", key=key), profile="client")
        (tmp_path / "green.pem").write_text(made.chain)
        (tmp_path / "root.pem").write_bytes(fetch(daemon, "/ca/root.pem").body)
        server = files.server("web")
        require_clients(server, tmp_path / "root.pem")
        theirs, _ = handshake(server, files.client("green"))
        assert check_client(theirs, made.chain.encode()).next_update > dt.datetime.now(dt.UTC)
        client.ca.revoke(made.serial)
        with pytest.raises(Exception, match="revoked"):
            check_client(theirs, made.chain.encode())


def test_hosts_with_keys_on_a_device_staple_rotate_and_stand_beside_keys_in_files(
    daemon: Daemon, tmp_path: Path
) -> None:
    files = Certificates(tmp_path)
    files.issue("default", "localhost")
    made = []
    with daemon.unix_client() as client:

        def web() -> ssl.SSLContext:
            """A new key and certificate at each reload."""
            key = f"keys/web-{len(made) + 1}"
            client.create_key(key, "ecdsa-p256")
            made.append(
                client.ca.issue("issuing", profile="server", key=key, subject="", names=["dns:web.example.org"])
            )
            chain = made[-1].chain.encode()
            context = server_context(chain, (client, key))
            Stapler(context, chain, from_daemon(client)).start()  # or it raises: it must staple
            return context

        names = ServerNames([Host(("web.example.org",), web), Host((), lambda: files.server("default"))])
        root = files.folder / "root.pem"
        root.write_bytes(fetch(daemon, "/ca/root.pem").body)
        trusting = ssl.create_default_context(cafile=str(root))
        with serving(names.context) as port:
            first = ask(port, trusting, "web.example.org")
            assert ask(port, trusting, "web.example.org", first.session).words[0] == "resumed"
            assert ask(port, files.client(), "localhost").server == "default"
            names.reload()
            second = ask(port, trusting, "web.example.org")
            assert [first.serial, second.serial] == [one.certificate.serial_number for one in made]
            assert "Cert Status: good" in s_client(port, "-status", "-servername", "web.example.org", "-CAfile", root)

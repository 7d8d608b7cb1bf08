"""Many hosts behind one port: who is served by which, with which rules for clients, and which sessions go on."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import struct
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from hsmsign.model.errors import ConfigurationError
from hsmsign.tls.clients import require_clients
from hsmsign.tls.sni import Follower, Host, ServerNames
from hsmsign.tls.stapling import ask_for_staples, staple, staple_of
from tests.support.daemon import eventually
from tests.support.tls_serving import Certificates, ask, s_client, serving
from tests.support.tls_site import handshake

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
NAMES = {"shop": ("shop.example.org", "*.shop.example.org"), "bank": ("bank.example.org",), "web": ("*.example.org",)}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    made = Certificates(tmp_path_factory.mktemp("ca"))
    for name, hosts in NAMES.items():
        made.issue(name, *hosts)
    made.issue("default", "localhost")
    made.issue("green", "uri:spiffe://example.org/green")
    return made


def plain(files: Certificates, name: str) -> Callable[[], ssl.SSLContext]:
    return lambda: files.server(name)


def strict(files: Certificates, name: str, ca: Path | None = None) -> Callable[[], ssl.SSLContext]:
    """Wants clients of a CA."""

    def make() -> ssl.SSLContext:
        context = files.server(name)
        require_clients(context, ca or files.folder / "ca.pem")
        return context

    return make


def hosts(files: Certificates) -> list[Host]:
    return [
        *(Host(NAMES[name], plain(files, name)) for name in ("shop", "web")),
        Host(NAMES["bank"], strict(files, "bank")),
        Host((), plain(files, "default")),
    ]


def anyone(files: Certificates, name: str = "", newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """A client that looks at no names, so that it sees which certificate it gets."""
    context = files.client(name, newest)
    context.check_hostname = False
    return context


@pytest.mark.parametrize("newest", VERSIONS)
def test_each_name_has_its_certificate(files: Certificates, newest: ssl.TLSVersion) -> None:
    client = anyone(files, newest=newest)
    wanted = {
        "shop.example.org": "shop",
        "SHOP.example.org.": "shop",
        "a.shop.example.org": "shop",
        "a.example.org": "web",
        "a.b.example.org": "default",
        "other.org": "default",
        None: "default",
    }
    with serving(ServerNames(hosts(files)).context) as port:
        assert {name: ask(port, client, name).server for name in wanted} == wanted


@pytest.mark.parametrize("newest", VERSIONS)
def test_unknown_names_can_be_refused(files: Certificates, newest: ssl.TLSVersion) -> None:
    client = anyone(files, newest=newest)
    with serving(ServerNames(hosts(files), refuse_unknown=True).context) as port:
        assert ask(port, client, "a.example.org").server == "web"
        assert ask(port, client, None).server == "default"
        with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
            ask(port, client, "other.org")
    with serving(ServerNames(hosts(files)[:2]).context) as port:  # there is no default
        for name in ("other.org", None):
            with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
                ask(port, client, name)


def test_openssl_and_the_names(files: Certificates) -> None:
    ca = files.folder / "ca.pem"
    with serving(ServerNames(hosts(files), refuse_unknown=True).context) as port:
        said = s_client(port, "-servername", "shop.example.org", "-verify_hostname", "shop.example.org", "-CAfile", ca)
        assert "Verify return code: 0 (ok)" in said
        assert "subject=CN = shop" in said
        assert "unrecognized name" in s_client(port, "-servername", "other.org")
        assert "subject=CN = default" in s_client(port, "-noservername")


@pytest.mark.parametrize("newest", VERSIONS)
def test_each_name_has_its_own_rules_for_clients(files: Certificates, newest: ssl.TLSVersion) -> None:
    nobody, green = anyone(files, newest=newest), anyone(files, "green", newest)
    with serving(ServerNames(hosts(files)).context) as port:
        assert ask(port, green, "bank.example.org").words == ["new", "green", "CERT_REQUIRED"]
        assert ask(port, green, "shop.example.org").words == ["new", "nobody", "CERT_NONE"]
        with pytest.raises(OSError):
            ask(port, nobody, "bank.example.org")


@pytest.mark.parametrize("newest", VERSIONS)
@pytest.mark.parametrize("tickets", [True, False])
def test_a_session_goes_on_with_the_host_that_it_began_with(
    files: Certificates, newest: ssl.TLSVersion, tickets: bool
) -> None:
    def without(make: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        context = make()
        if not tickets:
            context.options |= ssl.OP_NO_TICKET
        return context

    made = [Host(NAMES["bank"], without(strict(files, "bank"))), Host(NAMES["shop"], without(plain(files, "shop")))]
    client = anyone(files, "green", newest)
    with serving(ServerNames(made).context) as port:
        for name, who in (
            ("bank.example.org", "green"),
            ("shop.example.org", "nobody"),
            ("a.shop.example.org", "nobody"),
        ):
            first = ask(port, client, name)
            assert first.words[:2] == ["new", who]
            assert first.session is not None
            if newest is ssl.TLSVersion.TLSv1_2:
                assert first.session.has_ticket is tickets
            assert ask(port, client, name, first.session).words[:2] == ["resumed", who]


@pytest.mark.parametrize("newest", VERSIONS)
def test_a_session_does_not_go_on_with_another_host(
    files: Certificates, newest: ssl.TLSVersion, tmp_path: Path
) -> None:
    other = Certificates(tmp_path, "other")
    other.issue("orange", "uri:spiffe://example.org/orange")
    made = [
        Host(NAMES["bank"], strict(files, "bank")),
        Host(NAMES["shop"], strict(files, "shop", tmp_path / "ca.pem")),
        Host(NAMES["web"], plain(files, "web")),
    ]
    client = anyone(files, newest=newest)
    client.load_cert_chain(tmp_path / "orange.pem", tmp_path / "orange.key")
    with serving(ServerNames(made).context) as port:
        shop = ask(port, client, "shop.example.org")
        assert shop.words == ["new", "orange", "CERT_REQUIRED"]
        # the very client that the bank would not take
        with pytest.raises(OSError):
            ask(port, client, "bank.example.org", shop.session)
        web = ask(port, client, "a.example.org")
        with pytest.raises(OSError):
            ask(port, client, "bank.example.org", web.session)
        assert ask(port, client, "a.example.org", shop.session).words == ["new", "nobody", "CERT_NONE"]
        assert ask(port, client, "shop.example.org", shop.session).words[0] in ("resumed", "new")


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_does_not_take_a_session_elsewhere(files: Certificates, version: str, tmp_path: Path) -> None:
    session = tmp_path / "session.pem"
    with serving(ServerNames(hosts(files)).context) as port:
        s_client(port, version, "-servername", "shop.example.org", "-sess_out", session)
        assert "resumed nobody" in s_client(port, version, "-servername", "shop.example.org", "-sess_in", session)
        assert "new nobody" in s_client(port, version, "-servername", "a.example.org", "-sess_in", session)
        said = s_client(port, version, "-servername", "bank.example.org", "-sess_in", session)
        assert "alert" in said
        assert "CERT_REQUIRED" not in said  # what it tells whom it serves


@pytest.mark.parametrize("newest", VERSIONS)
def test_sessions_outlive_a_new_certificate_but_not_new_rules(
    files: Certificates, newest: ssl.TLSVersion, tmp_path: Path
) -> None:
    other = Certificates(tmp_path, "other")
    names = ServerNames([Host(NAMES["bank"], strict(files, "bank"))])
    client = anyone(files, "green", newest)
    with serving(names.context) as port:
        first = ask(port, client, "bank.example.org")
        files.issue("bank", *NAMES["bank"])
        names.reload()
        assert ask(port, client, "bank.example.org", first.session).words == ["resumed", "green", "CERT_REQUIRED"]
        again = ask(port, client, "bank.example.org")
        assert again.serial != first.serial
        names.reload([Host(NAMES["bank"], strict(files, "bank", other.folder / "ca.pem"))])
        with pytest.raises(OSError):
            ask(port, client, "bank.example.org", again.session)


def test_a_mistake_in_the_new_table_leaves_the_old_one(files: Certificates) -> None:
    names = ServerNames(hosts(files))
    client = anyone(files)

    def breaks() -> ssl.SSLContext:
        raise FileNotFoundError("no such key")

    for wrong, error, words in (
        ([Host(("shop.example.org",), breaks)], FileNotFoundError, "no such key"),
        ([], ConfigurationError, "no hosts"),
        ([Host(("bank.example.org",), plain(files, "shop"))], ConfigurationError, "is not for bank.example.org"),
        ([*hosts(files), Host(("shop.example.org",), plain(files, "shop"))], ConfigurationError, "two hosts have"),
        ([*hosts(files), Host((), plain(files, "shop"))], ConfigurationError, "two hosts without names"),
        ([Host((), lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))], ConfigurationError, "no certificate"),
        ([Host((), files.client("green"))], ConfigurationError, "not for servers"),
        ([Host((), names.context)], ConfigurationError, "sni_callback"),
        ([Host(("sh*.example.org",), plain(files, "shop"))], ConfigurationError, "whole first label"),
    ):
        with pytest.raises(error, match=words):
            names.reload(wrong)
        with serving(names.context) as port:
            assert ask(port, client, "shop.example.org").server == "shop"


def test_a_connection_outlives_the_table_that_it_began_with(files: Certificates) -> None:
    names = ServerNames(hosts(files))
    theirs, ours = handshake(names.context, anyone(files))
    context = theirs.context
    names.reload([Host((), plain(files, "web"))])
    del names
    gc.collect()
    assert theirs.context is context
    theirs.write(b"still here")
    assert ours.read() == b"still here"


def test_certificates_and_keys_rotate_under_load(files: Certificates) -> None:
    names = ServerNames(hosts(files))
    over, problems, served = threading.Event(), [], []

    def load(port: int) -> None:
        client = anyone(files)
        while not over.is_set() and not problems:
            try:
                served.append(ask(port, client, "shop.example.org").serial)
            except OSError as error:
                problems.append(error)

    with serving(names.context) as port:
        threads = [threading.Thread(target=load, args=(port,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(5):
                files.issue("shop", *NAMES["shop"])
                names.reload()
                made = x509.load_pem_x509_certificate(files.chain("shop")).serial_number
                assert ask(port, anyone(files), "shop.example.org").serial == made
        finally:
            over.set()
            for thread in threads:
                thread.join()
    assert not problems
    assert served


def test_files_that_change_are_followed(files: Certificates) -> None:
    made = []

    def make() -> ssl.SSLContext:
        made.append(files.server("web"))
        return made[-1]

    names = ServerNames([Host(NAMES["web"], make)])
    client = anyone(files)
    follower = Follower(names, [files.folder / "web.pem", files.folder / "web.key"], look_every=0.02)
    try:
        with serving(names.context) as port:
            before = ask(port, client, "a.example.org").serial
            (files.folder / "web.key").write_bytes((files.folder / "shop.key").read_bytes())
            eventually(lambda: "KEY_VALUES_MISMATCH" in follower.error)  # a key of another certificate
            assert ask(port, client, "a.example.org").serial == before
            files.issue("web", *NAMES["web"])
            eventually(lambda: ask(port, client, "a.example.org").serial != before)
            eventually(lambda: follower.error == "")
            count = len(made)
            for _ in range(20):
                ask(port, client, "a.example.org")
            assert len(made) == count  # nothing has changed since
    finally:
        follower.stop()


def test_each_host_has_its_own_versions_options_protocols_and_staple(files: Certificates) -> None:
    old, new = files.server("shop"), files.server("web")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.set_alpn_protocols(["http/1.1"])
    new.minimum_version = ssl.TLSVersion.TLSv1_3
    new.set_alpn_protocols(["h2"])
    pem = files.chain("web").partition(files.authority.pem)[0]
    answer = files.answer(pem)
    staple(new, answer, files.chain("web"))
    names = ServerNames([Host(NAMES["shop"], old), Host(NAMES["web"], new)])
    client = anyone(files)
    client.set_alpn_protocols(["h2", "http/1.1"])
    ask_for_staples(client)
    with serving(names.context) as port:
        shop, web = (connect(port, client, name) for name in ("shop.example.org", "a.example.org"))
        assert (shop.version(), shop.selected_alpn_protocol(), staple_of(shop)) == ("TLSv1.2", "http/1.1", None)
        assert (web.version(), web.selected_alpn_protocol(), staple_of(web)) == ("TLSv1.3", "h2", answer)
        shop.close()
        web.close()
        with pytest.raises(ssl.SSLError):
            connect(port, anyone(files, newest=ssl.TLSVersion.TLSv1_2), "a.example.org")


def test_a_host_may_give_no_tickets(files: Certificates) -> None:
    quiet = files.server("web")
    quiet.num_tickets = 0
    client = anyone(files)
    with serving(ServerNames([Host(NAMES["web"], quiet), Host((), plain(files, "default"))]).context) as port:
        web, default = ask(port, client, "a.example.org").session, ask(port, client, None).session
        assert default is not None
        assert default.has_ticket
        assert web is None or not web.has_ticket


def connect(port: int, client: ssl.SSLContext, name: str) -> ssl.SSLSocket:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as plain_socket:
        return client.wrap_socket(plain_socket, server_hostname=name)


def test_a_second_hello_is_served_by_the_same_host(files: Certificates) -> None:
    names = ServerNames(hosts(files))
    names.context.set_ecdh_curve("secp384r1")
    with serving(names.context) as port:
        said = s_client(port, "-tls1_3", "-groups", "X25519:P-384", "-servername", "bank.example.org", "-msg")
        assert said.count("ClientHello") == 2
        assert "subject=CN = bank" in said
        assert "CERT_REQUIRED" not in said  # it has no certificate, and so is told nothing
        words = ("-cert", files.folder / "green.pem", "-key", files.folder / "green.key")
        said = s_client(port, "-tls1_3", "-groups", "X25519:P-384", "-servername", "bank.example.org", *words)
        assert "new green CERT_REQUIRED" in said


async def test_asyncio_serves_the_names(files: Certificates) -> None:
    names = ServerNames(hosts(files))

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("ssl_object")
        writer.write(f"{connection.context.verify_mode.name} {bool(connection.getpeercert())}".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(tell, "127.0.0.1", 0, ssl=names.context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        for name, said in (("bank.example.org", b"CERT_REQUIRED True"), ("a.example.org", b"CERT_NONE False")):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=files.client("green"), server_hostname=name
            )
            assert await reader.read() == said
            writer.close()


def hello(names: bytes) -> bytes:
    """A ClientHello of TLS 1.2 whose server_name extension has these bytes."""
    extension = struct.pack(">HH", 0, len(names)) + names
    body = b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\xc0\x2b" + b"\x01\x00"
    body += struct.pack(">H", len(extension)) + extension
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + struct.pack(">H", len(message)) + message


@pytest.mark.parametrize(
    "names",
    [
        b"", b"\x00", b"\x00\x00", b"\x00\x03\x00\x00\x00", b"\x00\x04\x00\x00\x05a", b"\xff\xff\x00\x00\x01a",
        b"\x00\x04\x01\x00\x01a", b"\x00\x04\x00\x00\x01", b"\x00\x05\x00\x00\x01aX", b"\x00\x05\x00\x00\x02a\x00",
    ],
)  # fmt: skip
def test_names_that_are_none_end_the_handshake_and_nothing_else(files: Certificates, names: bytes) -> None:
    served = ServerNames(hosts(files), refuse_unknown=True)
    with serving(served.context) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(hello(names))
            answer = connection.recv(4096)
            assert answer[0] == 0x15  # an alert
        assert ask(port, anyone(files), "a.example.org").server == "web"


def test_nothing_is_left_behind(files: Certificates) -> None:
    made = []

    def make() -> ssl.SSLContext:
        context = files.server("default")
        made.append(weakref.ref(context))
        return context

    names = ServerNames([Host((), make)])
    for _ in range(3):
        handshake(names.context, files.client())
        names.reload()
    gc.collect()
    assert [one() is None for one in made] == [True, True, True, False]
    made.append(weakref.ref(names.context))
    del names
    gc.collect()
    assert all(one() is None for one in made)


def test_a_hello_that_fails_decides_nothing_for_another_connection(files: Certificates) -> None:
    bank = strict(files, "bank")()
    bank.minimum_version = ssl.TLSVersion.TLSv1_3
    names = ServerNames([Host(NAMES["bank"], bank), Host(NAMES["shop"], plain(files, "shop"))])
    names.context.set_ecdh_curve("secp384r1")  # so that the client has to say hello again
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = names.context.wrap_bio(up, down, server_side=True)
    ours = anyone(files).wrap_bio(down, up, server_hostname="shop.example.org")

    def step(side: ssl.SSLObject) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()

    step(ours)
    step(theirs)
    shop = theirs.context
    with pytest.raises(ssl.SSLError):
        handshake_as(names.context, anyone(files, newest=ssl.TLSVersion.TLSv1_2), "bank.example.org")
    for side in (ours, theirs, ours, theirs):
        step(side)
    assert theirs.version() == "TLSv1.3"
    assert theirs.context is shop
    served = x509.load_der_x509_certificate(ours.getpeercert(binary_form=True) or b"")
    assert served.subject.rfc4514_string() == "CN=shop"


def handshake_as(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = server.wrap_bio(up, down, server_side=True)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.wrap_bio(down, up, server_hostname=name).do_handshake()
    theirs.do_handshake()

"""Daemons that lie, are others, or do not let nginx in: what its clients get to see of that, and its log."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from hsmsign.client import TlsFiles, connect
from hsmsign.client.configuration import Endpoint
from hsmsign.model.errors import DeviceError
from tests.support import fake_server
from tests.support.authority import Authority
from tests.support.daemon import Daemon, eventually
from tests.support.programs import VERSIONS, Pair, Place, ask, nginx, nginx_test

NAME = "keys/k/versions/1"
POLICY = """
[[allow]]
principals = ["spiffe://site/web"]
actions = ["sign"]
keys = ["web"]
"""
MARK = b"bytes that no handshake has"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


Home = tuple[str, fake_server.State]


@pytest.fixture
def liar(tmp_path: Path) -> Iterator[Home]:
    """A daemon of which everything can be had, with one key."""
    target = f"unix://{tmp_path}/d.sock"
    server, state, _ = fake_server.serve(target)
    with connect(target) as client:
        client.create_key("k", "ecdsa-p256")
    yield target, state
    server.stop(0).wait()


def pair(target: str, place: Place, *, verify: bool) -> Pair:
    with connect(target) as client:
        return place.pair(client, "k", verify=verify, deadline=2.0)


def received(place: Place, port: int, version: str = "1.2") -> tuple[bytes, str]:
    """All that the server sent, and how the handshake ended; in TLS 1.2 the signature is there for all to read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(place.ca)
    context.minimum_version = context.maximum_version = VERSIONS[version]
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    everything = b""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as raw:
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                raw.sendall(outgoing.read())
            except ssl.SSLError as error:
                return everything, str(error.reason)
            else:
                return everything, "done"
            if not (chunk := raw.recv(65536)):
                return everything, "closed"
            everything += chunk
            incoming.write(chunk)


class Answering:
    """A key that "signs" whatever it likes."""

    key_size = 256

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def sign(self, *_: object) -> bytes:
        return self._answer


def another_key(_: object) -> object:
    return ec.generate_private_key(ec.SECP256R1())


def a_mark(_: object) -> object:
    return Answering(MARK)


def a_mark_in_der(_: object) -> object:
    return Answering(bytes([0x30, len(MARK) + 5, 0x02, len(MARK), *MARK, 0x02, 1, 1]))


@pytest.mark.parametrize("lie", [another_key, a_mark, a_mark_in_der])
def test_with_verify_no_false_signature_reaches_a_client(
    liar: Home, place: Place, lie: Callable[[object], object]
) -> None:
    target, state = liar
    honest = state.private[NAME]
    with nginx(place, pair(target, place, verify=True)) as server:
        assert ask(place, server.port)[1].startswith("TLSv1.3")
        state.private[NAME] = lie(honest)
        for version in VERSIONS:
            everything, end = received(place, server.port, version)
            assert end == "TLSV1_ALERT_INTERNAL_ERROR"
            assert MARK not in everything
        server.logged("what the daemon sent is no signature by the key of the reference")
        state.private[NAME] = honest
        assert ask(place, server.port)[1].startswith("TLSv1.3")


def test_without_verify_it_is_the_client_that_finds_out(liar: Home, place: Place) -> None:
    target, state = liar
    with nginx(place, pair(target, place, verify=False)) as server:
        state.private[NAME] = Answering(MARK)
        everything, end = received(place, server.port)
        assert end == "BAD_SIGNATURE"
        assert MARK in everything


@pytest.mark.parametrize("size", [73, 1000, 100_000])
def test_a_signature_that_is_too_long_is_refused_in_any_case(liar: Home, place: Place, size: int) -> None:
    target, state = liar
    with nginx(place, pair(target, place, verify=False)) as server:
        state.private[NAME] = Answering(MARK * size)
        everything, end = received(place, server.port)
        assert end == "TLSV1_ALERT_INTERNAL_ERROR"
        assert MARK not in everything


def test_words_of_the_daemon_are_for_the_log_alone(liar: Home, place: Place) -> None:
    target, state = liar
    with nginx(place, pair(target, place, verify=False)) as server:
        state.fail_next.append(DeviceError(f"{MARK.decode()}\n\x1b[31mforged line"))
        everything, end = received(place, server.port)
        assert end == "TLSV1_ALERT_INTERNAL_ERROR"
        assert MARK not in everything
        server.logged(MARK.decode())
        assert "\x1b" not in server.log()
        assert not any(line.startswith("forged") for line in server.log().splitlines())


def test_another_daemon_at_the_same_socket_is_not_believed(tmp_path: Path, place: Place) -> None:
    target = f"unix://{tmp_path}/d.sock"
    first, state, _ = fake_server.serve(target)
    with connect(target) as client:
        client.create_key("k", "ecdsa-p256")
    own = state.private[NAME]
    with nginx(place, pair(target, place, verify=True)) as server:
        assert ask(place, server.port)[1].startswith("TLSv1.3")
        first.stop(0).wait()
        second, state, _ = fake_server.serve(target)
        with connect(target) as client:
            client.create_key("k", "ecdsa-p256")
        assert received(place, server.port)[1] == "TLSV1_ALERT_INTERNAL_ERROR"
        state.private[NAME] = own
        assert ask(place, server.port)[1].startswith("TLSv1.3")
        second.stop(0).wait()


@pytest.fixture(scope="module")
def home() -> Iterator[Daemon]:
    daemon = Daemon()
    policy = daemon.folder / "policy.toml"
    policy.write_text(policy.read_text() + POLICY)
    daemon.start()
    with daemon.unix_client() as client:
        client.create_key("web", "ecdsa-p256")
    yield daemon
    daemon.remove()


def over_tls(home: Daemon, place: Place, files: TlsFiles) -> Pair:
    with home.unix_client() as client:
        endpoint = Endpoint(f"dns:///{home.endpoints['tcp']}", files)
        return place.pair(client, "web", endpoint=endpoint, deadline=2.0)


def test_it_reaches_the_daemon_over_mutual_tls(home: Daemon, place: Place) -> None:
    with nginx(place, over_tls(home, place, home.tls)) as server:
        for version in VERSIONS:
            assert ask(place, server.port, version)[1].startswith(f"TLSv{version}")


def test_a_daemon_of_another_ca_gets_nothing_to_sign(home: Daemon, place: Place) -> None:
    files = TlsFiles(place.ca, home.tls.certificate, home.tls.key)
    with nginx(place, over_tls(home, place, files)) as server:
        assert "alert internal error" in place.s_client(server.port, "-tls1_3")
        server.logged("is not accepted")


def of(home: Daemon, place: Place, name: str) -> TlsFiles:
    """A client certificate that the daemon accepts, for a program of this name."""
    issuer, tls = Authority("hsmsign bootstrap CA"), home.folder / "tls"
    issuer.adopt((tls / "ca.pem").read_bytes(), (tls / "ca-key.pem").read_bytes())
    key, certificate = issuer.issue(x509.UniformResourceIdentifier(f"spiffe://site/{name}"))
    (place.folder / "client.key").write_bytes(key)
    (place.folder / "client.pem").write_bytes(certificate)
    return TlsFiles(home.tls.ca, place.folder / "client.pem", place.folder / "client.key")


def test_the_right_to_sign_is_enough(home: Daemon, place: Place) -> None:
    with nginx(place, over_tls(home, place, of(home, place, "web"))) as server:
        for version in VERSIONS:
            assert ask(place, server.port, version)[1].startswith(f"TLSv{version}")


def test_who_may_not_sign_is_told_so_in_the_log(home: Daemon, place: Place) -> None:
    with nginx(place, over_tls(home, place, of(home, place, "stranger"))) as server:
        assert "alert internal error" in place.s_client(server.port, "-tls1_3")
        server.logged("spiffe://site/stranger may not sign")


@pytest.mark.needs_root
@pytest.mark.skipif(os.geteuid() != 0, reason="nginx changes its user as root alone")
def test_a_socket_that_the_workers_may_not_use_is_told_so_in_the_log(home: Daemon, place: Place) -> None:
    with home.unix_client() as client:
        made = place.pair(client, "web", deadline=2.0)
    with nginx(place, made, user="nobody nogroup") as server:
        assert "alert internal error" in place.s_client(server.port, "-tls1_3")
        server.logged("this user may not connect to")


def test_a_reference_is_loaded_while_the_daemon_is_away(home: Daemon, place: Place) -> None:
    with home.unix_client() as client:
        made = place.pair(client, "web", endpoint=Endpoint(f"unix://{place.folder}/none.sock"))
    done = nginx_test(place, made)
    assert done.returncode == 0, done.stderr.decode()


def test_a_worker_that_was_killed_is_replaced_by_one_that_signs(home: Daemon, place: Place) -> None:
    with home.unix_client() as client:
        made = place.pair(client, "web")
    with nginx(place, made) as server:
        old = {int(ask(place, server.port)[1].split()[1]) for _ in range(3)}
        for pid in old:
            os.kill(pid, 9)

        def served_by_a_new_one() -> bool:
            with contextlib.suppress(OSError):
                return int(ask(place, server.port)[1].split()[1]) not in old
            return False

        eventually(served_by_a_new_one)

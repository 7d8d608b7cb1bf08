"""nginx with its keys on a device: handshakes, rotation, and what goes wrong between it and the daemon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hsmsign.tls import module
from tests.support.daemon import Daemon, eventually
from tests.support.programs import Load, Pair, Place, ask, nginx, nginx_test, stopped

KEYS = {
    "p256": ("ecdsa-p256", "any"),
    "p384": ("ecdsa-p384", "any"),
    "rsa": ("rsa-2048", "any"),
    "ed25519": ("ed25519", "any"),
    "bound": ("ecdsa-p256", "tls-server"),
    "bound-rsa": ("rsa-2048", "tls-server"),
}
VERSIONS = ["1.2", "1.3"]


@pytest.fixture(scope="module")
def home() -> Iterator[Daemon]:
    module.built()
    daemon = Daemon().start()
    with daemon.unix_client() as client:
        for name, (algorithm, purpose) in KEYS.items():
            client.create_key(name, algorithm, purpose=purpose)
    yield daemon
    daemon.remove()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def pair(home: Daemon, place: Place, name: str, **options: object) -> Pair:
    with home.unix_client() as client:
        return place.pair(client, name, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", list(KEYS))
def test_it_serves_both_versions_of_tls(home: Daemon, place: Place, name: str) -> None:
    with nginx(place, pair(home, place, name)) as server:
        for version in VERSIONS:
            _, said = ask(place, server.port, version)
            assert said.startswith(f"TLSv{version} ")


def test_all_workers_sign(home: Daemon, place: Place) -> None:
    with nginx(place, pair(home, place, "p256")) as server, Load(place, server.port, threads=6) as load:
        load.until(lambda: len({said.split()[1] for _, said in load.seen}) == 3)
    assert load.failures == []


def test_the_file_of_the_key_holds_no_secret(home: Daemon, place: Place) -> None:
    made = pair(home, place, "p256")
    assert b"PRIVATE" not in made.reference.read_bytes()
    said = place.good("openssl", "asn1parse", "-in", made.reference).decode()
    kinds = [line.split("prim:")[-1].split("cons:")[-1].split()[0] for line in said.splitlines()]
    # version, name, public key, endpoint, deadline, verify: and nothing else
    assert kinds == ["SEQUENCE", "INTEGER", "UTF8STRING", "OCTET", "UTF8STRING", "INTEGER", "BOOLEAN"]
    assert "UTF8STRING        :keys/p256/versions/1" in said
    with home.unix_client() as client:
        assert client.public_key_info("keys/p256").der.hex().upper() in said


@pytest.mark.parametrize("purpose", ["any", "tls-server"])
def test_a_rotated_key_is_taken_up_by_a_reload_without_a_failed_request(
    home: Daemon, place: Place, purpose: str
) -> None:
    name = f"turning-{purpose}"
    with home.unix_client() as client:
        client.create_key(name, "ecdsa-p256", purpose=purpose)
        made = place.pair(client, name)
        with nginx(place, made) as server, Load(place, server.port) as load:
            load.more(10)
            before = load.seen[-1][0]
            client.rotate_key(f"keys/{name}")
            place.pair(client, name)
            load.more(5)
            assert {certificate for certificate, _ in load.seen} == {before}
            server.reload()
            client.disable_version(f"keys/{name}/versions/1")  # nobody minds
            load.more(10)
            assert load.seen[-1][0] != before
        assert load.failures == []
        assert "hsmsign" not in server.log()


def test_a_p384_key_serves_a_client_that_would_rather_have_sha256(home: Daemon, place: Place) -> None:
    with nginx(place, pair(home, place, "p384")) as server:
        said = place.s_client(server.port, "-tls1_2", "-sigalgs", "ECDSA+SHA256:ECDSA+SHA384")
        assert "Peer signing digest: SHA384" in said
        assert "Verify return code: 0 (ok)" in said


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("p256", ("-tls1_3", "-sigalgs", "RSA-PSS+SHA256")),
        ("p256", ("-tls1_2", "-sigalgs", "RSA+SHA256")),
        ("p384", ("-tls1_2", "-sigalgs", "ECDSA+SHA256")),
        ("rsa", ("-tls1_3", "-sigalgs", "ECDSA+SHA256")),
        ("ed25519", ("-tls1_3", "-sigalgs", "ECDSA+SHA256")),
    ],
)
def test_a_client_that_takes_no_signature_of_the_key_gets_an_alert(
    home: Daemon, place: Place, name: str, options: tuple[str, ...]
) -> None:
    with nginx(place, pair(home, place, name)) as server:
        assert "alert handshake failure" in place.s_client(server.port, *options)
        assert ask(place, server.port)[1].startswith("TLSv1.3")


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_handshakes_wait_while_the_daemon_restarts(home: Daemon, place: Place, how: str) -> None:
    with nginx(place, pair(home, place, "p256", deadline=40.0)) as server, Load(place, server.port) as load:
        load.more(10)
        if how == "SIGTERM":
            home.stop()
        else:
            for process in home.family():
                process.kill()
            assert home.process is not None
            home.process.wait()
        home.start()
        load.more(10)
    assert load.failures == []


@pytest.mark.parametrize("version", VERSIONS)
def test_a_daemon_that_is_away_is_an_alert_within_the_deadline(home: Daemon, place: Place, version: str) -> None:
    option = f"-tls{version.replace('.', '_')}"
    with nginx(place, pair(home, place, "p256", deadline=0.5)) as server:
        home.stop()
        said = place.s_client(server.port, option)
        home.start()
        assert "alert internal error" in said
        server.logged("does it run?")
        eventually(lambda: "Verify return code: 0 (ok)" in place.s_client(server.port, option))


def test_a_daemon_that_hangs_is_an_alert_within_the_deadline(home: Daemon, place: Place) -> None:
    with nginx(place, pair(home, place, "p256", deadline=0.5)) as server:
        with stopped(home.pid("worker")):
            said = place.s_client(server.port, "-tls1_3")
        assert "alert internal error" in said
        server.logged("within 500 ms; give more time, or see how the daemon is")
        eventually(lambda: "Verify return code: 0 (ok)" in place.s_client(server.port, "-tls1_3"))


def test_a_key_may_be_chosen_by_the_name_that_the_client_asks_for(home: Daemon, place: Place) -> None:
    made = pair(home, place, "p256", file="localhost")
    by_name = Pair(made.certificate.with_stem("$ssl_server_name"), made.reference.with_stem("$ssl_server_name"))
    with nginx(place, by_name) as server:
        for version in VERSIONS:
            assert ask(place, server.port, version)[1].startswith(f"TLSv{version} ")


def cut(pem: bytes) -> bytes:
    return pem[: len(pem) // 2]


def altered(pem: bytes) -> bytes:
    lines = pem.splitlines(keepends=True)
    return b"".join([lines[0], *lines[2:]])


@pytest.mark.parametrize("how", [cut, altered])
def test_a_broken_reference_is_refused_at_load_in_words(home: Daemon, place: Place, how) -> None:
    made = pair(home, place, "p256")
    made.reference.write_bytes(how(made.reference.read_bytes()))
    done = nginx_test(place, made)
    assert done.returncode == 1
    assert "is cut or altered; write it again: hsmsign key reference NAME" in done.stderr.decode()


@pytest.mark.parametrize("other", ["bound", "p384"])
def test_a_reference_to_another_key_than_the_certificates_is_refused_at_load(
    home: Daemon, place: Place, other: str
) -> None:
    wrong = Pair(pair(home, place, "p256").certificate, pair(home, place, other).reference)
    done = nginx_test(place, wrong)
    assert done.returncode == 1
    assert "key values mismatch" in done.stderr.decode()


def test_a_reference_to_another_kind_of_key_is_an_alert_and_the_server_lives(home: Daemon, place: Place) -> None:
    # nginx does not notice that at load, as with keys in files
    wrong = Pair(pair(home, place, "p256").certificate, pair(home, place, "rsa").reference)
    with nginx(place, wrong) as server:
        for option in ("-tls1_2", "-tls1_3", "-tls1_3"):
            assert "alert handshake failure" in place.s_client(server.port, option)

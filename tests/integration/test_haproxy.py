"""HAProxy with its keys on a device: in one file with the certificate, or beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, eventually
from tests.support.programs import Load, Pair, Place, ask, haproxy, program, stopped

KEYS = {"p256": "ecdsa-p256", "p384": "ecdsa-p384", "rsa": "rsa-2048", "ed25519": "ed25519"}


@pytest.fixture(scope="module")
def home() -> Iterator[Daemon]:
    daemon = Daemon().start()
    with daemon.unix_client() as client:
        for name, algorithm in KEYS.items():
            client.create_key(name, algorithm)
        client.create_key("bound", "ecdsa-p256", purpose="tls-server")
    yield daemon
    daemon.remove()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def pair(home: Daemon, place: Place, name: str, deadline: float = 5.0) -> Pair:
    with home.unix_client() as client:
        return place.pair(client, name, deadline=deadline)


def together(made: Pair) -> Path:
    file = made.certificate.with_name("site.pem")
    file.write_bytes(made.certificate.read_bytes() + made.reference.read_bytes())
    return file


def beside(made: Pair) -> Path:
    file = made.certificate.with_name("site.pem")
    file.write_bytes(made.certificate.read_bytes())
    file.with_name("site.pem.key").write_bytes(made.reference.read_bytes())
    return file


@pytest.mark.parametrize("name", [*KEYS, "bound"])
def test_it_serves_both_versions_of_tls(home: Daemon, place: Place, name: str) -> None:
    with haproxy(place, together(pair(home, place, name))) as server:
        for version in ("1.2", "1.3"):
            assert ask(place, server.port, version)[1].startswith(f"TLSv{version} ")


@pytest.mark.parametrize("lay", [together, beside])
def test_the_reference_may_stand_with_the_certificate_or_beside_it(
    home: Daemon, place: Place, lay: Callable[[Pair], Path]
) -> None:
    with haproxy(place, lay(pair(home, place, "p256"))) as server:
        assert ask(place, server.port)[1].startswith("TLSv1.3 ")


def test_a_rotated_key_is_taken_up_by_a_reload_without_a_failed_request(home: Daemon, place: Place) -> None:
    with home.unix_client() as client:
        client.create_key("turning", "ecdsa-p256")
        together(place.pair(client, "turning"))
        with haproxy(place, place.folder / "site.pem") as server, Load(place, server.port) as load:
            load.more(10)
            before = load.seen[-1][0]
            client.rotate_key("keys/turning")
            together(place.pair(client, "turning"))
            server.reload()
            client.disable_version("keys/turning/versions/1")
            load.more(10)
            assert load.seen[-1][0] != before
        assert load.failures == []


def test_handshakes_wait_while_the_daemon_restarts(home: Daemon, place: Place) -> None:
    with haproxy(place, together(pair(home, place, "p256", 40.0))) as server, Load(place, server.port) as load:
        load.more(10)
        home.stop()
        home.start()
        load.more(10)
    assert load.failures == []


def test_a_daemon_that_hangs_is_an_alert_within_the_deadline(home: Daemon, place: Place) -> None:
    with haproxy(place, together(pair(home, place, "p256", 0.5))) as server:
        with stopped(home.pid("worker")):
            assert "alert internal error" in place.s_client(server.port, "-tls1_3")
        eventually(lambda: "Verify return code: 0 (ok)" in place.s_client(server.port, "-tls1_3"))


def test_a_cut_reference_is_refused_at_load(home: Daemon, place: Place) -> None:
    made = pair(home, place, "p256")
    made.reference.write_bytes(made.reference.read_bytes()[:100])
    configuration = place.folder / "haproxy.cfg"
    configuration.write_text(f"frontend https\n    bind 127.0.0.1:1 ssl crt {together(made)}\n")
    done = place.run(program("haproxy"), "-c", "-f", configuration)
    assert done.returncode == 1
    assert b"No Private Key found" in done.stderr

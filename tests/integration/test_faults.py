"""What goes wrong in the world, and what a caller sees of it: through gRPC, with everything real."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from hsmsign.model.algorithms import Scheme
from hsmsign.model.errors import (
    AlgorithmMismatchError,
    BackendNotFoundError,
    DigestLengthError,
    HsmsignError,
    KeyExistsError,
    KeyNotFoundError,
    MessageSizeError,
    PinRefusedError,
    ResourceNameError,
    TokenNotPresentError,
    UnavailableError,
    VersionStateError,
)
from hsmsign.softhsm.provision import find_module
from tests.support.daemon import Daemon, eventually, hsmsign
from tests.support.softhsm import calls


def objects_on_token(daemon: Daemon) -> list[str]:
    """Private keys on the token by label and id, as another process sees them."""
    code = (
        "import sys, pkcs11\n"
        "token = pkcs11.lib(sys.argv[1]).get_token(token_label='hsmsign')\n"
        "with token.open(user_pin=sys.stdin.read().strip()) as session:\n"
        "    for key in session.get_objects({pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY}):\n"
        "        print(key.label, key.id.hex())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(find_module())],
        input=(daemon.folder / "softhsm" / "pin").read_text(),
        env={**os.environ, "SOFTHSM2_CONF": str(daemon.folder / "softhsm" / "softhsm2.conf")},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_bad_requests_get_their_own_errors(shared_daemon: Daemon) -> None:
    with shared_daemon.client() as client:
        name = f"keys/k{uuid.uuid4().hex[:8]}"
        client.create_key(name, algorithm="ecdsa-p256")
        with pytest.raises(KeyNotFoundError):
            client.sign("keys/nobody", digest=bytes(32))
        with pytest.raises(ResourceNameError):
            client.create_key("keys/No_Such?Name", algorithm="ecdsa-p256")
        with pytest.raises(KeyExistsError):
            client.create_key(name, algorithm="ecdsa-p256")
        with pytest.raises(BackendNotFoundError):
            client.create_key("keys/elsewhere", algorithm="ecdsa-p256", backend="nowhere")
        with pytest.raises(DigestLengthError):
            client.sign(name, digest=bytes(31))
        with pytest.raises(MessageSizeError):
            client.sign(name, message=b"")
        with pytest.raises(MessageSizeError):
            client.sign(name, message=bytes((1 << 20) + 1))
        with pytest.raises(AlgorithmMismatchError):
            client.sign(name, digest=bytes(48), scheme=Scheme.ECDSA_P384_SHA384)
        client.disable_version(f"{name}/versions/1")
        with pytest.raises(VersionStateError):
            client.sign(name, digest=bytes(32))


def test_one_bad_item_does_not_spoil_the_others(shared_daemon: Daemon) -> None:
    with shared_daemon.client() as client:
        name = f"keys/k{uuid.uuid4().hex[:8]}"
        client.create_key(name, algorithm="ecdsa-p256")
        batch = client.sign_batch(name, [bytes(32), bytes(5), bytes(32)])
        assert list(batch.errors) == [1]
        assert isinstance(batch.errors[1], DigestLengthError)
        assert isinstance(batch[0], bytes)
        assert isinstance(batch[2], bytes)


def test_a_caller_without_a_certificate_gets_nowhere(shared_daemon: Daemon) -> None:
    ca = (shared_daemon.folder / "tls" / "ca.pem").read_bytes()
    with grpc.secure_channel(shared_daemon.endpoints["tcp"], grpc.ssl_channel_credentials(ca)) as channel:
        call = channel.unary_unary("/hsmsign.v1.KeyService/ListKeys")
        with pytest.raises(grpc.RpcError) as refused:
            call(b"", timeout=10)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_stranger_who_talks_no_protocol_disturbs_nobody(shared_daemon: Daemon) -> None:
    host, _, port = shared_daemon.endpoints["tcp"].rpartition(":")
    for _ in range(20):
        with socket.create_connection((host, int(port))) as tcp, socket.socket(socket.AF_UNIX) as unix:
            tcp.sendall(os.urandom(300))
            unix.connect(shared_daemon.endpoints["unix"])
            unix.sendall(os.urandom(300))
    with shared_daemon.client() as client, shared_daemon.unix_client() as over_unix:
        assert client.backends()[0].state == "ready"
        assert over_unix.backends()[0].state == "ready"


def test_a_wrong_pin_is_tried_once_and_the_daemon_stays_up(tmp_path: Path, new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon()
    log = daemon.with_faults(tmp_path).log("C_Login")
    pin_file = daemon.folder / "softhsm" / "pin"
    right = pin_file.read_text()
    pin_file.write_text("not-the-pin")
    daemon.start()
    with daemon.client() as client:
        eventually(lambda: client.backends()[0].state == "pin-refused")
        assert client.health("backends/softhsm").name == "NOT_SERVING"
        with pytest.raises(PinRefusedError):
            client.create_key("keys/never", algorithm="ecdsa-p256")
        killed = daemon.kill("host")
        eventually(lambda: daemon.pid("host") != killed)
        eventually(lambda: client.backends()[0].state == "pin-refused")
        # killed at once, while it is only starting: the next one must still not try
        for _ in range(3):
            killed = daemon.kill("host")
            eventually(lambda: daemon.pid("host") != killed)  # noqa: B023 - called in this turn
        eventually(lambda: client.backends()[0].state == "pin-refused")
        assert calls(log) == 1
        pin_file.write_text(right)
        daemon.kill("supervisor", signal.SIGHUP)
        eventually(lambda: client.backends()[0].state == "ready")
        assert calls(log) == 2
        client.create_key("keys/now", algorithm="ecdsa-p256")
    assert "not-the-pin" not in daemon.log()


@pytest.mark.parametrize("module", ["/no/such/module.so", "/etc/passwd", "/lib/x86_64-linux-gnu/libc.so.6"])
def test_a_module_that_is_none_leaves_the_daemon_up_and_says_so(module: str, new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon()
    real = next(line.split('"')[1] for line in daemon.config.read_text().splitlines() if line.startswith("module"))
    daemon.configure(lambda text: text.replace(f'module = "{real}"', f'module = "{module}"'))
    daemon.start()
    with daemon.client() as client:
        eventually(lambda: client.backends()[0].state == "broken")
        assert module in client.backends()[0].message
        with pytest.raises(UnavailableError):
            client.create_key("keys/never", algorithm="ecdsa-p256")


def test_a_token_that_is_missing_is_said_and_found_when_it_comes(new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon()
    tokens, away = daemon.folder / "softhsm" / "tokens", daemon.folder / "away"
    tokens.rename(away)
    tokens.mkdir(mode=0o700)
    daemon.start()
    with daemon.client() as client:
        eventually(lambda: client.backends()[0].state == "token-not-present")
        with pytest.raises(TokenNotPresentError):
            client.create_key("keys/not-yet", algorithm="ecdsa-p256")
        for folder in away.iterdir():
            folder.rename(tokens / folder.name)
        eventually(lambda: client.backends()[0].state == "ready")
        client.create_key("keys/now", algorithm="ecdsa-p256")


def test_a_daemon_killed_while_it_makes_keys_loses_none_and_leaves_no_empty_handle(daemon: Daemon) -> None:
    made: set[str] = set()

    def make(number: int) -> None:
        with daemon.client(deadline=5) as client:
            for turn in range(50):
                name = f"keys/k{number}-{turn}"
                try:
                    client.create_key(name, algorithm="ecdsa-p256")
                except HsmsignError:
                    return
                made.add(name)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(3)]
    family = daemon.family()
    for thread in threads:
        thread.start()
    eventually(lambda: len(made) > 6)
    for process in family:
        process.kill()
    assert daemon.process is not None
    daemon.process.wait()
    for thread in threads:
        thread.join()
    daemon.start()
    with daemon.client() as client:
        eventually(lambda: client.backends()[0].state == "ready")
        client.create_key("keys/after", algorithm="ecdsa-p256")  # comes after the mending
        names = {key.name for key in client.list_keys()}
        assert made <= names
        for name in names:
            client.sign(name, digest=bytes(32))
        # each handle has its object, and each object its handle, also where SoftHSM was killed half-way
        wanted = sorted(f"{name}/versions/1" for name in names)
        eventually(lambda: sorted(line.split(" ")[0] for line in objects_on_token(daemon)) == wanted)


def test_a_pair_that_was_made_when_the_daemon_was_killed_is_taken_away(
    tmp_path: Path, new_daemon: Callable[..., Daemon]
) -> None:
    daemon = new_daemon()
    faults = daemon.with_faults(tmp_path)
    log = faults.log("C_GenerateKeyPair")
    daemon.start()
    with daemon.client(deadline=20) as client:
        client.create_key("keys/before", algorithm="ecdsa-p256")
        # the pair is on the token, and the daemon never learns of it
        faults.set(f"C_GenerateKeyPair log={log}", "C_GetAttributeValue hang")

        def make() -> None:
            with contextlib.suppress(HsmsignError):
                client.create_key("keys/k", algorithm="ecdsa-p256")

        making = threading.Thread(target=make)
        making.start()
        eventually(lambda: calls(log) == 2)
        eventually(lambda: len(list((daemon.folder / "softhsm" / "tokens").rglob("*.object"))) >= 5)
        for process in daemon.family():
            process.kill()
        making.join()
    assert daemon.process is not None
    daemon.process.wait()
    faults.set()
    daemon.start()
    with daemon.client() as client:
        eventually(lambda: client.backends()[0].state == "ready")
        client.create_key("keys/after", algorithm="ecdsa-p256")  # comes after the mending
        assert {key.name for key in client.list_keys()} == {"keys/before", "keys/after"}
        # what SoftHSM had only begun to write is taken away at the second look after a start
        wanted = ["keys/after/versions/1", "keys/before/versions/1"]
        eventually(lambda: sorted(line.split(" ")[0] for line in objects_on_token(daemon)) == wanted)


def test_serve_names_what_is_wrong_with_its_configuration(tmp_path: Path) -> None:
    config = tmp_path / "hsmsign.toml"
    config.write_text('[server]\nlisten = "127.0.0.1:0"\nlimit = 3\n[backends.a]\nkind = "softhsm"\n')
    done = hsmsign("serve", "--config", config)
    assert done.returncode == 78
    assert "unknown key 'server.limit'" in done.stderr
    assert "backends.a.module" in done.stderr
    assert "Traceback" not in done.stderr

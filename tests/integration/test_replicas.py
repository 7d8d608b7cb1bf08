"""One key on two tokens of a real daemon: one of them dies under load, in every way that a token can."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from hsmsign.client import Client
from hsmsign.softhsm.provision import find_module
from tests.support.daemon import Daemon, eventually, hsmsign
from tests.support.softhsm import Faults, calls

DIGEST = hashlib.sha256(b"hello").digest()
DEADLINE = 4.0
"""Seconds: less than a silent host or a hanging call (5) has before its host is replaced."""


class Pair:
    """A daemon with a token and its clone, as a vendor's tool would make one; faults are made on the first."""

    def __init__(self, daemon: Daemon, folder: Path) -> None:
        self.daemon = daemon
        self.faults: Faults = daemon.with_faults(folder)
        daemon.start()
        with daemon.client() as client:
            client.create_key("web", "ecdsa-p256")
            client.create_key("other", "ed25519")
            client.create_key("unwanted", "ecdsa-p256")
        daemon.stop()
        self.token = next(daemon.folder.rglob("token.object")).parents[1]
        shutil.copytree(self.token, daemon.folder / "clone")
        text = daemon.config.read_text()
        block = text[text.index("[backends.softhsm]") :].partition("\n[")[0]
        block = block.replace("[backends.softhsm]", "[backends.clone]").replace(
            str(self.faults.module), str(find_module())
        )
        lines = [line for line in block.splitlines() if not line.startswith(("token_dir", "default"))]
        lines.append(f'token_dir = "{daemon.folder / "clone"}"')
        daemon.configure(
            lambda text: (
                text.replace("[backends.softhsm]", "[backends.softhsm]\ndefault = true", 1)
                + "\n"
                + "\n".join(lines)
                + "\n"
            )
        )
        daemon.start()

    def host(self) -> int:
        return int(self.daemon.endpoints["pids"]["hosts"]["softhsm"])

    def cli(self, *words: str) -> tuple[int, str]:
        done = hsmsign(*words, environment={"HSMSIGN_CLIENT": str(self.daemon.folder / "client.toml")})
        return done.returncode, done.stdout + done.stderr


def edit(text: str) -> str:
    text = text.replace('[metrics]\nlisten = ""', '[metrics]\nlisten = "127.0.0.1:0"')
    return text.replace("hang_after = 10 ", "hang_after = 5 ")


@pytest.fixture
def new_pair(tmp_path: Path, new_daemon: Callable[..., Daemon]) -> Pair:
    """A pair of the test's own, without any replica yet."""
    return Pair(new_daemon(edit=edit), tmp_path)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A pair for tests that leave it healthy; its key "web" has a replica."""
    daemon = Daemon(edit=edit)
    made = Pair(daemon, tmp_path_factory.mktemp("pair"))
    with daemon.client() as client:
        client.add_replica("web", "clone")
    yield made
    daemon.remove()


class Load:
    """Callers that sign all the time; whatever goes wrong is kept."""

    def __init__(self, daemon: Daemon) -> None:
        self.wrong: list[BaseException] = []
        self.done = 0
        self._stop = threading.Event()
        self._lock = threading.Lock()
        with daemon.client() as client:
            self._public = client.public_key("web")
        self._threads = [threading.Thread(target=self._sign, args=(daemon, size)) for size in (1, 1, 16, 64)]

    def _sign(self, daemon: Daemon, size: int) -> None:
        digests = [hashlib.sha256(bytes([number])).digest() for number in range(size)]
        with daemon.client(deadline=DEADLINE) as client:
            while not self._stop.is_set():
                try:
                    self._once(client, digests)
                except BaseException as error:  # noqa: BLE001 - it is looked at in the end
                    self.wrong.append(error)
                    return

    def _once(self, client: Client, digests: list[bytes]) -> None:
        signatures = client.sign_batch("web", digests).signatures()
        assert isinstance(self._public, ec.EllipticCurvePublicKey)
        self._public.verify(signatures[0], digests[0], ec.ECDSA(utils.Prehashed(hashes.SHA256())))
        with self._lock:
            self.done += 1

    def more(self, number: int) -> None:
        """Wait until that many calls more were answered."""
        wanted = self.done + number
        eventually(lambda: self.done >= wanted or self.wrong)
        assert not self.wrong, self.wrong

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def hang(pair: Pair) -> Callable[[], None]:
    before = pair.host()
    pair.faults.set("C_Sign hang")

    def mend() -> None:
        pair.faults.set()
        replaced(pair, before)

    return mend


def replaced(pair: Pair, before: int) -> None:
    """Wait until the supervisor has put another host in the place of that one."""
    eventually(lambda: pair.host() != before, pair.daemon.log())


def stop(pair: Pair) -> Callable[[], None]:
    return signalled(pair, signal.SIGSTOP)


def kill(pair: Pair) -> Callable[[], None]:
    return signalled(pair, signal.SIGKILL)


def signalled(pair: Pair, number: int) -> Callable[[], None]:
    before = pair.host()
    os.kill(before, number)
    return lambda: replaced(pair, before)


def crash(pair: Pair) -> Callable[[], None]:
    pair.faults.set("C_Sign crash")
    return pair.faults.set


def answer(code: str) -> Callable[[Pair], Callable[[], None]]:
    def fail(pair: Pair) -> Callable[[], None]:
        pair.faults.set(f"C_Sign rv={code}", f"C_SignInit rv={code}")
        return pair.faults.set

    return fail


@pytest.mark.parametrize(
    "die",
    [
        pytest.param(hang, id="hanging call"),
        pytest.param(stop, id="silent host"),
        pytest.param(kill, id="killed host"),
        pytest.param(crash, id="crash inside the module"),
        pytest.param(answer("CKR_DEVICE_ERROR"), id="CKR_DEVICE_ERROR"),
        pytest.param(answer("CKR_DEVICE_REMOVED"), id="CKR_DEVICE_REMOVED"),
        pytest.param(answer("CKR_TOKEN_NOT_PRESENT"), id="CKR_TOKEN_NOT_PRESENT"),
        pytest.param(answer("CKR_KEY_HANDLE_INVALID"), id="CKR_KEY_HANDLE_INVALID"),
        pytest.param(answer("CKR_SESSION_HANDLE_INVALID"), id="CKR_SESSION_HANDLE_INVALID"),
        pytest.param(answer("CKR_FUNCTION_FAILED"), id="CKR_FUNCTION_FAILED"),
    ],
)
def test_no_call_fails_when_one_of_two_tokens_dies(pair: Pair, die: Callable[[Pair], Callable[[], None]]) -> None:
    with Load(pair.daemon) as load:
        load.more(50)
        mend = die(pair)
        load.more(200)
        mend()
        load.more(50)
        eventually(lambda: "ready" in states(pair)["softhsm"], pair.daemon.log())
        load.more(50)
    assert not load.wrong


def states(pair: Pair) -> dict[str, str]:
    with contextlib.closing(pair.daemon.client()) as client:
        return {one.name.removeprefix("backends/"): one.state for one in client.backends()}


def moved(pair: Pair) -> float:
    """How many signatures another token had to make, says the daemon."""
    found = re.search(
        r'^hsmsign_signatures_moved_total\{backend="softhsm"\} (.+)$', pair.daemon.http("/metrics")[1], re.M
    )
    return float(found[1]) if found else 0.0


def test_signatures_that_moved_are_counted(pair: Pair) -> None:
    before = moved(pair)
    with pair.daemon.client() as client:
        pair.faults.set("C_Sign rv=CKR_FUNCTION_FAILED")
        assert len(client.sign_batch("web", [DIGEST] * 3).signatures()) == 3
        pair.faults.set()
    eventually(lambda: moved(pair) == before + 3)


def test_replicas_on_the_command_line(new_pair: Pair) -> None:
    code, said = new_pair.cli("replica", "add", "--all", "--backend", "clone")
    assert (code, said.splitlines()[-1]) == (0, "3 versions have a copy there, 0 have none")
    assert "keys/web/versions/1: added" in said
    code, said = new_pair.cli("replica", "add", "web", "--backend", "clone", "--json")
    assert (code, json.loads(said)) == (
        0,
        [{"version": "keys/web/versions/1", "outcome": "there already", "error": ""}],
    )
    code, said = new_pair.cli("key", "show", "web")
    assert "replica on clone since" in said
    code, said = new_pair.cli("replica", "list", "web")
    assert "pkcs11:" in said
    new_pair.cli("key", "rotate", "web")
    code, said = new_pair.cli("replica", "add", "web", "--backend", "clone")
    assert code == 1
    assert "keys/web/versions/2: not on that token" in said
    assert new_pair.cli("replica", "remove", "web/versions/1", "--backend", "clone")[0] == 0
    assert "no replicas" in new_pair.cli("replica", "list", "web")[1]
    code, said = new_pair.cli("replica", "add", "web/versions/9", "--backend", "clone")
    assert (code, "does not exist" in said) == (1, True)


def test_destroying_a_key_leaves_nothing_of_it_on_either_token(pair: Pair) -> None:
    with pair.daemon.client() as client:
        client.add_replica("unwanted", "clone")
        log = pair.faults.log("C_DestroyObject")
        objects = len(list((pair.daemon.folder / "clone").rglob("*.object")))
        client.destroy_key("unwanted")
        assert calls(log) == 2
    assert len(list((pair.daemon.folder / "clone").rglob("*.object"))) == objects - 2

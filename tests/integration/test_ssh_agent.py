"""`hsmsign ssh-agent` under OpenSSH's own programs, and git."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hsmsign.ssh import wire
from tests.support.daemon import Daemon, eventually

DOCS = Path(__file__).parents[2] / "docs" / "ssh.md"
SSHD = "/usr/sbin/sshd"
KINDS = ["ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "ed25519", "rsa-2048"]


class Place:
    """A daemon with a key of each kind, and a folder to work in."""

    def __init__(self, daemon: Daemon, folder: Path) -> None:
        self.daemon = daemon
        self.folder = folder
        (folder / "client.toml").write_text(f'endpoint = "unix://{daemon.endpoints["unix"]}"\n')
        (folder / "bin").mkdir()
        (folder / "bin" / "hsmsign").symlink_to(Path(sys.executable).parent / "hsmsign")
        with daemon.unix_client() as client:
            for kind in KINDS:
                client.create_key(kind, kind, labels={"for": "ssh"})
                self.run("hsmsign", "key", "public", kind, "--format", "ssh", "--out", folder / f"{kind}.pub")

    def environment(self, **more: str) -> dict[str, str]:
        """Of a person who has this client file."""
        own = {name: value for name, value in os.environ.items() if name != "SSH_AUTH_SOCK"}
        names = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.org"}
        names |= {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.org", "HOME": str(self.folder)}
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return {**own, **names, "PATH": path, "HSMSIGN_CLIENT": str(self.folder / "client.toml"), **more}

    def run(
        self, *words: str | Path, stdin: bytes = b"", more: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        done = subprocess.run(
            list(map(str, words)),
            input=stdin,
            capture_output=True,
            check=False,
            cwd=self.folder,
            env=self.environment(**(more or {})),
            timeout=60,
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    @contextlib.contextmanager
    def agent(self, *options: str | Path) -> Iterator[Agent]:
        """An agent that runs."""
        with tempfile.TemporaryDirectory(prefix="hsmsign-agent-") as folder:
            path, log = Path(folder) / "socket", Path(folder) / "log"
            with log.open("wb") as file:
                process = subprocess.Popen(
                    ["hsmsign", "ssh-agent", "--socket", str(path), *map(str, options)],
                    stdout=subprocess.PIPE,
                    stderr=file,
                    env=self.environment(),
                    executable=self.folder / "bin" / "hsmsign",
                )
            try:
                eventually(lambda: path.exists() or process.poll() is not None, "no socket")
                assert process.poll() is None, log.read_text()
                yield Agent(path, process, log)
            finally:
                process.terminate()
                process.wait(20)


class Agent:
    """Where it is, and what it said."""

    def __init__(self, path: Path, process: subprocess.Popen[bytes], log: Path) -> None:
        self.path = path
        self.process = process
        self._log = log

    @property
    def variable(self) -> dict[str, str]:
        """For programs that are to use it."""
        return {"SSH_AUTH_SOCK": str(self.path)}

    def log(self) -> str:
        """What it wrote."""
        return self._log.read_text()

    def ask(self, message: bytes) -> bytes:
        """One message, and its answer."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(str(self.path))
            client.sendall(wire.string(message))
            file = client.makefile("rb")
            return file.read(wire.length(file.read(4)))

    def sends(self, data: bytes) -> bytes:
        """Bytes, as they are, and then nothing more; all that comes back."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(str(self.path))
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            return client.makefile("rb").read()


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    daemon = Daemon().start()
    with tempfile.TemporaryDirectory(prefix="hsmsign-ssh-") as folder:
        yield Place(daemon, Path(folder))
    daemon.remove()


@pytest.fixture(scope="module")
def agent(place: Place) -> Iterator[Agent]:
    with place.agent() as running:
        yield running


def test_ssh_add_lists_the_keys_as_the_command_line_prints_them(place: Place, agent: Agent) -> None:
    listed = place.run("ssh-add", "-L", more=agent.variable).stdout.splitlines()
    assert sorted(listed) == sorted((place.folder / f"{kind}.pub").read_text().strip() for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_ssh_keygen_signs_with_each_kind_of_key_and_verifies(place: Place, agent: Agent, kind: str) -> None:
    public = place.folder / f"{kind}.pub"
    signed = place.run("ssh-keygen", "-Y", "sign", "-n", "file", "-f", public, stdin=b"words", more=agent.variable)
    assert signed.returncode == 0, signed.stderr
    (place.folder / "signature").write_text(signed.stdout)
    (place.folder / "allowed").write_text("a@example.org " + public.read_text())
    checked = place.run(
        *("ssh-keygen", "-Y", "verify", "-n", "file", "-f", "allowed", "-I", "a@example.org", "-s", "signature"),
        stdin=b"words",
    )
    assert checked.returncode == 0, checked.stdout
    assert f"by keys/{kind}/versions/1" in agent.log()


def test_git_signs_a_commit_and_shows_that_it_is_good(place: Place, agent: Agent) -> None:
    public = place.folder / "ed25519.pub"
    (place.folder / "allowed-git").write_text("a@example.org " + public.read_text())
    settings = {"gpg.format": "ssh", "user.signingkey": public, "gpg.ssh.allowedSignersFile": "../allowed-git"}
    assert place.run("git", "init", "-q", "repository").returncode == 0
    for name, value in settings.items():
        place.run("git", "-C", "repository", "config", name, value)
    made = place.run("git", "-C", "repository", "commit", "-S", "--allow-empty", "-m", "x", more=agent.variable)
    assert made.returncode == 0, made.stderr
    assert (
        'Good "git" signature for a@example.org'
        in place.run("git", "-C", "repository", "log", "--show-signature").stdout
    )


@contextlib.contextmanager
def sshd(place: Place, *lines: str) -> Iterator[int]:
    """A real server on a port of the loopback."""
    if not shutil.which(SSHD):
        pytest.skip("sshd is missing: apt-get install openssh-server")
    with tempfile.TemporaryDirectory(prefix="hsmsign-sshd-") as name:
        folder = Path(name)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "host"], check=True)
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        config = [f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {folder}/host", "PidFile none", *lines]
        config += ["StrictModes no", "UsePAM no", "PasswordAuthentication no", "KbdInteractiveAuthentication no"]
        (folder / "config").write_text("\n".join([*config, "PermitRootLogin yes", ""]))
        log = folder / "log"
        server = subprocess.Popen([SSHD, "-D", "-f", str(folder / "config"), "-E", str(log)])
        try:
            eventually(lambda: "Server listening" in (log.read_text() if log.exists() else ""), "sshd does not listen")
            yield port
        finally:
            server.terminate()
            server.wait(20)


def login(place: Place, agent: Agent, port: int, *options: str) -> subprocess.CompletedProcess[str]:
    words = ["ssh", "-F", "none", "-p", str(port), "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes"]
    words += ["-o", "UserKnownHostsFile=/dev/null", *options, f"{getpass.getuser()}@127.0.0.1", "echo in"]
    return place.run(*words, more=agent.variable)


@pytest.mark.parametrize("kind", KINDS)
def test_ssh_logs_in_with_a_device_key(place: Place, agent: Agent, kind: str) -> None:
    with sshd(place, f"AuthorizedKeysFile {place.folder}/{kind}.pub") as port:
        done = login(place, agent, port)
    assert done.stdout == "in\n", done.stderr


def test_ssh_logs_in_with_a_certificate_for_a_device_key(place: Place) -> None:
    place.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "ca")
    place.run("ssh-keygen", "-q", "-s", "ca", "-I", "me", "-n", getpass.getuser(), "ecdsa-p384.pub")
    certificate = place.folder / "ecdsa-p384-cert.pub"
    with (
        place.agent("--key", "ecdsa-p384", "--certificate", certificate) as agent,
        sshd(place, f"TrustedUserCAKeys {place.folder}/ca.pub", "AuthorizedKeysFile none") as port,
    ):
        done = login(place, agent, port)
    assert done.stdout == "in\n", done.stderr
    wrong = place.run("hsmsign", "ssh-agent", "--socket", "s", "--key", "ed25519", "--certificate", certificate)
    assert wrong.returncode == 78
    assert "is for none of the keys that the agent offers" in wrong.stderr


def test_a_signature_with_sha1_is_refused(place: Place, agent: Agent) -> None:
    blob = _blob(place, "rsa-2048")
    ask = bytes([wire.Number.SIGN_REQUEST]) + wire.string(blob) + wire.string(b"words")
    assert agent.ask(ask + bytes(4)) == wire.failure()
    assert agent.ask(ask + b"\0\0\0\2")[0] == wire.Number.SIGN_RESPONSE
    assert "SHA-1, which is not offered" in agent.log()


def _blob(place: Place, kind: str) -> bytes:
    import base64

    return base64.b64decode((place.folder / f"{kind}.pub").read_text().split()[1])


@pytest.mark.parametrize("words", [["-D"], ["-x"], ["-d", "ed25519.pub"], ["ca"]])
def test_adding_removing_and_locking_are_refused(place: Place, agent: Agent, words: list[str]) -> None:
    if not (place.folder / "ca").exists():
        place.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "ca")
    helper = place.folder / "askpass"
    helper.write_text("#!/bin/sh\necho password\n")
    helper.chmod(0o700)
    asked = {"SSH_ASKPASS": str(helper), "SSH_ASKPASS_REQUIRE": "force"}
    assert place.run("ssh-add", *words, more={**agent.variable, **asked}).returncode != 0
    assert len(place.run("ssh-add", "-L", more=agent.variable).stdout.splitlines()) == len(KINDS)


@pytest.mark.parametrize(
    "data", [b"\0", b"\0\0\0\0", b"\xff\xff\xff\xff", b"GET / HTTP/1.0\r\n\r\n", b"\0\4\0\1" + b"\x0b" * 99]
)
def test_hostile_bytes_end_their_own_connection_only(place: Place, agent: Agent, data: bytes) -> None:
    assert agent.sends(data) == b""
    assert agent.ask(b"\x0b")[0] == wire.Number.IDENTITIES_ANSWER


def test_many_clients_are_served_at_once(place: Place, agent: Agent) -> None:
    ask = b"\x0d" + wire.string(_blob(place, "ecdsa-p256")) + wire.string(b"words") + bytes(4)
    together = threading.Barrier(50)

    def one(_: int) -> int:
        together.wait()
        return agent.ask(ask)[0]

    with ThreadPoolExecutor(50) as pool:
        assert set(pool.map(one, range(50))) == {wire.Number.SIGN_RESPONSE}


def test_the_daemon_may_go_and_come_back(new_daemon) -> None:
    daemon = new_daemon().start()
    with tempfile.TemporaryDirectory(prefix="hsmsign-ssh-") as folder:
        own = Place(daemon, Path(folder))
        with own.agent("--timeout", "2") as agent:
            ask = b"\x0d" + wire.string(_blob(own, "ecdsa-p256")) + wire.string(b"words") + bytes(4)
            assert agent.ask(ask)[0] == wire.Number.SIGN_RESPONSE
            daemon.stop()
            assert agent.ask(ask) == wire.failure()
            assert own.run("ssh-add", "-L", more=agent.variable).returncode != 0
            daemon.start()
            eventually(lambda: agent.ask(ask)[0] == wire.Number.SIGN_RESPONSE, "it did not come back")


def test_a_folder_that_others_may_enter_is_refused(place: Place) -> None:
    (place.folder / "open").mkdir(mode=0o755)
    done = place.run("hsmsign", "ssh-agent", "--socket", "open/socket")
    assert done.returncode == 78
    assert "others may enter" in done.stderr


def test_the_socket_is_its_users_alone_and_goes_with_the_agent(place: Place) -> None:
    with place.agent("--label", "for=ssh") as agent:
        assert agent.path.stat().st_mode & 0o777 == 0o600
        again = place.run("hsmsign", "ssh-agent", "--socket", agent.path)
        assert "is another agent there?" in again.stderr
        agent.process.send_signal(signal.SIGTERM)
        assert agent.process.wait(20) == 0
        assert not agent.path.exists()
        said = agent.process.stdout.read().decode()  # type: ignore[union-attr]
        assert said == f"SSH_AUTH_SOCK={agent.path}; export SSH_AUTH_SOCK;\n"


@pytest.mark.needs_root
@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_another_user_is_not_answered(place: Place, agent: Agent) -> None:
    code = (
        "import os, socket, sys\n"
        "client = socket.socket(socket.AF_UNIX)\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "client.connect(sys.argv[1])\n"
        "try:\n    client.sendall(b'\\0\\0\\0\\1\\x0b'); answer = client.recv(1)\n"
        "except ConnectionError:\n    answer = b''\n"
        "sys.exit(1 if answer else 0)\n"
    )
    agent.path.parent.chmod(0o711)
    agent.path.chmod(0o666)
    try:
        done = subprocess.run([sys.executable, "-c", code, str(agent.path)], check=False, timeout=30)
        assert done.returncode == 0
    finally:
        agent.path.chmod(0o600)
        agent.path.parent.chmod(0o700)
    assert "uid 65534 is not the agent's own" in agent.log()


def test_a_command_has_the_agent_and_its_exit_code_is_ours(place: Place) -> None:
    (place.folder / "own").mkdir(mode=0o700, exist_ok=True)
    words = ["hsmsign", "ssh-agent", "--socket", "own/socket", "--key", "ed25519", "--"]
    assert "keys/ed25519/versions/1" in place.run(*words, "ssh-add", "-L").stdout
    assert place.run(*words, "sh", "-c", "exit 7").returncode == 7
    assert "cannot run no-such-program" in place.run(*words, "no-such-program").stderr


def test_the_commands_of_the_documentation_run(place: Place) -> None:
    folder = place.folder / "docs"
    folder.mkdir()
    script = "\n".join(re.findall(r"```sh\n(.*?)```", DOCS.read_text(), re.DOTALL))
    done = place.run("sh", "-ec", f"cd {folder}\n{script}")
    assert done.returncode == 0, done.stderr
    assert (folder / "login.pub").read_text().strip() in done.stdout
    assert "BEGIN SSH SIGNATURE" in (folder / "login.sig").read_text()
    assert (
        "gpgsig -----BEGIN SSH SIGNATURE" in place.run("git", "-C", folder / "project", "cat-file", "-p", "HEAD").stdout
    )

"""A real daemon for tests: `hsmsign init` and `hsmsign serve` in a folder of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import psutil

from hsmsign.client import Client, TlsFiles, connect
from hsmsign.softhsm.provision import find_module
from tests.support.softhsm import Faults, build_fault_module

T = TypeVar("T")
PATIENCE = 40.0
"""Seconds until a test gives up waiting for something that should happen soon."""


def eventually(what: Callable[[], T], why: str = "it did not happen") -> T:
    """The first true answer of `what`; fails when it takes too long."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        answer = what()
        if answer:
            return answer
        time.sleep(0.02)
    raise AssertionError(why)


def hsmsign(*words: str | Path, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "hsmsign", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
        timeout=120,
    )


class Daemon:
    """A folder set up by `init`, and a daemon that runs on it between `start` and `stop`."""

    def __init__(
        self,
        *,
        edit: Callable[[str], str] = lambda text: text,
        options: tuple[str, ...] = (),
        checkpoint_seconds: float = 0,
    ) -> None:
        """Without `checkpoint_seconds` the daemon makes no key of its own: tests count keys."""
        # not pytest's folder: a Unix socket's path has 107 bytes at most
        self.folder = Path(tempfile.mkdtemp(prefix="hsmsign-test-"))
        self.process: subprocess.Popen[bytes] | None = None
        done = hsmsign("init", self.folder, "--listen", "127.0.0.1:0", *options)
        assert done.returncode == 0, done.stderr
        self.config = self.folder / "hsmsign.toml"
        self.configure(
            lambda text: edit(text.replace("checkpoint_seconds = 60", f"checkpoint_seconds = {checkpoint_seconds}"))
        )
        self.environment: dict[str, str] = {}
        self._log = self.folder / "log"

    def configure(self, edit: Callable[[str], str]) -> None:
        """Change hsmsign.toml."""
        self.config.write_text(edit(self.config.read_text()))

    def with_faults(self, folder: Path) -> Faults:
        """Put a module before the token's that makes faults on command; the next start loads it."""
        faults = Faults(build_fault_module(folder), folder / "control")
        self.configure(lambda text: text.replace(f'module = "{find_module()}"', f'module = "{faults.module}"'))
        self.environment.update(faults.environment())
        return faults

    def launch(self) -> None:
        """Start the process; do not wait until it is ready."""
        command = [sys.executable, "-m", "hsmsign", "serve", "--config", str(self.config)]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log, env={**os.environ, **self.environment})

    def start(self) -> Daemon:
        """Start, and wait until it is ready."""
        self.launch()
        eventually(lambda: self._ready() or self._ended(), "the daemon did not get ready: " + self.log())
        assert not self._ended(), self.log()
        return self

    def _ready(self) -> bool:
        path = self.folder / "run" / "endpoints.json"
        # one that was killed leaves its file behind, and the next one takes it away
        with contextlib.suppress(FileNotFoundError):
            return path.exists() and self.process is not None and self.pid("supervisor") == self.process.pid
        return False

    def _ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    @property
    def endpoints(self) -> dict[str, Any]:
        """What the daemon wrote of where it is."""
        return dict(json.loads((self.folder / "run" / "endpoints.json").read_text()))

    @property
    def tls(self) -> TlsFiles:
        """The client certificate that `init` made."""
        folder = self.folder / "tls"
        return TlsFiles(folder / "ca.pem", folder / "client.pem", folder / "client-key.pem")

    def client(self, *, deadline: float = 30.0) -> Client:
        """A client over TCP with mutual TLS."""
        return connect(f"dns:///{self.endpoints['tcp']}", tls=self.tls, deadline=deadline)

    def unix_client(self, *, deadline: float = 30.0) -> Client:
        """A client over the Unix socket."""
        return connect(f"unix://{self.endpoints['unix']}", deadline=deadline)

    def pid(self, what: str) -> int:
        """The process id of "supervisor", "worker", or "host"."""
        pids = self.endpoints["pids"]
        return int(next(iter(pids["hosts"].values())) if what == "host" else pids[what])

    def family(self) -> list[psutil.Process]:
        """The supervisor and its children."""
        supervisor = psutil.Process(self.pid("supervisor"))
        return [supervisor, *supervisor.children(recursive=True)]

    def kill(self, what: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to one process; its id."""
        pid = self.pid(what)
        os.kill(pid, number)
        return pid

    def log(self) -> str:
        """All that the daemon logged."""
        return self._log.read_text() if self._log.exists() else ""

    def http(self, path: str) -> tuple[int, str]:
        """Status and body of a page of the HTTP port."""
        try:
            with urllib.request.urlopen(f"http://{self.endpoints['metrics']}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def logged(self, words: str) -> None:
        """Wait until the log has these words."""
        eventually(lambda: words in self.log(), f"the log never said {words!r}: {self.log()}")

    def stop(self) -> int:
        """End it gently; its exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.terminate()
        code = self.process.wait(timeout=60)
        self.process = None
        return code

    def remove(self) -> None:
        """End it, and leave nothing behind."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class NotifySocket:
    """What systemd would listen on."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._socket.settimeout(PATIENCE)

    def wait_for(self, words: str) -> None:
        """Receive until a message has these words."""
        while words not in self._socket.recv(4096).decode():
            pass

"""A swtpm of a test's own: a real TPM 2.0 in software, that can be killed, started again and wiped."""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path

from hsmsign.backends.base import BackendConfig, PinSource, TpmConfig
from hsmsign.backends.tpm.simulator import two_free_ports

_PATIENCE = 20.0


class Swtpm:
    """Runs from when it is made until `stop`; always on the same ports."""

    def __init__(self, folder: Path, *, state: Path | None = None) -> None:
        assert shutil.which("swtpm"), "swtpm was not found: apt-get install swtpm swtpm-tools"
        self.folder = folder
        self.state = state or folder / "state"
        self.state.mkdir(parents=True, exist_ok=state is not None)
        self.port = two_free_ports()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def tcti(self) -> str:
        """How it is reached."""
        return f"swtpm:host=127.0.0.1,port={self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.state}", "--flags"]
        command += ["not-need-init,startup-clear", "--server", f"type=tcp,bindaddr=127.0.0.1,port={self.port}"]
        command += ["--ctrl", f"type=tcp,bindaddr=127.0.0.1,port={self.port + 1}"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port + 1)) == 0:
                    return
            assert self._process.poll() is None, "swtpm ended"
            time.sleep(0.02)
        raise AssertionError("swtpm does not answer")

    def kill(self) -> None:
        """Pull its plug."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def wipe(self) -> None:
        """Make another TPM of it: new seeds, nothing kept."""
        self.kill()
        shutil.rmtree(self.state)
        self.state.mkdir()
        self.start()

    stop = kill


def config_for(swtpm: Swtpm, *, tcti: str = "", name: str = "tpm", **changes: object) -> BackendConfig:
    """The configuration of a tpm2 backend on it, with a new secret for key authorizations."""
    return config_at(tcti or swtpm.tcti, swtpm.folder, name=name, **changes)


def config_at(tcti: str, folder: Path, *, name: str = "tpm", **changes: object) -> BackendConfig:
    """The same for whatever answers at a TCTI; the secret lies in `folder`."""
    secret = folder / "key-auth"
    if not secret.exists():
        secret.write_text(secrets.token_urlsafe(32))
        secret.chmod(0o600)
    said = {"key_auth": PinSource(file=secret), **changes}
    tpm = TpmConfig(tcti=tcti, **said)  # type: ignore[arg-type]
    return BackendConfig(name=name, kind="tpm2", tpm=tpm)

"""swtpm, a TPM 2.0 in software, as a child of the device host: for the embedded set-up, and for tests of a real one."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from hsmsign.model.errors import ConfigurationError, TokenNotPresentError

_PATIENCE = 10.0
_PR_SET_PDEATHSIG = 1


class Simulator:
    """One swtpm on a state folder. Its keys are as safe as that folder's files."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    def start(self) -> str:
        """Start it, unless it runs. Its TCTI. Raises ConfigurationError, TokenNotPresentError."""
        if self._process is None or self._process.poll() is not None:
            self._launch()
        return f"swtpm:host=127.0.0.1,port={self._port}"

    def _launch(self) -> None:
        program = shutil.which("swtpm")
        if program is None:
            raise ConfigurationError("swtpm was not found", hint="Debian, Ubuntu: apt-get install swtpm")
        if not self._state.is_dir():
            raise ConfigurationError(f"no TPM state folder {self._state}", hint="make one: hsmsign init --simulator")
        self._port = two_free_ports()
        command = [program, "socket", "--tpm2", "--tpmstate", f"dir={self._state}"]
        command += ["--server", f"type=tcp,bindaddr=127.0.0.1,port={self._port}"]
        command += ["--ctrl", f"type=tcp,bindaddr=127.0.0.1,port={self._port + 1}"]
        command += ["--flags", "not-need-init,startup-clear"]
        said = self._state / "swtpm.log"
        with said.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_die_with_parent
            )
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end and self._process.poll() is None:
            # the control port: a connection to the other one would be taken for the TPM's only user
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._port + 1)) == 0:
                    return
            time.sleep(0.02)
        code = self._process.poll()
        self.stop()
        raise TokenNotPresentError(
            f"swtpm does not come up on {self._state} (exit code {code})",
            hint=said.read_text("utf-8", "replace").strip() or "it said nothing; was it ended?",
            retry_after=1.0,
        )

    def stop(self) -> None:
        """End it."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()
        self._process = None


def two_free_ports() -> int:
    """A port that is free, and the one behind it, too: the TCTI looks for swtpm's control channel there.

    Below those that the kernel gives to outgoing connections, so that none of them takes it meanwhile.
    """
    while True:
        port = random.randrange(16384, 32766)  # noqa: S311 - nobody need not guess it
        with socket.socket() as first, socket.socket() as second, contextlib.suppress(OSError):
            first.bind(("127.0.0.1", port))
            second.bind(("127.0.0.1", port + 1))
            return port


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()

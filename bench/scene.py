"""What is measured: a daemon on a fresh token or TPM, with one P-256 key, and the bare device beside it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import hsmsign
from hsmsign.client.client import Client

KEY = "keys/bench"
_RAWLOOP = Path(__file__).with_name("build") / "rawloop"


def rawloop(
    module: str, key_id: str, threads: int, seconds: float, algorithm: str, environment: Mapping[str, str]
) -> float:
    """Signatures a second of a PKCS #11 module on the token "hsmsign", in a process of its own."""
    command = [str(_RAWLOOP), module, "hsmsign", f"id:{key_id}", str(threads), str(seconds), algorithm]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return float(json.loads(done.stdout)["signatures_per_second"])


@dataclass
class Scene:
    """Use it as a context manager; everything is gone afterwards."""

    folder: Path
    process: subprocess.Popen[bytes]
    module: str
    environment: dict[str, str]

    @classmethod
    def build(
        cls,
        options: Sequence[str] = (),
        edit: Callable[[str], str] = lambda text: text,
        prepare: Callable[[Path], None] = lambda _: None,
        variables: Mapping[str, str] | None = None,
    ) -> Scene:
        """A token (or what `options` of init make), a daemon with a configuration that `edit` changed, a folder that
        `prepare` changed and more environment `variables`, a key."""
        folder = Path(tempfile.mkdtemp(prefix="hsmsign-bench-"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "hsmsign"]
        init = [*command, "init", str(folder), "--listen", f"127.0.0.1:{port}", *options]
        subprocess.run(init, check=True, capture_output=True)
        config = edit((folder / "hsmsign.toml").read_text())
        (folder / "hsmsign.toml").write_text(config)
        prepare(folder)
        with (folder / "log").open("wb") as log:
            serve = [*command, "serve", "--config", str(folder / "hsmsign.toml")]
            process = subprocess.Popen(serve, stderr=log, env={**os.environ, **(variables or {})})
        while not (folder / "run" / "endpoints.json").exists():
            if process.poll() is not None:
                raise RuntimeError("the daemon did not start: " + (folder / "log").read_text())
            time.sleep(0.05)
        module = next((line.split('"')[1] for line in config.splitlines() if line.startswith("module =")), "")
        environment = {**os.environ, **(variables or {})}
        if module:
            environment["SOFTHSM2_CONF"] = str(folder / "softhsm" / "softhsm2.conf")
            environment["HSMSIGN_PIN"] = (folder / "softhsm" / "pin").read_text().strip()
        scene = cls(folder, process, module, environment)
        with scene.tcp() as client:
            client.create_key(KEY, algorithm="ecdsa-p256")
        return scene

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        shutil.rmtree(self.folder)

    def tcp(self) -> Client:
        """A client over mutual TLS."""
        return hsmsign.connect(client_file=self.folder / "client.toml")

    def unix(self) -> Client:
        """A client over the Unix socket."""
        return hsmsign.connect(self.unix_target)

    @property
    def unix_target(self) -> str:
        """The Unix socket, as clients name it."""
        return f"unix://{self.folder}/run/hsmsign.sock"

    def key_id(self, name: str = KEY) -> str:
        """CKA_ID of a key, in hexadecimal."""
        with self.tcp() as client:
            uri = client.get_key(name).versions[0].pkcs11_uri
        part = next(part for part in uri.removeprefix("pkcs11:").split(";") if part.startswith("id="))
        return part.removeprefix("id=").replace("%", "").lower()

    def raw(self, key_id: str, threads: int, seconds: float, algorithm: str = "ecdsa-p256") -> float:
        """Signatures a second of the bare module, in a process of its own."""
        return rawloop(self.module, key_id, threads, seconds, algorithm, self.environment)

    def processes(self) -> dict[str, list[int]]:
        """The daemon's processes: "supervisor", "worker", "auditor", "host"."""
        pids = json.loads((self.folder / "run" / "endpoints.json").read_text())["pids"]
        found = {"supervisor": [pids["supervisor"]], "worker": pids["workers"], "host": [*pids["hosts"].values()]}
        return {**found, "auditor": [pids["auditor"]]} if "auditor" in pids else found

    def pids(self) -> list[int]:
        """All of them."""
        return [pid for pids in self.processes().values() for pid in pids]

    def memory(self) -> float:
        """MiB of the daemon as a whole: proportional set size, so that shared pages count once."""
        total = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        return total / 1024

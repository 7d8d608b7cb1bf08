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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import hsmsign
from hsmsign.client.client import Client

KEY = "keys/bench"
_RAWLOOP = Path(__file__).with_name("build") / "rawloop"


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
    ) -> Scene:
        """A token (or what `options` of init make), a daemon with a configuration that `edit` changed and a folder
        that `prepare` changed, a key."""
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
            process = subprocess.Popen([*command, "serve", "--config", str(folder / "hsmsign.toml")], stderr=log)
        while not (folder / "run" / "endpoints.json").exists():
            if process.poll() is not None:
                raise RuntimeError("the daemon did not start: " + (folder / "log").read_text())
            time.sleep(0.05)
        module = next((line.split('"')[1] for line in config.splitlines() if line.startswith("module =")), "")
        environment = dict(os.environ)
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
        return hsmsign.connect(f"unix://{self.folder}/run/hsmsign.sock")

    def key_id(self) -> str:
        """CKA_ID of the key, in hexadecimal."""
        with self.tcp() as client:
            uri = client.get_key(KEY).versions[0].pkcs11_uri
        part = next(part for part in uri.removeprefix("pkcs11:").split(";") if part.startswith("id="))
        return part.removeprefix("id=").replace("%", "").lower()

    def raw(self, key_id: str, threads: int, seconds: float) -> float:
        """Signatures a second of the bare module, in a process of its own."""
        command = [str(_RAWLOOP), self.module, "hsmsign", f"id:{key_id}", str(threads), str(seconds)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=self.environment)
        return float(json.loads(done.stdout)["signatures_per_second"])

    def pids(self) -> list[int]:
        """The daemon's processes."""
        pids = json.loads((self.folder / "run" / "endpoints.json").read_text())["pids"]
        hosts, workers = pids.pop("hosts"), pids.pop("workers")
        return [*{*pids.values(), *workers, *hosts.values()}]

    def memory(self) -> float:
        """MiB of the daemon as a whole: proportional set size, so that shared pages count once."""
        total = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        return total / 1024

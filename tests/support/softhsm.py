"""A SoftHSM token of a test's own, and the module that makes faults on the way to it."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from hsmsign.backends.base import BackendConfig, PinSource
from hsmsign.softhsm.provision import Provisioned, find_module, provision

ROOT = Path(__file__).resolve().parents[2]


def make_token(folder: Path, label: str = "test") -> Provisioned:
    """A new token under `folder`, which is made."""
    return provision(folder, label, find_module())


def config_for(token: Provisioned, *, name: str = "soft", module: Path | None = None) -> BackendConfig:
    """The configuration of a softhsm backend on `token`."""
    return BackendConfig(
        name=name,
        kind="softhsm",
        module=module or find_module(),
        token_label=token.label,
        pin=PinSource(file=token.pin_file),
        sessions=2,
        token_dir=token.token_dir,
    )


def build_fault_module(folder: Path) -> Path:
    """Compile tests/faults/module into `folder`."""
    target = folder / "faultmod.so"
    source = ROOT / "tests" / "faults" / "module" / "faultmod.c"
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-g", "-shared", "-fPIC", "-fvisibility=hidden"]
    include = f"-I{ROOT / 'native' / 'third_party'}"
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, *flags, include, "-o", str(target), str(source), "-ldl", "-lpthread"], check=True)
    return target


@dataclass(frozen=True)
class Faults:
    """Steers a fault module: what it does is the text of a file that it reads again when it changes."""

    module: Path
    control: Path

    def set(self, *rules: str) -> None:
        """Make these rules hold, and no others."""
        beside = self.control.with_suffix(".new")
        beside.write_text("".join(f"{rule}\n" for rule in rules))
        beside.replace(self.control)  # another inode: noticed even within one tick of the clock

    def log(self, function: str, *rules: str) -> Path:
        """Let calls of `function` be counted, beside other rules; `calls` tells how many there were."""
        path = self.control.with_name(f"{function}.log")
        self.set(f"{function} log={path}", *rules)
        return path

    def environment(self) -> dict[str, str]:
        """What a process that loads the module must have in its environment."""
        return {"FAULT_MODULE_CONTROL": str(self.control)}


def calls(log: Path) -> int:
    """How many calls a log of `Faults.log` holds."""
    return len(log.read_text().splitlines()) if log.exists() else 0


def with_sessions(config: BackendConfig, sessions: int) -> BackendConfig:
    """The same with another number of signing sessions."""
    return dataclasses.replace(config, sessions=sessions)

"""On what it was measured."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

_PACKAGES = ("hsmsign", "grpcio", "protobuf", "uvloop", "cryptography", "python-pkcs11", "tpm2-pytss")
_PROGRAMS = {
    "softhsm": ("softhsm2-util", "--version"),
    "openssl": ("openssl", "version"),
    "p11-kit": ("dpkg-query", "--show", "p11-kit"),  # it does not say by itself
    "h2load": ("h2load", "--version"),
    "nginx": ("nginx", "-v"),
    "swtpm": ("swtpm", "--version"),
}


def machine() -> dict[str, str | int]:
    """Processor, cores, memory, kernel, and the governor where the kernel has one."""
    found: dict[str, str | int] = {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        "kernel": platform.release(),
    }
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if governor.exists():
        found["governor"] = governor.read_text().strip()
    return found


def versions() -> dict[str, str]:
    """Of Python, the packages and the programs that took part; those that are not here are left out."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    for name, command in _PROGRAMS.items():
        if shutil.which(command[0]) and (version := _version(command)):
            found[name] = version
    return found


def _version(command: Sequence[str]) -> str | None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    number = re.search(r"\d+(\.\d+)+\w*", done.stdout + done.stderr)
    return number[0] if number else None


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()

"""hsmsign.so: where it is, and where OpenSSL looks for it.

It is for programs that are not Python: OpenSSL loads it where openssl.cnf says so (docs/provider.md).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hsmsign.model.errors import CapabilityMissingError, ConfigurationError

NAME = "hsmsign.so"
_SECONDS = 30
_MODE = 0o644


def built() -> Path:
    """The module in this package. Raises CapabilityMissingError where it was not built."""
    from hsmsign import _native

    path = Path(_native.__file__ or "").with_name(NAME)
    if not path.is_file():
        raise CapabilityMissingError(
            f"{NAME} is not in this installation: what it is built with was missing",
            hint="install it, then hsmsign again (Debian, Ubuntu):\n"
            "  apt-get install gcc make libssl-dev libnghttp2-dev libnanopb-dev nanopb\n"
            "  pip install --force-reinstall --no-deps hsmsign   (or, in a copy of the source: pip install .)",
        )
    return path


def openssl() -> str:
    """The command. Raises ConfigurationError where there is none."""
    found = shutil.which("openssl")
    if found is None:
        raise ConfigurationError("there is no openssl command here", hint="install the package openssl")
    return found


def folder() -> Path:
    """Where OpenSSL looks for modules. Raises ConfigurationError."""
    return _asked("-m", "MODULESDIR")


def home() -> Path:
    """Where the system's openssl.cnf is. Raises ConfigurationError."""
    return _asked("-d", "OPENSSLDIR")


def _asked(option: str, name: str) -> Path:
    command = [openssl(), "version", option]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
    _, _, said = done.stdout.partition(f'{name}: "')
    path, quote, _ = said.rpartition('"')
    if done.returncode != 0 or not quote:
        raise ConfigurationError(f"this openssl does not say its {name}", hint="OpenSSL 3.0 or newer is wanted")
    return Path(path)


def in_use() -> Path:
    """The module in OpenSSL's folder, else the one in this package. Raises CapabilityMissingError for neither."""
    with contextlib.suppress(ConfigurationError):
        installed = folder() / NAME
        if installed.is_file():
            return installed
    return built()


@dataclass(frozen=True, slots=True)
class Copy:
    """What `install` does, or would do."""

    source: Path
    target: Path
    changes: bool
    """Whether something else is there, or nothing."""


def install(to: Path | None = None, *, dry_run: bool = False) -> Copy:
    """Copy the module to where OpenSSL looks for it, or to the folder `to`: whole or not at all.

    Programs that run keep what they have loaded. Raises CapabilityMissingError (it was not built), ConfigurationError.
    """
    source, target = built(), (to if to is not None else folder()) / NAME
    content = source.read_bytes()
    changes = not target.is_file() or target.read_bytes() != content
    if not target.parent.is_dir():
        raise ConfigurationError(f"{target.parent} is no folder", hint="say which one: --to DIR")
    if changes and not dry_run:
        try:
            _put(target, content)
        except OSError as error:
            raise ConfigurationError(
                f"{target} cannot be written: {error.strerror}",
                hint="run it as root, or choose a folder of your own with --to DIR",
            ) from None
    return Copy(source, target, changes)


def _put(target: Path, content: bytes) -> None:
    handle, aside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(aside).chmod(_MODE)
        Path(aside).replace(target)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise

"""Reading a PIN where the configuration says it is. Errors name the place, never the PIN."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from hsmsign.backends.base import PinSource
from hsmsign.model.errors import ConfigurationError

PIN_MAX = 256
"""Bytes; longer is not a PIN but the wrong file."""


Stamp = tuple[int, ...]


def read_pin(source: PinSource, environment: Mapping[str, str] | None = None) -> str:
    """The PIN. Raises ConfigurationError where there is none, or others could read it.

    `environment` is where variables and $CREDENTIALS_DIRECTORY are looked up (default: the process's).
    """
    environment = os.environ if environment is None else environment
    chosen = [where for where in (source.file, source.env, source.credential) if where is not None]
    if len(chosen) != 1:
        raise ConfigurationError(
            f"a PIN comes from exactly one place, {len(chosen)} are named",
            hint="give one of pin.file, pin.env, pin.credential",
        )
    if source.env is not None:
        return _from_variable(source.env, environment)
    if source.credential is not None:
        return _from_credential(source.credential, environment)
    assert source.file is not None  # noqa: S101 - one of the three was named, see above
    return _from_file(source.file, f"PIN file {source.file}", owner_only=True)


def stamp(source: PinSource, environment: Mapping[str, str] | None = None) -> Stamp:
    """What tells one writing of the PIN from the next, without reading it: device, inode, size and times of its
    file. Of a variable: nothing, since a process's own do not change. Raises OSError where the file is not there.
    """
    environment = os.environ if environment is None else environment
    path = source.file
    if source.credential is not None:
        path = Path(environment.get("CREDENTIALS_DIRECTORY", "")) / source.credential
    if path is None:
        return ()
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _from_variable(variable: str, environment: Mapping[str, str]) -> str:
    value = environment.get(variable)
    if value is None:
        raise ConfigurationError(
            f"the environment variable {variable}, which should hold the PIN, is not set",
            hint="set it in the daemon's environment, or use pin.file",
        )
    return _checked(value.encode("utf-8", "surrogateescape"), f"environment variable {variable}")


def _from_credential(name: str, environment: Mapping[str, str]) -> str:
    folder = environment.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise ConfigurationError(
            f"the systemd credential {name!r} should hold the PIN, but $CREDENTIALS_DIRECTORY is not set",
            hint=f"start the daemon by systemd with LoadCredential={name}:/path or LoadCredentialEncrypted=",
        )
    if "/" in name or name in (".", ".."):
        raise ConfigurationError(f"{name!r} is no name of a systemd credential", hint="a name, not a path")
    # systemd made the folder for this service alone; its modes (0440 with ACLs) are its own business
    return _from_file(Path(folder) / name, f"systemd credential {name!r}", owner_only=False)


def _from_file(path: Path, where: str, *, owner_only: bool) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigurationError(f"the {where} cannot be read: {error.strerror}", hint=_hint(error, path)) from None
    with open(descriptor, "rb") as file:  # noqa: PTH123 - the descriptor that is checked is the one that is read
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ConfigurationError(f"the {where} is not a regular file", hint="give the path of a file")
        if owner_only and found.st_mode & 0o077:
            raise ConfigurationError(
                f"the {where} can be read or written by others (mode {stat.S_IMODE(found.st_mode):04o})",
                hint=f"chmod 600 {path}",
            )
        if owner_only and found.st_uid not in (os.geteuid(), 0):
            raise ConfigurationError(
                f"the {where} belongs to another user (uid {found.st_uid})", hint=f"chown it to uid {os.geteuid()}"
            )
        return _checked(file.read(PIN_MAX + 2), where)


def _hint(error: OSError, path: Path) -> str:
    if isinstance(error, FileNotFoundError):
        return f"write the PIN to {path}, mode 0600"
    return f"make {path} readable for uid {os.geteuid()} alone"


def _checked(value: bytes, where: str) -> str:
    value = value.removesuffix(b"\n")
    if not value:
        raise ConfigurationError(f"the {where} is empty where a PIN is wanted", hint="write the PIN there")
    if len(value) > PIN_MAX:
        raise ConfigurationError(f"the {where} holds more than {PIN_MAX} bytes, which is no PIN")
    if b"\n" in value or b"\0" in value:
        raise ConfigurationError(
            f"the {where} holds more than one line where a PIN is wanted", hint="one line, the PIN, nothing else"
        )
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError(f"the {where} is not UTF-8, as a PIN must be (PKCS #11, section 5.6)") from None

"""Where the daemon is and how to prove who we are: targets and `client.toml`."""

from __future__ import annotations

import difflib
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsmsign.client import own_key
from hsmsign.model.errors import ConfigurationError

ENVIRONMENT = "HSMSIGN_CLIENT"
_KEYS = ("endpoint", "ca", "certificate", "key", "server_name")
_FORMS = "an endpoint is unix:///path/to/socket or dns:///host:port"
_UNIX_PATH_MAX = 107


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files for mutual TLS. They are read when a connection is made with `connect`.

    `key` may also be a key on a device, of another daemon: `hsmsign:keys/NAME?endpoint=unix:///path/to/socket`.
    `server_name` is checked in the daemon's certificate instead of the host in the target.
    """

    ca: Path | str
    certificate: Path | str
    key: Path | str
    server_name: str | None = None

    def __post_init__(self) -> None:
        own_key.parse(self.key)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A daemon's address with what it takes to be let in. Raises ConfigurationError where it cannot work."""

    target: str
    tls: TlsFiles | None = None

    def __post_init__(self) -> None:
        scheme, separator, rest = self.target.partition(":///")
        if not separator or not rest or scheme not in ("unix", "dns"):
            raise ConfigurationError(f"{self.target!r} is not an endpoint", hint=_FORMS)
        if scheme == "unix":
            if len(os.fsencode(self.socket_path or "")) > _UNIX_PATH_MAX:
                raise ConfigurationError(
                    f"the socket path in {self.target!r} is longer than {_UNIX_PATH_MAX} bytes",
                    hint="the kernel takes no longer one; use a shorter folder",
                )
            return
        host, colon, port = rest.rpartition(":")
        if not colon or not host or not port.isdigit() or not 1 <= int(port) <= 65535:
            raise ConfigurationError(f"{self.target!r} has no host and port", hint=_FORMS)
        if self.tls is None:
            raise ConfigurationError(
                f"{self.target!r} is reached over TLS, and no certificate was given",
                hint="pass tls=TlsFiles(ca, certificate, key), or name ca, certificate and key in client.toml",
            )

    @property
    def socket_path(self) -> str | None:
        """The path of a Unix socket; None for a network endpoint."""
        return self.target[len("unix://") :] if self.target.startswith("unix:///") else None


def resolve(target: str | None, tls: TlsFiles | None, client_file: Path | str | None) -> Endpoint:
    """The endpoint to use: `target` where there is one, else what the client file says."""
    if target is not None:
        return Endpoint(target, tls)
    path = find(client_file)
    endpoint = load(path)
    return endpoint if tls is None else Endpoint(endpoint.target, tls)


def find(client_file: Path | str | None) -> Path:
    """The client file: the one named, else $HSMSIGN_CLIENT, else the user's. Raises ConfigurationError."""
    if client_file is not None:
        return Path(client_file)
    if named := os.environ.get(ENVIRONMENT):
        return Path(named)
    path = default_path()
    if not path.exists():
        raise ConfigurationError(
            "no daemon was named, and there is no client file",
            hint=f"looked for {path}; write one, or name yours with --client FILE or ${ENVIRONMENT}"
            ' (one line will do: endpoint = "unix:///run/hsmsign/hsmsign.sock")',
        )
    return path


def default_path() -> Path:
    """The user's own client file, whether it is there or not."""
    from platformdirs import user_config_path  # wanted only where nothing was named

    return user_config_path("hsmsign") / "client.toml"


def load(path: Path) -> Endpoint:
    """Read a client file; paths in it are relative to it. Raises ConfigurationError, naming file and key."""
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the client file {path}: {error.strerror}",
            hint="name another one with --client FILE or $" + ENVIRONMENT,
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}", hint="see docs/client.md") from error
    for key, value in values.items():
        _check(path, key, value)
    if "endpoint" not in values:
        raise ConfigurationError(f"{path} has no endpoint", hint=_FORMS)
    try:
        return Endpoint(values["endpoint"], _tls(path, values))
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error.message}", hint=error.hint) from None


def _check(path: Path, key: str, value: object) -> None:
    if key not in _KEYS:
        near = difflib.get_close_matches(key, _KEYS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(_KEYS)}"
        raise ConfigurationError(f"{path} has an unknown key {key!r}", hint=hint)
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"{key!r} in {path} must be a string that is not empty", hint=f'{key} = "..."')


def _tls(path: Path, values: dict[str, str]) -> TlsFiles | None:
    given = [key for key in ("ca", "certificate", "key") if key in values]
    if not given:
        return None
    if len(given) < 3:
        missing = sorted({"ca", "certificate", "key"} - set(given))
        raise ConfigurationError(
            f"{', '.join(missing)} missing beside {', '.join(given)}",
            hint="mutual TLS takes all three: ca, certificate, key",
        )
    here = path.absolute().parent
    key: Path | str = values["key"] if values["key"].startswith(own_key.SCHEME) else here / values["key"]
    return TlsFiles(here / values["ca"], here / values["certificate"], key, values.get("server_name"))

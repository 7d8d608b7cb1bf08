"""The bare device of `hsmsign bench`: which options belong together, and which object they mean."""

from __future__ import annotations

import dataclasses
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import click

from hsmsign.model.errors import ConfigurationError, HsmsignError, UriError

if TYPE_CHECKING:
    from hsmsign.backends.base import BackendConfig
    from hsmsign.client import Client, KeyInfo
    from hsmsign.measuring.device import Where


@dataclass(frozen=True, slots=True)
class DeviceOptions:
    """What the command line said of it. None of it holds a PIN."""

    config: Path | None
    backend: str | None
    module: Path | None
    token_label: str | None
    pin_file: Path | None
    key_id: bytes | None
    key_label: str | None
    device_threads: int | None

    def check(self) -> None:
        """Raise UsageError for what does not go together."""
        if self.config is not None and self.module is not None:
            raise click.UsageError("--config and --module both say where the bare device is: say one of them")
        if self.backend is not None and self.config is None:
            raise click.UsageError("--backend is one of a configuration: it goes with --config FILE")
        of_module = {"--token-label": self.token_label, "--pin-file": self.pin_file}
        if self.module is None:
            for option, value in of_module.items():
                if value is not None:
                    raise click.UsageError(f"{option} goes with --module PATH")
        elif missing := [option for option, value in of_module.items() if value is None]:
            raise click.UsageError(f"--module wants {' and '.join(missing)}, too")
        for option, given in (
            ("--key-id", self.key_id),
            ("--key-label", self.key_label),
            ("--device-threads", self.device_threads),
        ):
            if given is not None and self.config is None and self.module is None:
                raise click.UsageError(f"{option} is about the bare device: it goes with --config or --module")

    def where(self, client: Client, key: KeyInfo, version: str) -> Where | None:
        """The object on the device that is the key; None where the device is not to be measured.

        Raises ConfigurationError where the configuration has no such backend, or one without a PKCS #11 module.
        """
        if self.config is None and self.module is None:
            return None
        from hsmsign.measuring.device import Where
        from hsmsign.model.hostwire import to_json

        name, config = self._backend(key)
        object_id, label = self.key_id, self.key_label
        if object_id is None and label is None:
            object_id, label = _object(key, version, name)
        threads = self.device_threads or _sessions(client, name)
        return Where(to_json(config), object_id, label, threads)

    def _backend(self, key: KeyInfo) -> tuple[str, BackendConfig]:
        own = key.backend.removeprefix("backends/")
        if self.config is not None:
            return _configured(self.config, self.backend or own)
        from hsmsign.backends.base import BackendConfig, PinSource

        assert self.module is not None  # noqa: S101 - see `where`
        pin = PinSource(file=self.pin_file)
        return own, BackendConfig("device", "pkcs11", self.module, token_label=self.token_label, pin=pin)


def names() -> list[str]:
    """Of the options, as click hands them over."""
    return [field.name for field in dataclasses.fields(DeviceOptions)]


def _configured(path: Path, name: str) -> tuple[str, BackendConfig]:
    if importlib.util.find_spec("pydantic") is None:
        raise ConfigurationError(
            "--config is read by the daemon's own code, which is not installed (pydantic is missing)",
            hint="pip install 'hsmsign[server]', or leave --config out",
        )
    from hsmsign.daemon import config

    backends = {backend.name: backend for backend in config.load(path).backends}
    found = backends.get(name)
    if found is None:
        raise ConfigurationError(f"{path} has no backend {name!r}", hint=f"--backend is one of: {', '.join(backends)}")
    if found.tpm is not None:
        raise ConfigurationError(
            f"backend {name!r} is a TPM, which has no PKCS #11 module to measure by itself",
            hint="leave --config out: the daemon is measured all the same",
        )
    return name, found


def _object(key: KeyInfo, version: str, backend: str) -> tuple[bytes | None, str | None]:
    """CKA_ID and CKA_LABEL of a version's key on a backend, as the daemon tells them."""
    from hsmsign.backends.uri import parse

    (one,) = [one for one in key.versions if one.name == version]
    places = {replica.backend.removeprefix("backends/"): replica.pkcs11_uri for replica in one.replicas}
    places[key.backend.removeprefix("backends/")] = one.pkcs11_uri
    try:
        query = parse(places.get(backend, "")).query
    except UriError as error:
        raise ConfigurationError(
            f"the daemon does not say which object of {backend!r} is {version}",
            hint=f"it is on {', '.join(places)}; else name it: --key-id HEX or --key-label LABEL",
        ) from error
    return (query.id, None) if query.id is not None else (None, query.label)


def _sessions(client: Client, backend: str) -> int:
    """As many as the daemon has; one where it does not tell."""
    try:
        return next((one.sessions for one in client.backends() if one.name == f"backends/{backend}"), 1) or 1
    except HsmsignError:
        return 1


class Progress:
    """One line on stderr, for as long as something is measured: how far it is, and what it is at."""

    def __init__(self, steps: int) -> None:
        from rich.console import Console

        self._steps, self._done = steps, 0
        self._status = Console(stderr=True).status("connecting")

    def __enter__(self) -> Self:
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def __call__(self, words: str) -> None:
        """The next step begins."""
        self._done += 1
        self._status.update(f"{self._done} of {self._steps}: {words}")

"""From a backend's kind to what makes it. A new kind of device is one line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from hsmsign.backends.base import Backend, BackendConfig
from hsmsign.backends.pkcs11 import Pkcs11Backend
from hsmsign.backends.softhsm import soft_hsm
from hsmsign.model.errors import ConfigurationError


class Maker(Protocol):
    """Makes a device that is not started; `pin_refused` says that its PIN is not to be tried, and
    `logging_in` is called before it is."""

    def __call__(  # noqa: D102
        self, config: BackendConfig, *, pin_refused: bool = False, logging_in: Callable[[], None] = ...
    ) -> Backend: ...


def _tpm2(
    config: BackendConfig, *, pin_refused: bool = False, logging_in: Callable[[], None] = lambda: None
) -> Backend:
    try:
        from hsmsign.backends.tpm.backend import Tpm2Backend
    except ImportError as error:
        raise ConfigurationError(
            f"backend {config.name!r} is a TPM, and the TPM software is not installed: {error}",
            hint="apt-get install libtss2-dev, then pip install 'hsmsign[server,tpm]'",
        ) from error
    return Tpm2Backend(config, pin_refused=pin_refused, logging_in=logging_in)


KINDS: dict[str, Maker] = {"pkcs11": Pkcs11Backend, "softhsm": soft_hsm, "tpm2": _tpm2}


def make_backend(
    config: BackendConfig, *, pin_refused: bool = False, logging_in: Callable[[], None] = lambda: None
) -> Backend:
    """The device that `config` describes. Raises ConfigurationError for a kind that is not known."""
    maker = KINDS.get(config.kind)
    if maker is None:
        raise ConfigurationError(
            f"backend {config.name!r} is of unknown kind {config.kind!r}", hint=f"known: {', '.join(KINDS)}"
        )
    return maker(config, pin_refused=pin_refused, logging_in=logging_in)

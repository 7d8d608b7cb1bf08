"""SoftHSM as a device: PKCS #11 with its quirks, its own configuration, and keys that are only software."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from hsmsign.backends.base import BackendConfig
from hsmsign.backends.pkcs11 import Pkcs11Backend
from hsmsign.model.device import Protection
from hsmsign.model.errors import TokenNotPresentError
from hsmsign.softhsm.provision import conf_text


def soft_hsm(config: BackendConfig, *, pin_refused: bool = False) -> Pkcs11Backend:
    """The device for `config`, on SoftHSM.

    SoftHSM is upset by keys that are made while another session looks for keys, so that the two are kept
    apart; signatures with keys that were found go on. It looks for tokens once, when it is loaded: it is
    not loaded before the token's folder has one.
    """
    wanted = config.quirks.exclusive_management
    quirks = dataclasses.replace(config.quirks, exclusive_management="lookups" if wanted == "nothing" else wanted)
    shelf = Shelf(config.token_dir) if config.token_dir is not None else None
    return Pkcs11Backend(
        dataclasses.replace(config, quirks=quirks),
        pin_refused=pin_refused,
        protection=Protection.SOFTWARE,
        prepare=shelf.prepare if shelf else lambda: None,
        present=shelf.changed_or_has if shelf else None,
    )


class Shelf:
    """The folder in which SoftHSM keeps its tokens, one folder a token."""

    def __init__(self, token_dir: Path) -> None:
        self._token_dir = token_dir
        self._loaded: frozenset[str] = frozenset()

    def prepare(self) -> None:
        """Point SoftHSM to the folder. Raises TokenNotPresentError where it has no token."""
        tokens = self._tokens()
        if not tokens:
            raise TokenNotPresentError(
                f"{self._token_dir} holds no SoftHSM token",
                hint="make one: hsmsign init, or softhsm2-util",
            )
        self._loaded = tokens
        # the configuration is for this process alone, so that it needs no place in the file system
        descriptor = os.memfd_create("softhsm2.conf", os.MFD_CLOEXEC)
        os.write(descriptor, conf_text(self._token_dir).encode())
        os.environ["SOFTHSM2_CONF"] = f"/proc/self/fd/{descriptor}"

    def changed_or_has(self, serial: str | None) -> bool:
        """Whether the token with this serial is there; for None, whether there are others than were loaded."""
        tokens = self._tokens()
        if serial is None:
            return bool(tokens - self._loaded)
        return any(name.replace("-", "").endswith(serial) for name in tokens)

    def _tokens(self) -> frozenset[str]:
        return frozenset(found.parent.name for found in self._token_dir.glob("*/token.object"))

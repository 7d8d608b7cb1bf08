"""SoftHSM as a device: PKCS #11 with its quirks, its own configuration, and keys that are only software."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pkcs11.constants import Attribute, ObjectClass

from hsmsign.backends import objects
from hsmsign.backends.base import BackendConfig
from hsmsign.backends.pkcs11 import Pkcs11Backend
from hsmsign.model.device import Protection
from hsmsign.model.errors import TokenNotPresentError
from hsmsign.softhsm.provision import conf_text


def soft_hsm(
    config: BackendConfig, *, pin_refused: bool = False, logging_in: Callable[[], None] = lambda: None
) -> Pkcs11Backend:
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
        logging_in=logging_in,
        tidy=Husks().take_away,
    )


class Husks:
    """What SoftHSM leaves behind where it is killed while it makes a key: the file of an object into which no
    attribute was written yet. It holds no key, has no name to find it by, and is taken away.

    A key that another process is just making looks the same for an instant: only what was seen at an earlier
    look, a second before, is a husk. Two looks after a start are enough.
    """

    def __init__(self) -> None:
        self._looks = 0
        self._seen: frozenset[int] = frozenset()

    def take_away(self, session: Any) -> bool:
        """Look once, and destroy what was there at the look before. Whether to look again. Raises PKCS11Error."""
        empty = {thing.handle: thing for kind in _HALVES for thing in _unmarked(session, kind) if _holds_no_key(thing)}
        for handle in self._seen & empty.keys():
            empty[handle].destroy()
        self._looks += 1
        self._seen = frozenset(empty)
        return self._looks < 2


_HALVES = (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY)


def _unmarked(session: Any, kind: ObjectClass) -> list[Any]:
    """Not marked as the token's, though it is on its disk. A search by an empty name finds what has one only."""
    return list(session.get_objects({Attribute.CLASS: kind, Attribute.TOKEN: False}))


def _holds_no_key(thing: Any) -> bool:
    """A key of ours has a name; any key says on which curve it is, or what its modulus is."""
    said = objects.read(thing, (Attribute.ID, Attribute.LABEL, Attribute.LOCAL, Attribute.EC_PARAMS, Attribute.MODULUS))
    return not any(said.values())


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

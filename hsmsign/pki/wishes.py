"""What is asked for where an authority is to be made."""

from __future__ import annotations

import dataclasses
import datetime as dt
from dataclasses import dataclass
from typing import Any

from cryptography import x509

from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.errors import InvalidArgumentError
from hsmsign.model.purpose import PATH_LENGTH_MAX, Purpose, PurposeKind

SHARDS_MAX = 256
ROOT_YEARS, BELOW_YEARS = 20, 5
_YEAR = 365 * 86_400


@dataclass(frozen=True, slots=True)
class Wish:
    """An authority that is wanted, and how each of its versions is to be."""

    id: str
    subject: str
    """RFC 4514."""
    key: str
    """The id of its key."""
    parent: str = ""
    """The id of the authority that signs it; nothing: it signs itself."""
    external: bool = False
    """An outside CA signs it."""
    algorithm: str = ""
    """Of a new key; nothing: the usual one."""
    pss: bool = False
    path_length: int = 0
    validity: int = 0
    """Seconds; 0: the usual."""
    permitted: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    shards: int = 1
    backend: str = ""

    def plain(self) -> dict[str, Any]:
        """As the store gives it back."""
        given = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}

    @classmethod
    def read(cls, values: dict[str, Any]) -> Wish:
        """From what `plain` made."""
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return cls(**given)

    @property
    def name(self) -> x509.Name:
        """The subject. Raises InvalidArgumentError."""
        try:
            found = x509.Name.from_rfc4514_string(self.subject)
        except ValueError:
            found = x509.Name([])
        if not list(found):
            raise InvalidArgumentError(
                "the subject is no distinguished name (RFC 4514)",
                hint="say for example: CN=Example Root,O=Example",
                metadata={"field": "subject"},
            )
        return found

    @property
    def how_long(self) -> dt.timedelta:
        """From notBefore to notAfter."""
        usual = BELOW_YEARS if self.parent else ROOT_YEARS
        return dt.timedelta(seconds=self.validity or usual * _YEAR)

    @property
    def kind(self) -> KeyAlgorithm:
        """Of a new key. Raises InvalidArgumentError."""
        usual = KeyAlgorithm.EC_P256 if self.parent else KeyAlgorithm.EC_P384
        try:
            return KeyAlgorithm(self.algorithm) if self.algorithm else usual
        except ValueError:
            words = ", ".join(one.value for one in KeyAlgorithm)
            raise InvalidArgumentError(f"{self.algorithm[:40]!r} is no algorithm", hint=f"one of: {words}") from None

    @property
    def purpose(self) -> Purpose:
        """What its key is for. A key has a path length as its certificate may have, and one more than those below it.
        Raises InvalidArgumentError."""
        if self.external and self.parent:
            raise InvalidArgumentError("an authority has a parent here or an outside CA, not both")
        if not 0 <= self.path_length <= PATH_LENGTH_MAX or not 1 <= self.shards <= SHARDS_MAX:
            raise InvalidArgumentError(
                "the path length or the number of shards is out of bounds",
                hint=f"a path length of 0 to {PATH_LENGTH_MAX}, 1 to {SHARDS_MAX} shards",
            )
        issuer = self.name.rfc4514_string()
        return Purpose(PurposeKind.CA, issuer, path_length=self.path_length, permitted_names=self.permitted).check()

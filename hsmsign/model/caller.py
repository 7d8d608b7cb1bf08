"""Who calls."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller by its proven name."""

    name: str
    """`spiffe://…` (URI SAN), `dns:NAME`, `email:ADDRESS`, `subject:RFC4514`, `sha256:HEX` (of the certificate's
    public key), or `unix:UID` (peer credentials). In logs and errors."""
    also: tuple[str, ...] = ()
    """Other names that are as well proven: `sha256:HEX` of a certificate's public key, `unix-group:GID`."""

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (self.name, *self.also)


NOBODY = Caller("")
"""Where nobody in particular asks."""

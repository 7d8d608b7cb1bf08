"""What vouches for a request beside its own signature."""

from __future__ import annotations

from typing import Protocol

from cryptography import x509


class Vouched(Protocol):
    """What an identity token says of who asks."""

    @property
    def issuer(self) -> str:
        """The name, in the configuration, of the issuer of the token."""

    @property
    def names(self) -> tuple[x509.GeneralName, ...]:
        """Names that it may have."""

    @property
    def common_name(self) -> str:
        """The common name that it may have; empty: none but one of its names."""

"""What a policy can ask of a key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.purpose import PurposeKind


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """A key, as far as it matters for who may use it."""

    id: str
    labels: tuple[tuple[str, str], ...] = ()
    """Sorted."""
    algorithm: KeyAlgorithm | None = None
    """None where it is not known."""
    purpose: PurposeKind | None = None
    """None where it is not known."""

    @classmethod
    def of(
        cls, id: str, labels: Mapping[str, str], algorithm: KeyAlgorithm | None, purpose: PurposeKind | None = None
    ) -> KeyFacts:
        """The facts of a key with these labels."""
        return cls(id, tuple(sorted(labels.items())), algorithm, purpose)

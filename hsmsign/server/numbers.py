"""The enums of the wire, and what they are inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from hsmsign.keyring import AdoptedObject
from hsmsign.model.algorithms import InputKind, KeyAlgorithm, Scheme, SignatureFormat
from hsmsign.model.errors import InvalidArgumentError
from hsmsign.model.purpose import PurposeKind
from hsmsign.store import VersionState

T = TypeVar("T")

ALGORITHMS: dict[int, KeyAlgorithm] = dict(enumerate(KeyAlgorithm, start=1))
ALGORITHM_NUMBERS = {algorithm: number for number, algorithm in ALGORITHMS.items()}
SCHEMES: dict[int, Scheme | None] = {0: None, **{scheme.value: scheme for scheme in Scheme}}
SCHEME_NUMBERS = {scheme: scheme.value for scheme in Scheme}
FORMATS: dict[int, SignatureFormat] = {one.value: one for one in SignatureFormat}
KINDS: dict[int, InputKind] = {one.value: one for one in InputKind}
PURPOSES: dict[int, PurposeKind] = dict(enumerate(PurposeKind))
ADOPTED: dict[int, AdoptedObject | None] = {0: None, **{one.value: one for one in AdoptedObject}}
SETTABLE: dict[int, VersionState] = {1: VersionState.ENABLED, 2: VersionState.DISABLED}
STATE_NUMBERS: dict[VersionState, int] = {
    VersionState.ENABLED: 1,
    VersionState.DISABLED: 2,
    VersionState.DESTROYING: 3,
    VersionState.DESTROYED: 3,
}


def read(table: Mapping[int, T], number: int, field: str) -> T:
    """What `number` stands for. Raises InvalidArgumentError for one that this daemon does not know."""
    try:
        return table[number]
    except KeyError:
        known = ", ".join(str(one) for one in table)
        raise InvalidArgumentError(
            f"{field} is {number}, which stands for nothing here",
            hint=f"known: {known}; is the caller newer than the daemon?",
            metadata={"field": field},
        ) from None

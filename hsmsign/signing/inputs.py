"""Checking what is to be signed. A good batch costs a few built-in calls, not a loop."""

from __future__ import annotations

from collections.abc import Sequence

import google_crc32c

from hsmsign.model.algorithms import InputKind, Scheme
from hsmsign.model.errors import (
    BatchSizeError,
    DigestLengthError,
    HsmsignError,
    InputCorruptedError,
    MessageRequiredError,
    MessageSizeError,
)
from hsmsign.model.limits import Limits
from hsmsign.signing.values import GroupFailure, SignGroup

_HASHES: dict[Scheme, tuple[str, int]] = {s: (s.hash.value, s.hash.size) for s in Scheme if s.hash is not None}
_LENGTHS = {scheme: {size} for scheme, (_, size) in _HASHES.items()}


def check_sizes(groups: Sequence[SignGroup | HsmsignError], limits: Limits) -> None:
    """Raises BatchSizeError for a call that is empty or too much as a whole."""
    inputs = [group.inputs for group in groups if isinstance(group, SignGroup)]
    items = sum(map(len, inputs))
    if not groups:
        raise BatchSizeError("the batch is empty", hint="send at least one group with one input")
    if items > limits.max_batch_items or len(groups) > limits.max_batch_items:
        raise BatchSizeError(
            f"the batch has {items} inputs in {len(groups)} groups, the daemon takes {limits.max_batch_items}",
            hint="send several batches, or a stream",
            metadata={"max_items": str(limits.max_batch_items)},
        )
    size = sum([sum(map(len, one)) for one in inputs])
    if size > limits.max_batch_bytes:
        raise BatchSizeError(
            f"the inputs of the batch have {size} bytes, the daemon takes {limits.max_batch_bytes}",
            hint="send several batches, or digests instead of messages",
            metadata={"max_bytes": str(limits.max_batch_bytes)},
        )


def check_crc(inputs: list[bytes], crc32c: int | None) -> None:
    """Raises InputCorruptedError where a checksum was sent that does not fit."""
    if crc32c is not None and google_crc32c.value(inputs[0] if len(inputs) == 1 else b"".join(inputs)) != crc32c:
        raise InputCorruptedError(
            "the inputs do not fit the CRC32C that was sent with them: they changed on their way",
            hint="send the request again; if it happens again, is it the CRC32C (Castagnoli) of all inputs in order?",
        )


def failures(scheme: Scheme, kind: InputKind, inputs: list[bytes], limits: Limits) -> list[GroupFailure]:
    """The items that cannot be signed, and why; usually none. Raises MessageRequiredError."""
    lengths = set(map(len, inputs))
    if kind is InputKind.DIGEST:
        if lengths == _LENGTHS.get(scheme):
            return []
        if scheme not in _HASHES:
            raise MessageRequiredError(
                "an Ed25519 key signs messages (RFC 8032, PureEdDSA), not digests", hint="send the message itself"
            )
    elif lengths and min(lengths) > 0 and max(lengths) <= limits.max_message_bytes:
        return []
    known: dict[int, HsmsignError | None] = {size: _wrong(scheme, kind, size, limits) for size in lengths}
    return [GroupFailure(index, error) for index, data in enumerate(inputs) if (error := known[len(data)]) is not None]


def _wrong(scheme: Scheme, kind: InputKind, size: int, limits: Limits) -> HsmsignError | None:
    if kind is InputKind.DIGEST:
        name, expected = _HASHES[scheme]
        return None if size == expected else DigestLengthError(name, expected, size)
    if size == 0:
        return MessageSizeError("the message is empty", hint="was the field left out?")
    if size > limits.max_message_bytes:
        return MessageSizeError(
            f"the message has {size} bytes, the daemon takes {limits.max_message_bytes}",
            hint="send its digest instead; Ed25519 has none, so there the message must be shorter",
            metadata={"max_bytes": str(limits.max_message_bytes)},
        )
    return None

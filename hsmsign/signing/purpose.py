"""Keys that are for something sign only that."""

from __future__ import annotations

from hsmsign.keyring import ResolvedKey
from hsmsign.model.algorithms import InputKind, Scheme
from hsmsign.model.errors import PurposeError
from hsmsign.purposes import Signer, check
from hsmsign.signing.values import GroupFailure, SignGroup


def misused(key: ResolvedKey, scheme: Scheme, group: SignGroup, bad: list[GroupFailure]) -> list[GroupFailure]:
    """The items that are no good already, and those that are not what the key is for. Raises PurposeError for
    digests, of which nobody can say what they stand for."""
    if group.kind is InputKind.DIGEST:
        raise PurposeError(
            f"{key.name} is for {key.purpose.kind.value!r} and signs no bare digests",
            hint="send the message itself, so that the daemon can see what it is",
            metadata={"purpose": key.purpose.kind.value},
        )
    known = {failure.index for failure in bad}
    signer = Signer(key.name, key.purpose, scheme, key.public_key)
    found = list(bad)
    for index, message in enumerate(group.inputs):
        if index not in known:
            try:
                check(signer, message)
            except PurposeError as error:
                found.append(GroupFailure(index, error))
    return sorted(found, key=lambda failure: failure.index)

"""What a request must look like before anything is done about it."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from typing import Any

from hsmsign.keyring.values import etag
from hsmsign.model.errors import EtagError, InvalidArgumentError
from hsmsign.store import KeyRow

LABELS_MAX = 64
LABEL_VALUE_MAX = 255
_LABEL_NAME = re.compile(r"[a-z0-9._/-]{1,63}")


def labels(given: Mapping[str, str]) -> dict[str, str]:
    """The labels, in the order of their names. Raises InvalidArgumentError."""
    if len(given) > LABELS_MAX:
        raise InvalidArgumentError(f"a key has at most {LABELS_MAX} labels, not {len(given)}")
    for name, value in given.items():
        if not _LABEL_NAME.fullmatch(name):
            raise InvalidArgumentError(
                f"{name[:80]!r} is no name of a label", hint="1 to 63 of a-z 0-9 . _ - /", metadata={"field": "labels"}
            )
        if len(value) > LABEL_VALUE_MAX or "\0" in value:
            raise InvalidArgumentError(
                f"the value of the label {name!r} has {len(value)} characters",
                hint=f"at most {LABEL_VALUE_MAX}, and none of them NUL",
                metadata={"field": "labels"},
            )
    return dict(sorted(given.items()))


def request_id(text: str) -> str:
    """The id in its usual form, or nothing where none was given. Raises InvalidArgumentError."""
    if not text:
        return ""
    try:
        if len(text) not in (32, 36):
            raise ValueError
        return str(uuid.UUID(text))
    except ValueError:
        raise InvalidArgumentError(
            "request_id is no UUID",
            hint="make one: uuidgen, or Python's uuid.uuid4()",
            metadata={"field": "request_id"},
        ) from None


def fingerprint(*asked: Any) -> str:
    """What two requests have in common if, and only if, they ask for the same."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def same_etag(row: KeyRow, given: str) -> None:
    """Raises EtagError where an etag is given that is not the key's."""
    if given and given != etag(row):
        raise EtagError(
            f"keys/{row.id} changed since it was read",
            hint="read it again, look whether the change is still wanted, and send it with the new etag",
            metadata={"etag": etag(row)},
        )

"""Keys with which nothing that matters is done by one alone."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from hsmsign.model.errors import InvalidArgumentError

APPROVALS_MAX = 16
WITHIN_MIN = 60
WITHIN_MAX = 30 * 86_400


@dataclass(frozen=True, slots=True)
class DualControl:
    """How many others must approve. `check` says whether it makes sense."""

    approvals: int = 0
    """Distinct principals, besides the one who asks; 0: none."""
    signing: bool = False
    """Whether every signature wants them, too: as a root's."""
    within: int = 86_400
    """Seconds from the request until all is approved and done."""

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        """From what `plain` made."""
        return cls(**values)

    def plain(self) -> dict[str, Any]:
        """As JSON has it; nothing where there is none."""
        if not self.approvals:
            return {}
        return {"approvals": self.approvals, "signing": self.signing, "within": self.within}

    def check(self) -> Self:
        """Raise InvalidArgumentError for what is none."""
        if not 0 <= self.approvals <= APPROVALS_MAX:
            raise _wrong(f"a key wants {self.approvals} approvals", f"0 to {APPROVALS_MAX}")
        if self.signing and not self.approvals:
            raise _wrong("signatures are to be approved, by nobody", "say how many approve: 1 or more")
        if not WITHIN_MIN <= self.within <= WITHIN_MAX:
            raise _wrong(f"approvals are valid for {self.within} seconds", f"{WITHIN_MIN} to {WITHIN_MAX}")
        return self


class Operation(enum.Enum):
    """What waits for approvals. The value is the word in the store and of the command line."""

    DESTROY = "destroy"
    CHANGE = "change"
    """Of the purpose, or of the dual control itself."""
    SIGN = "sign"

    @property
    def number(self) -> int:
        """The number in `hsmsign.v1.Approval.Operation`."""
        return list(Operation).index(self) + 1


class ApprovalState(enum.Enum):
    """Where a request for approvals stands."""

    PENDING = "pending"
    GRANTED = "granted"
    """By all who must; what was asked for can be done, once."""
    DENIED = "denied"
    USED = "used"
    EXPIRED = "expired"

    @property
    def number(self) -> int:
        """The number in `hsmsign.v1.Approval.State`."""
        return list(ApprovalState).index(self) + 1


OPEN = frozenset({ApprovalState.PENDING, ApprovalState.GRANTED})
"""The states that something can still come of."""


def _wrong(message: str, hint: str) -> InvalidArgumentError:
    return InvalidArgumentError(message, hint=hint, metadata={"field": "dual_control"})

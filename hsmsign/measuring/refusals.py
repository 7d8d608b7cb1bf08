"""Keys that cannot be measured, and what a refusal means for who measures."""

from __future__ import annotations

from hsmsign.client.values import KeyInfo
from hsmsign.model.errors import (
    ApprovalRequiredError,
    FailedPreconditionError,
    HsmsignError,
    PermissionDeniedError,
    ResourceExhaustedError,
    rebuild,
)
from hsmsign.model.purpose import PurposeKind

_LIMITED = (
    "this would measure what a caller may, not what the device can: measure as a caller whom no limit holds,\n"
    "or less at once (--callers, --batch)"
)


def check(key: KeyInfo) -> None:
    """Refuse a key of which it is known that it signs nothing for us: asking would leave a request for approvals
    behind, or a refusal in the audit log. Raises FailedPreconditionError."""
    why = ""
    if key.dual_control.signing:
        why = "others have to approve each of its signatures"
    elif key.purpose.kind is not PurposeKind.ANY:
        why = f"it is for {key.purpose.kind.value!r} and signs nothing else"
    if why:
        another = f"hsmsign key create bench --algorithm {key.algorithm.value} --backend {_id(key.backend)}"
        raise FailedPreconditionError(
            f"{key.name} cannot be measured: {why}", hint=f"measure another key of the same kind there:  {another}"
        )


def explained(error: HsmsignError, *, digests: bool) -> HsmsignError:
    """The same error, with what to do about it when measuring."""
    hint = error.hint
    if isinstance(error, ResourceExhaustedError):
        hint = _lines(hint, _LIMITED)
    elif isinstance(error, ApprovalRequiredError):
        hint = _lines(hint, "a key whose signatures others approve cannot be measured")
    elif isinstance(error, PermissionDeniedError):
        rights = "read, sign and sign-digest (--messages: without the last)" if digests else "read and sign"
        hint = _lines(hint, f"measuring wants the rights {rights} for the key")
    return rebuild(error.reason, error.message, hint=hint, metadata=error.metadata, retry_after=error.retry_after)


def _lines(*parts: str) -> str:
    return "\n".join(filter(None, parts))


def _id(backend: str) -> str:
    return backend.removeprefix("backends/")

"""Signatures that others have to approve first: a root's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import sha256

from hsmsign.keyring import ResolvedKey
from hsmsign.keyring.approvals import Approvals
from hsmsign.keyring.approving import Wanted
from hsmsign.model.algorithms import InputKind, Scheme
from hsmsign.model.caller import Caller
from hsmsign.model.dual_control import Operation
from hsmsign.model.errors import BatchSizeError
from hsmsign.purposes import describe
from hsmsign.signing.places import Signed
from hsmsign.signing.values import SignGroup


async def sign_approved(
    approvals: Approvals,
    caller: Caller,
    key: ResolvedKey,
    scheme: Scheme,
    group: SignGroup,
    sign: Callable[[], Awaitable[Signed]],
) -> tuple[Signed, str]:
    """What `sign` answers, and the name of the approval that it used up: one for exactly this input. It is given back
    where nothing was signed. Raises ApprovalRequiredError, ApprovalDeniedError."""
    if len(group.inputs) != 1:
        raise BatchSizeError(
            f"{key.name} signs what others approved, one input at a time, and the group has {len(group.inputs)}",
            hint="send them one by one: each is approved for itself",
        )
    data = group.inputs[0]
    if group.kind is InputKind.MESSAGE:
        words = describe(data, scheme)
    else:
        words = f"a bare digest of which nobody can say what it stands for, {data.hex()}"
    what = (key.name, scheme.name, group.kind.name, sha256(data).hexdigest())
    wanted = Wanted(key.facts.id, Operation.SIGN, caller, what, f"sign with {key.name}: {words}", data)
    approval = await approvals.spend(key.control, wanted)
    try:
        signed = await sign()
    except BaseException:
        await approvals.give_back(approval)
        raise
    if signed.failures:
        await approvals.give_back(approval)
        return signed, ""
    return signed, approval

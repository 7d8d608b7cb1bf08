"""From a request to signatures: which key, may the caller, does the device have room, sign."""

from __future__ import annotations

import asyncio
import time
import zlib

from hsmsign.audit.auditing import Audit
from hsmsign.audit.records import OK, SignaturesMade
from hsmsign.keyring import Keyring, ResolvedKey
from hsmsign.keyring.approvals import Approvals
from hsmsign.model.algorithms import InputKind, KeyAlgorithm, Scheme
from hsmsign.model.caller import Caller
from hsmsign.model.device import FLOWS, SignOrder
from hsmsign.model.errors import (
    BatchSizeError,
    HsmsignError,
    NotFoundError,
    VersionStateError,
)
from hsmsign.model.limits import Limits
from hsmsign.model.purpose import PurposeKind
from hsmsign.policy import Action, Policy
from hsmsign.signing import inputs as check
from hsmsign.signing.admission import Admission
from hsmsign.signing.approved import sign_approved
from hsmsign.signing.places import Places, Signed
from hsmsign.signing.purpose import misused
from hsmsign.signing.values import GroupFailure, GroupResult, SignGroup
from hsmsign.signing.verify import Verifier
from hsmsign.store import VersionState

_SCHEMES: dict[tuple[KeyAlgorithm, Scheme | None], Scheme] = {
    **{(algorithm, scheme): scheme for algorithm in KeyAlgorithm for scheme in algorithm.schemes},
    **{(algorithm, None): algorithm.schemes[0] for algorithm in KeyAlgorithm if len(algorithm.schemes) == 1},
}
"""What `KeyAlgorithm.scheme` answers, where it answers."""

_ACTIONS = {InputKind.DIGEST: Action.SIGN_DIGEST, InputKind.MESSAGE: Action.SIGN}


class SigningPipeline:
    """Signs with whatever device holds the key. Deadlines are seconds of `time.monotonic()`, 0 for none.

    Cancelling a call takes what is not yet signed out of the device's queue.
    """

    def __init__(
        self,
        keyring: Keyring,
        places: Places,
        limits: Limits,
        policy: Policy,
        admission: Admission,
        audit: Audit,
        approvals: Approvals,
    ) -> None:
        self._keyring = keyring
        self._approvals = approvals
        self._policy = policy
        self._admission = admission
        self._audit = audit
        self._places = places
        self._limits = limits
        self._verifier = Verifier(limits)
        self._unheard: set[asyncio.Future[None]] = set()

    async def sign(
        self, caller: Caller, group: SignGroup, deadline: float = 0.0, request: str = "", *, own: bool = False
    ) -> GroupResult:
        """Sign all inputs of a group; what is wrong with single items stands in the answer. `request` is the id under
        which it is recorded: before it answers. `own`: the daemon itself made what is to be signed, and asked for
        another right than to sign it; purpose, approvals, limits and the audit log are as always.

        Raises what concerns the group as a whole: the right, the key, the scheme, the checksum, the device's queue;
        and AuditUnavailableError, where a signature was, or would be, made that could not be recorded.
        """
        self._audit.ready()
        started = time.perf_counter()

        def made(outcome: str, result: GroupResult | None = None, approval: str = "") -> SignaturesMade:
            return SignaturesMade(
                caller.name,
                request,
                result.key_version if result else group.name,
                result.scheme if result else group.scheme,
                group.kind,
                group.inputs,
                result.signatures if result else (),
                {one.index: one.error.reason for one in result.failures} if result and result.failures else {},
                outcome,
                time.perf_counter() - started,
                result.approval if result else approval,
            )

        try:
            result = await self._sign(caller, group, deadline, own=own)
        except HsmsignError as error:
            await self._audit.signatures(made(error.reason, approval=error.metadata.get("approval", "")))
            raise
        except asyncio.CancelledError:
            # the caller has gone: what the device signed until now is given to nobody
            self._unheard.add(task := asyncio.ensure_future(self._audit.signatures(made("CANCELLED"))))
            task.add_done_callback(self._unheard.discard)
            raise
        await self._audit.signatures(made(OK, result))
        return result

    async def _sign(self, caller: Caller, group: SignGroup, deadline: float, *, own: bool) -> GroupResult:
        data = group.inputs
        if not data:
            raise BatchSizeError("the group has no inputs", hint="send at least one")
        if own:
            key = self._keyring.cached(group.name) or await self._keyring.resolve(group.name)
        else:
            key = await self._permitted(caller, _ACTIONS[group.kind], group.name)
        if key.state is not VersionState.ENABLED:
            raise not_enabled(key)
        scheme = _SCHEMES.get((key.algorithm, group.scheme)) or key.algorithm.scheme(group.scheme)
        check.check_crc(data, group.crc32c)
        bad = check.failures(scheme, group.kind, data, self._limits)
        if key.purpose.kind is not PurposeKind.ANY and not (own and group.kind is InputKind.DIGEST):
            bad = misused(key, scheme, group, bad)
        if key.control.signing:
            return await self._approved(caller, bad, key, scheme, group, deadline)
        if bad:
            return await self._without(caller, bad, key, scheme, group, deadline)
        signed = await self._admitted(caller, key, scheme, group, data, deadline)
        return GroupResult(key.name, scheme, signed.signatures, signed.failures)

    async def sign_batch(
        self, caller: Caller, groups: list[SignGroup | HsmsignError], deadline: float = 0.0, request: str = ""
    ) -> list[GroupResult | HsmsignError]:
        """Sign several groups at the same time; the answers in their order, each a result or its error.

        A group that could not even be read stands there as its error, which is its answer. Raises
        BatchSizeError for too many inputs as a whole.
        """
        check.check_sizes(groups, self._limits)
        if len(groups) == 1:
            return [await self.sign_or_error(caller, groups[0], deadline, request)]
        async with asyncio.TaskGroup() as tasks:
            started = [tasks.create_task(self.sign_or_error(caller, group, deadline, request)) for group in groups]
        return [task.result() for task in started]

    async def sign_or_error(
        self, caller: Caller, group: SignGroup | HsmsignError, deadline: float, request: str = ""
    ) -> GroupResult | HsmsignError:
        """As `sign`, with the error as the answer. What comes as an error is answered with it, and not recorded: nobody
        here knows what it was about."""
        if isinstance(group, HsmsignError):
            return group
        try:
            return await self.sign(caller, group, deadline, request)
        except HsmsignError as error:
            return error

    async def sign_message(
        self, caller: Caller, group: SignGroup, deadline: float, request: str = ""
    ) -> GroupResult | HsmsignError:
        """As `sign_or_error`, for a group that is a call of its own: the limits of a batch hold for it. Raises
        BatchSizeError for one that is over them: that is for the caller of this to record."""
        check.check_sizes([group], self._limits)
        return await self.sign_or_error(caller, group, deadline, request)

    async def verify(self, caller: Caller, group: SignGroup, signature: bytes) -> tuple[str, bool]:
        """Check a signature over the group's one input: the version's name, and whether it is good."""
        key = await self._permitted(caller, Action.READ, group.name)
        scheme = key.algorithm.scheme(group.scheme)
        bad = check.failures(scheme, group.kind, group.inputs, self._limits)
        if bad:
            raise bad[0].error
        return key.name, await self._verifier.verify(key.public_key, scheme, group, signature)

    async def _permitted(self, caller: Caller, action: Action, name: str) -> ResolvedKey:
        """What the name stands for. Raises PermissionDeniedError, also where there is no such key: whoever may not
        use it does not learn which."""
        key = self._keyring.cached(name)
        if key is None:
            try:
                key = await self._keyring.resolve(name)
            except (NotFoundError, VersionStateError):
                self._policy.require(caller, action, await self._keyring.facts(name))
                raise
        self._policy.require(caller, action, key.facts)
        return key

    async def _approved(
        self,
        caller: Caller,
        bad: list[GroupFailure],
        key: ResolvedKey,
        scheme: Scheme,
        group: SignGroup,
        deadline: float,
    ) -> GroupResult:
        """Sign what others have approved. Nobody is asked about an input that is no good."""
        if bad:
            raise bad[0].error

        async def sign() -> Signed:
            return await self._admitted(caller, key, scheme, group, group.inputs, deadline)

        signed, approval = await sign_approved(self._approvals, caller, key, scheme, group, sign)
        return GroupResult(key.name, scheme, signed.signatures, signed.failures, approval)

    async def _admitted(
        self, caller: Caller, key: ResolvedKey, scheme: Scheme, group: SignGroup, data: list[bytes], deadline: float
    ) -> Signed:
        """Have inputs of a group signed, where the caller may have so many at a time."""
        order = SignOrder(key.locator, scheme, group.kind, group.format, data, deadline, _flow(caller))
        with self._admission.admit(caller, key.facts, len(data)):
            return await self._places.sign(key, order)

    async def _without(
        self,
        caller: Caller,
        bad: list[GroupFailure],
        key: ResolvedKey,
        scheme: Scheme,
        group: SignGroup,
        deadline: float,
    ) -> GroupResult:
        """Sign the good items of a group that has bad ones."""
        spoilt = {failure.index for failure in bad}
        good = [index for index in range(len(group.inputs)) if index not in spoilt]
        signed = Signed([])
        if good:
            data = [group.inputs[index] for index in good]
            signed = await self._admitted(caller, key, scheme, group, data, deadline)
        signatures = [b""] * len(group.inputs)
        for index, signature in zip(good, signed.signatures, strict=True):
            signatures[index] = signature
        moved = [GroupFailure(good[one.index], one.error) for one in signed.failures]
        return GroupResult(key.name, scheme, signatures, sorted([*bad, *moved], key=lambda failure: failure.index))


def _flow(caller: Caller) -> int:
    """Callers take turns on a device; two of them may share one."""
    return zlib.crc32(caller.name.encode()) % FLOWS


def not_enabled(key: ResolvedKey) -> VersionStateError:
    """The error for a version that must not sign."""
    state = "disabled" if key.state is VersionState.DISABLED else "destroyed"
    hint = f"enable it: hsmsign key enable {key.name}" if state == "disabled" else "name another version"
    return VersionStateError(f"{key.name} is {state}", hint=hint, metadata={"name": key.name, "state": state})

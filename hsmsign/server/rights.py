"""May this caller do that? Asked before anything else is."""

from __future__ import annotations

from collections.abc import Mapping

from hsmsign.keyring import Key, Keyring
from hsmsign.model.caller import Caller
from hsmsign.model.errors import PermissionDeniedError
from hsmsign.model.key_facts import KeyFacts
from hsmsign.model.purpose import PurposeKind
from hsmsign.policy import Action, Policy


class Rights:
    """The policy, asked about key handles. Every method raises PermissionDeniedError."""

    def __init__(self, policy: Policy, keyring: Keyring) -> None:
        self._policy = policy
        self._keyring = keyring

    async def to(self, caller: Caller, action: Action, name: str) -> None:
        """To do that with a key or a version, whether there is one or not."""
        self._policy.require(caller, action, await self._keyring.facts(name))

    async def has(self, caller: Caller, action: Action, name: str) -> bool:
        """Whether it has the right to do that; raises nothing."""
        return self._policy.decide(caller, action, await self._keyring.facts(name)).allowed

    def allow(self, caller: Caller, action: Action, facts: KeyFacts) -> bool:
        """The same for a key of which that is known."""
        return self._policy.decide(caller, action, facts).allowed

    def to_make(self, caller: Caller, facts: KeyFacts, *, adopt: bool) -> None:
        """To make a key with this name and these labels; to adopt one, which may be any object of the token."""
        self._policy.require(caller, Action.CREATE, facts)
        if adopt:
            self._policy.require(caller, Action.ADMIN, facts)

    async def to_change(
        self, caller: Caller, name: str, labels: Mapping[str, str] | None, purpose: PurposeKind | None
    ) -> None:
        """To give a key these labels, this purpose, or both, instead of those that it has: rights may hang on both."""
        facts = await self._keyring.facts(name)
        self._policy.require(caller, Action.ADMIN, facts)
        new = tuple(sorted(labels.items())) if labels is not None else facts.labels
        self._policy.require(caller, Action.ADMIN, KeyFacts(facts.id, new, facts.algorithm, purpose or facts.purpose))

    def sees(self, caller: Caller, key: Key) -> bool:
        """Whether a list of keys shows this one."""
        return self._policy.decide(caller, Action.READ, key.facts).allowed

    def to_audit(self, caller: Caller) -> None:
        """To read the audit log."""
        self._policy.require(caller, Action.AUDIT, None)

    def to_anything(self, caller: Caller) -> None:
        """To anything at all."""
        if not self._policy.knows(caller):
            raise PermissionDeniedError(
                f"{caller.name} may do nothing here",
                hint="no rule of the policy is about this caller",
                metadata={"principal": caller.name},
            )

"""May this caller do that with an authority? Rights of an authority are those of its key."""

from __future__ import annotations

from hsmsign.keyring import Keyring
from hsmsign.model.ca_names import AuthorityName
from hsmsign.model.caller import Caller
from hsmsign.model.errors import (
    AuthorityNotFoundError,
    AuthorityStateError,
    KeyNotFoundError,
    PermissionDeniedError,
)
from hsmsign.model.key_facts import KeyFacts
from hsmsign.model.names import KeyName
from hsmsign.pki.authority import Authority, Version
from hsmsign.pki.directory import Directory
from hsmsign.policy import Action
from hsmsign.server.rights import Rights


class AuthorityRights:
    """The policy, asked about authorities."""

    def __init__(self, directory: Directory, keyring: Keyring, rights: Rights) -> None:
        self._directory = directory
        self._keyring = keyring
        self._rights = rights

    async def require(self, caller: Caller, action: Action, name: AuthorityName) -> None:
        """Raise PermissionDeniedError where the caller may not, whether there is such an authority or not."""
        try:
            facts = await self._facts(await self._directory.version(AuthorityName(name.id)))
        except (AuthorityNotFoundError, AuthorityStateError, KeyNotFoundError):
            facts = await self._keyring.facts(str(KeyName(name.id)))
        if not self._rights.allow(caller, action, facts):
            raise PermissionDeniedError(
                f"{caller.name} may not {action.value} with cas/{name.id}",
                hint="rights of an authority are those of its key; see: hsmsign policy check",
                metadata={"principal": caller.name, "action": action.value},
            )

    async def has(self, caller: Caller, action: Action, authority: Authority) -> bool:
        """Whether it may; raises nothing."""
        if not authority.versions:
            return False
        return self._rights.allow(caller, action, await self._facts(authority.versions[-1]))

    async def _facts(self, version: Version) -> KeyFacts:
        """Of a version's key; from memory, as a rule."""
        name = version.row.key_version
        key = self._keyring.cached(name) or await self._keyring.resolve(name)
        return key.facts

"""Which profiles there are, and who may use them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from hsmsign.model.caller import Caller
from hsmsign.model.errors import ProfileError, ProfileNotFoundError
from hsmsign.model.patterns import matcher
from hsmsign.pki.profiles import Profile


class Catalogue:
    """The profiles of a daemon."""

    def __init__(self, profiles: Iterable[Profile]) -> None:
        self._known = {profile.name: (profile, matcher(profile.principals)) for profile in profiles}

    def profile(self, name: str, caller: Caller, authority: str) -> Profile:
        """A profile for a caller who wants an authority (its id) to issue by it. Raises ProfileNotFoundError, also
        where the caller may not use it, and ProfileError where the authority does not."""
        found = self._known.get(name)
        if found is None or not self._may(name, caller):
            allowed = [one.name for one in self.of(caller)]
            near = difflib.get_close_matches(name[:80], allowed, n=1)  # it may be long, and this takes its square
            raise ProfileNotFoundError(
                f"{caller.name} may use no profile {name[:80]!r}" + (f" (did you mean {near[0]!r}?)" if near else ""),
                hint=f"it may use: {', '.join(allowed) or 'none; see principals in the profiles of the configuration'}",
            )
        profile = found[0]
        if profile.authorities and authority not in profile.authorities:
            raise ProfileError(
                f"cas/{authority} does not issue by profile {name!r}",
                hint=f"ask one of: {', '.join(f'cas/{one}' for one in profile.authorities)}",
                metadata={"profile": name, "check": "authority"},
            )
        return profile

    def of(self, caller: Caller) -> list[Profile]:
        """Those that a caller may use."""
        return [profile for name, (profile, _) in self._known.items() if self._may(name, caller)]

    def named(self, name: str) -> Profile:
        """A profile, whoever may use it. Raises ProfileNotFoundError."""
        if name not in self._known:
            raise ProfileNotFoundError(f"there is no profile {name[:80]!r}")
        return self._known[name][0]

    def _may(self, name: str, caller: Caller) -> bool:
        profile, matches = self._known[name]
        return bool(profile.principals) and any(matches(one) for one in caller.names)

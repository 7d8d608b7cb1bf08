"""The one form in which a request that does not fit its profile is refused."""

from __future__ import annotations

from hsmsign.model.errors import ProfileError
from hsmsign.pki.profiles import Profile


def refused(profile: Profile, check: str, message: str, hint: str) -> ProfileError:
    """The error: what was asked for (`message`) is not what the profile wants (`hint`).

    `check` is one of key, identity, names, subject, extensions, validity.
    """
    return ProfileError(
        f"profile {profile.name!r}: {message}", hint=hint, metadata={"profile": profile.name, "check": check}
    )

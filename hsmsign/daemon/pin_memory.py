"""What is known of a token's PIN, where it outlives the device host that tried it."""

from __future__ import annotations

from hsmsign.backends.base import BackendConfig
from hsmsign.backends.pin import Stamp, stamp

REFUSED = frozenset({"PIN_REFUSED", "PIN_LOCKED"})
"""States of a device whose PIN must not be tried again by itself."""
_Mark = tuple[BackendConfig, tuple[Stamp, ...]]


class PinMemory:
    """Whether the next device host may try the PIN.

    Not after it was refused, and not after a host ended inside its login, which may have used up a try; unless the
    very PIN that it tried has opened the token before. Which PIN that is, is told by where it lies and when that
    was written (`hsmsign.backends.pin.stamp`): it is never read here.
    """

    def __init__(self) -> None:
        self.refused = False
        self._seen: _Mark | None = None
        self._tried: _Mark | None = None
        self._good: _Mark | None = None
        self._logging_in = False

    def host_starts(self, backend: BackendConfig) -> None:
        """A host is about to be told of this backend."""
        self._seen, self._logging_in = _mark(backend), False

    def login_begins(self, backend: BackendConfig) -> None:
        """The host has read the PIN and tries it."""
        now = _mark(backend)
        # written anew while the host read it: who knows which of the two it has
        self._tried = now if now == self._seen else None
        self._seen, self._logging_in = now, True

    def device_is(self, state: str) -> None:
        """The host says how its device is."""
        self._logging_in = False
        # the next host says STARTING first, and perhaps that the token is away: only a login that went well, or a
        # person's reload, takes a refusal back
        if state in REFUSED:
            self.refused, self._good = True, None
        elif state == "READY":
            self.refused, self._good = False, self._tried

    def host_ended(self) -> bool:
        """The host is gone. True where the PIN is given a rest from now on because of it."""
        unfinished, self._logging_in = self._logging_in, False
        if not unfinished or (self._tried is not None and self._tried == self._good):
            return False
        self.refused = True
        return True

    def person_reloads(self) -> None:
        """A person's word that the PIN may be tried again."""
        self.refused = self._logging_in = False


def _mark(backend: BackendConfig) -> _Mark | None:
    try:
        return backend, tuple(stamp(source) for source in backend.secrets)
    except OSError:  # it cannot be looked at, now
        return None

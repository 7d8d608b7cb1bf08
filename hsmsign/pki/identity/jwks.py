"""The keys of one issuer, kept as long as they are good and fetched as seldom as can be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from hsmsign.model.errors import IdentityUnavailableError
from hsmsign.pki.identity import fetching, keysets
from hsmsign.pki.identity.fetching import NotRead, Stamp
from hsmsign.pki.identity.issuers import IssuerRules, Kind
from hsmsign.pki.identity.keysets import IssuerKey

FRESH_SECONDS = 3600.0
"""So old keys are fetched again."""
KEPT_SECONDS = 24 * 3600.0
"""So old keys are not used any more, though there are no others."""
REST_SECONDS = 30.0
"""Between two readings while there are keys that can be used: whoever sends us tokens does not make us fetch."""
RETRY_SECONDS = 5.0
"""Between two readings while there are none."""
FETCH_SECONDS = 5.0


class KeySource:
    """The keys of an issuer, from its host or from a file. One reading is under way at a time, and all wait for it."""

    def __init__(
        self, rules: IssuerRules, clock: Callable[[], float] = time.monotonic, seconds: float = FETCH_SECONDS
    ) -> None:
        """`clock` is in seconds and never goes back; `seconds` is how long a reading may take."""
        self._rules = rules
        self._uses = ("sig", "jwt-svid") if rules.kind is Kind.SPIFFE else ("sig",)
        self._clock = clock
        self._seconds = seconds
        self._keys: tuple[IssuerKey, ...] | None = None
        self._stamp: Stamp | None = None
        self._read_at = 0.0
        self._tried_at: float | None = None
        self._flight: asyncio.Task[None] | None = None
        self._failure = ""

    @property
    def failure(self) -> str:
        """Why the last reading failed; nothing: it did not."""
        return self._failure

    async def keys(self) -> tuple[IssuerKey, ...]:
        """The keys. Raises IdentityUnavailableError where there are none and none can be had."""
        if self._due():
            await self._read()
        if self._keys is None or self._age() > KEPT_SECONDS:
            raise self.unavailable()
        return self._keys

    async def renew(self) -> bool:
        """Read them again for a token whose key is unknown; whether that was done, or it is too early."""
        if self._flight is None and not self._rested(REST_SECONDS):
            return False
        await self._read()
        return True

    def unavailable(self) -> IdentityUnavailableError:
        """The error for a key that cannot be had now."""
        return IdentityUnavailableError(
            f"the keys of the identity issuer {self._rules.name!r} cannot be had: {self._failure or 'not read yet'}",
            hint="see jwks_url, jwks_file and jwks_ca of the issuer, and whether this machine gets there",
            metadata={"issuer": self._rules.name},
            retry_after=RETRY_SECONDS,
        )

    def _age(self) -> float:
        return self._clock() - self._read_at

    def _due(self) -> bool:
        if self._rules.jwks_file is not None:
            # to see whether it is still the same costs next to nothing
            return True
        if self._keys is not None and self._age() <= FRESH_SECONDS:
            return False
        usable = self._keys is not None and self._age() <= KEPT_SECONDS
        return self._flight is not None or self._rested(REST_SECONDS if usable else RETRY_SECONDS)

    def _rested(self, seconds: float) -> bool:
        return self._tried_at is None or self._clock() - self._tried_at >= seconds

    async def _read(self) -> None:
        """Join the reading that is under way, or begin one; give up waiting when it takes too long."""
        if self._flight is None:
            self._tried_at = self._clock()
            self._flight = asyncio.create_task(self._attempt(), name=f"keys of {self._rules.name}")
        # neither a caller that goes away nor one that gives up ends what others wait for
        done, _ = await asyncio.wait({self._flight}, timeout=self._seconds)
        if not done:
            self._failure = f"no answer within {self._seconds:g} s"

    async def _attempt(self) -> None:
        try:
            found = await asyncio.to_thread(self._load)
        except NotRead as error:
            self._failure = str(error)
        else:
            self._failure = ""
            self._read_at = self._clock()
            if found is not None:
                self._stamp, self._keys = found
        finally:
            self._flight = None

    def _load(self) -> tuple[Stamp | None, tuple[IssuerKey, ...]] | None:
        """In a thread: what is to be kept; None: what there is. Raises NotRead."""
        place: object = self._rules.jwks_url
        stamp: Stamp | None = None
        if self._rules.jwks_file is not None:
            place = self._rules.jwks_file
            found = fetching.read(self._rules.jwks_file, self._stamp)
            if found is None:
                return None
            stamp, data = found
        else:
            data = fetching.fetch(self._rules.jwks_url, self._rules.jwks_ca, self._seconds)
        try:
            return stamp, keysets.parse(data, self._uses)
        except ValueError as error:
            raise NotRead(f"{place} has no keys: {error}") from None

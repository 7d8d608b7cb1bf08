"""What is recorded of calls and signatures, before their answers leave."""

from __future__ import annotations

from typing import Protocol

from hsmsign.audit.recorder import Recorder
from hsmsign.audit.records import CallMade, Records, SignaturesMade


class Audit(Protocol):
    """Records. What it raises is AuditUnavailableError."""

    def ready(self) -> None:
        """Raise where it is known that nothing can be recorded now."""

    async def call(self, made: CallMade) -> None:
        """A call that signs nothing."""

    async def signatures(self, made: SignaturesMade) -> None:
        """Signatures with one key, or why there are none."""


class LoggedAudit:
    """Into the audit log: answers when the records are durable, or, where it is not `durable`, on their way."""

    def __init__(self, recorder: Recorder, *, durable: bool) -> None:
        self._recorder = recorder
        self._durable = durable
        self._records = Records()

    def ready(self) -> None:
        """Raise where it is known that nothing can be recorded now."""
        self._recorder.ready()

    async def call(self, made: CallMade) -> None:
        """One record."""
        done = self._recorder.write([self._records.call(made)])
        if self._durable:
            await done

    async def signatures(self, made: SignaturesMade) -> None:
        """A record for each 1,024 of them."""
        done = self._recorder.write(self._records.signatures(made))
        if self._durable:
            await done


class NoAudit:
    """Nothing is recorded: an explicit choice."""

    def ready(self) -> None:
        """Always."""

    async def call(self, made: CallMade) -> None:
        """Nothing."""

    async def signatures(self, made: SignaturesMade) -> None:
        """Nothing."""

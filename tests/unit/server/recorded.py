"""An audit log in memory, for tests of what is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from hsmsign.audit.records import CallMade, SignaturesMade


@dataclass
class Kept:
    """An audit log in memory. `gate`: what is recorded is not durable before it."""

    calls: list[CallMade] = field(default_factory=list)
    groups: list[SignaturesMade] = field(default_factory=list)
    gate: asyncio.Event | None = None

    def ready(self) -> None:
        pass

    async def call(self, made: CallMade) -> None:
        self.calls.append(made)
        if self.gate is not None:
            await self.gate.wait()

    async def signatures(self, made: SignaturesMade) -> None:
        self.groups.append(made)
        if self.gate is not None:
            await self.gate.wait()

    def said(self) -> list[tuple[str, str, str]]:
        return [(one.method, one.name, one.outcome) for one in self.calls]


async def reached(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)

"""Runs the loads of a plan, one after the other, each between two looks at the bare device where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hsmsign.client import Client
from hsmsign.measuring import loads
from hsmsign.measuring.device import BareDevice
from hsmsign.measuring.plan import Load, LoadKind, Subject
from hsmsign.measuring.tally import Figures, Tally


@dataclass(frozen=True, slots=True)
class Measured:
    """One load, and what came of it."""

    load: Load
    figures: Figures
    device_rate: float | None = None
    """Signatures a second of the bare device, before and after; None where there is none, or where it was cut off."""
    complete: bool = True
    """False where a person had seen enough."""

    @property
    def ratio(self) -> float | None:
        """To the bare device."""
        return self.figures.rate / self.device_rate if self.device_rate else None


def measure(
    client: Client,
    subject: Subject,
    chosen: Sequence[Load],
    seconds: float,
    device: BareDevice | None,
    say: Callable[[str], object],
) -> Iterator[Measured]:
    """Each load, when it is done; one that is interrupted as far as it came, and then KeyboardInterrupt.

    `say` is told what begins. Raises HsmsignError, the first that any caller meets.
    """

    def alone() -> float:
        if device is None:
            return 0.0
        say("the bare device")
        return device.rate(seconds)

    before = alone()
    for load in chosen:
        say(load.words)
        tally = Tally(seconds, load.count if load.kind is LoadKind.BATCH else 1)
        try:
            loads.run(client, subject, load, tally)
        except KeyboardInterrupt:
            if (figures := tally.figures()) is not None:
                yield Measured(load, figures, complete=False)
            raise
        after = alone()
        if (figures := tally.figures()) is not None:
            yield Measured(load, figures, (before + after) / 2 or None)
        before = after

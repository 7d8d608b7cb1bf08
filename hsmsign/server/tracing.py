"""What a trace is told of a call. Which tracing there is, and whether, is for who makes the server."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

Metadata = Iterable[tuple[str, str | bytes]]


@dataclass(slots=True)
class Ended:
    """How a call ended. No message, no signature, no key byte."""

    request_id: str
    caller: str = ""
    code: str = ""
    """The gRPC status, OK or what went wrong."""
    reason: str = ""
    """The reason of the error."""


class CallSpan(Protocol):
    """A call in a trace."""

    def ended(self, how: Ended) -> None:
        """Told once, when it is over."""


class Tracing(Protocol):
    """Makes spans."""

    def call(self, service: str, method: str, metadata: Metadata) -> AbstractContextManager[CallSpan]:
        """A span around a call, which belongs to the trace that the caller's metadata name (W3C Trace Context). What
        happens inside it, also in tasks that are made there, belongs to it."""

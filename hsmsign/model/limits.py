"""How much one caller may ask for at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of requests, in bytes and items."""

    max_message_bytes: int = 1 << 20
    """Of one input."""
    max_batch_items: int = 10_000
    """Of one call, over all its groups; also the most groups."""
    max_batch_bytes: int = 16 << 20
    """Of one call's inputs; also of what a stream holds at a time."""
    max_request_bytes: int = 20 << 20
    """Of one gRPC message."""
    stream_window: int = 1024
    """Inputs of one stream that are not answered yet; then the stream is read no further."""
    max_in_flight: int = 65_536
    """Signatures of all callers that wait for, or are under way on, one device."""
    max_in_flight_per_caller: int = 32_768
    """Of those, one caller's, over all devices; a call of more gets in alone."""
    max_calls_per_caller: int = 1024
    """Calls of one caller that are under way."""
    max_connections_per_caller: int = 512
    """Connections of one caller that are open; over the Unix socket half of all there at most."""

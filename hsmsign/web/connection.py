"""A connection to an HTTP port, as strangers make them. HTTP is uvicorn's and h11's; uvicorn alone waits for ever for a
first request, for the rest of a body, and for who does not read an answer."""

from __future__ import annotations

import asyncio
import fcntl
import ipaddress
import struct
import termios
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_SOME = 16 << 10
"""Bytes of an answer, the least that is to be read in the time."""


class Connection(H11Protocol):
    """It is closed where a whole request is not there `patience` seconds after it was made or after its last answer,
    where less than 16 KiB of an answer are read in as long, and at once where it is one too many."""

    def __init__(self, *, connections: int, share: int, patience: float, **uvicorn: Any) -> None:
        """`connections`: how many may be open to the port, `share`: how many of them from one address."""
        super().__init__(**uvicorn)
        self.origin = ""
        """The address that it is counted for."""
        self._limits = connections, share
        self._patience = patience
        self._end: asyncio.TimerHandle | None = None
        self._unread = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Of TLS: after the handshake."""
        super().connection_made(transport)
        self.origin = _origin(self.client[0]) if self.client else ""
        connections, share = self._limits
        same = sum(isinstance(one, Connection) and one.origin == self.origin for one in self.connections)
        if len(self.connections) > connections or same > share:
            transport.abort()
        else:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """However it ended."""
        self._rest()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """A part of a request came."""
        super().handle_events()
        if not self._waits():  # and else the time goes on: a byte now and then is no request
            self._rest()

    def on_response_complete(self) -> None:
        """The next request may be there already, so this comes first."""
        self._watch()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """More of an answer is there than the client takes."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """It took some."""
        super().resume_writing()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """To what is no HTTP. Nothing more is said where that came in the midst of an answer, or while one was made."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:
            self.transport.abort()

    def _waits(self) -> bool:
        """Whether it is the client that we wait for: to send a request, or to read an answer."""
        answering = self.cycle is not None and not self.cycle.response_complete
        whole = self.conn.their_state in (h11.DONE, h11.MUST_CLOSE)
        return self.flow.write_paused or not (answering and whole)

    def _watch(self) -> None:
        self._rest()
        if self._waits():
            self._unread = _unread(self.transport)
            self._end = self.loop.call_later(self._patience, self._look)

    def _look(self) -> None:
        if self._unread - _unread(self.transport) >= _SOME:
            self._watch()
        else:
            self.transport.abort()  # with what is left of an answer: it was not read

    def _rest(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None


def _unread(transport: asyncio.Transport) -> int:
    """Bytes of answers that did not arrive; with those in the kernel, which takes some and tells of no small steps."""
    try:
        found = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:
        found = bytes(4)
    (queued,) = struct.unpack("i", found)
    return transport.get_write_buffer_size() + int(queued)


def _origin(host: str) -> str:
    """The address; of IPv6 its network of 64 bits, which is one host's to use."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    return str(address.ipv4_mapped or address.packed[:8].hex())

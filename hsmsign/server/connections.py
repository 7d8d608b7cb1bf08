"""How many TCP connections a caller has open.

gRPC tells a service the peer of each call, and nothing when a connection ends. So the peers of a caller are kept as
they are met, and where there are too many the kernel is asked which of them are still there.

All workers count in one ledger, and each knows its own: where what the others have is too much they are asked to look,
which takes them a second.
"""

from __future__ import annotations

import functools
import ipaddress
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import unquote

from hsmsign.ledger import Bell, Claim, Claims, Ledger
from hsmsign.model.errors import CallerLimitError

_TABLES = ("/proc/self/net/tcp", "/proc/self/net/tcp6")
_ESTABLISHED = "01"
_LOOK_EVERY = 1.0
"""Seconds between two looks at one caller's connections."""
_FORGET_EVERY = 4096
"""New peers after which all that are gone are forgotten."""
_REMEMBERED = 4096


class Connections:
    """The TCP connections of all callers of one worker."""

    def __init__(
        self,
        most: int,
        established: Callable[[], set[str]] | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        ledger: Ledger | None = None,
        generation: int = 0,
    ) -> None:
        """`most`: of one caller. `established` gives the remote ends of the connections that there are."""
        self._most = most
        self._ledger = ledger or Ledger.alone()
        self._generation = generation
        self._rung = self._ledger.rung(Bell.CONNECTIONS)
        self._claims = functools.lru_cache(_REMEMBERED)(self._claims_of)
        self._established = established or (lambda: set(_remote_ends(_TABLES)))
        self._clock = clock
        self._peers: dict[str, set[str]] = {}
        self._looked: dict[str, float] = {}
        self._met = 0

    def met(self, caller: str, peer: str) -> None:
        """A call of `caller` came on the connection `peer`, gRPC's word for its remote end.

        Raises CallerLimitError where it is one connection too many."""
        peers = self._peers.get(caller)
        if (peers is not None and peer in peers) or not peer.startswith("ip"):
            return
        refused = self._ledger.enter(self._claims(caller), 1)
        if refused is not None and self._looks(caller):
            refused = self._ledger.enter(self._claims(caller), 1)
            if refused is not None:  # only then was it in vain: callers that come and go are not refused
                self._looked[caller] = self._clock()
                self._ledger.ring(Bell.CONNECTIONS)
        if refused is not None:
            raise CallerLimitError(
                f"{caller} has {refused.under_way} connections open, and may have no more",
                hint="use fewer, each for many calls; see server.limits.max_connections_per_caller",
                metadata={"principal": caller},
                retry_after=_LOOK_EVERY,
            )
        self._peers.setdefault(caller, set()).add(peer)
        self._met += 1
        if self._met % _FORGET_EVERY == 0:
            self._forget()

    def look(self) -> None:
        """Forget connections that are gone, where another worker asked for it since the last time."""
        rung = self._ledger.rung(Bell.CONNECTIONS)
        if rung != self._rung:
            self._rung = rung
            self._forget()

    def _claims_of(self, caller: str) -> Claims:
        return Claims([Claim(("connections", str(self._generation), caller), most=self._most)])

    def _looks(self, caller: str) -> bool:
        """Forget those of a caller that are gone, unless that was in vain just now."""
        if self._clock() - self._looked.get(caller, -_LOOK_EVERY) < _LOOK_EVERY:
            return False
        if caller in self._peers:
            self._keep(caller, self._established())
        return True

    def _forget(self) -> None:
        there = self._established()
        for caller in list(self._peers):
            self._keep(caller, there)
        self._looked = {caller: at for caller, at in self._looked.items() if caller in self._peers}

    def _keep(self, caller: str, there: set[str]) -> None:
        before = self._peers[caller]
        left = {peer for peer in before if _end(peer) in there}
        if len(left) < len(before):
            self._ledger.leave(self._claims(caller), len(before) - len(left))
        if left:
            self._peers[caller] = left
        else:
            del self._peers[caller]


def _end(peer: str) -> str:
    """`ipv4:127.0.0.1:4711`, `ipv6:%5B::1%5D:4711` as ADDRESS PORT."""
    host, _, port = unquote(peer.partition(":")[2]).rpartition(":")
    return f"{_plain(ipaddress.ip_address(host.strip('[]').partition('%')[0]))} {port}"


def _plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """An IPv4 address that came over an IPv6 socket is an IPv4 address."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _remote_ends(tables: Iterable[str]) -> Iterable[str]:
    """proc(5): the addresses are words of 32 bits in the machine's order, in hexadecimal."""
    for table in tables:
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:  # no IPv6 here
            continue
        for line in lines:
            fields = line.split()
            if fields[3] != _ESTABLISHED:
                continue
            words, _, port = fields[2].partition(":")
            packed = b"".join(int(words[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(words), 8))
            yield f"{_plain(ipaddress.ip_address(packed))} {int(port, 16)}"

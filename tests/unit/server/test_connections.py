"""How many connections a caller may have, with real sockets and the kernel's own table."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from hsmsign.model.errors import CallerLimitError
from hsmsign.server.connections import Connections


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Opened:
    """Connections to a listener of the test's own."""

    def __init__(self, family: socket.AddressFamily, host: str, *, through: str = "") -> None:
        self._listener = socket.create_server((host, 0), family=family, dualstack_ipv6=False)
        if through:
            self._listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        self._host = through or host
        self.ends: dict[str, tuple[socket.socket, socket.socket]] = {}

    def open(self) -> str:
        """One more; what gRPC calls its peer."""
        caller = socket.create_connection((self._host, self._listener.getsockname()[1]))
        accepted, _ = self._listener.accept()
        host, port = caller.getsockname()[:2]
        peer = f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"
        self.ends[peer] = caller, accepted
        return peer

    def shut(self, peer: str) -> None:
        for end in self.ends.pop(peer):
            end.close()


@pytest.fixture(params=["127.0.0.1", "::1", "mapped"])
def opened(request: pytest.FixtureRequest) -> Iterator[Opened]:
    if request.param == "mapped":
        made = Opened(socket.AF_INET, "127.0.0.1", through="127.0.0.1")
    else:
        family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
        made = Opened(family, request.param)
    yield made
    for peer in list(made.ends):
        made.shut(peer)


def test_as_many_as_may_be_and_not_one_more(opened: Opened) -> None:
    clock = Clock()
    limit = Connections(3, clock=clock)
    peers = [opened.open() for _ in range(4)]
    for peer in peers[:3] * 2:
        limit.met("ann", peer)
    with pytest.raises(CallerLimitError, match="ann has 3 connections open") as refused:
        limit.met("ann", peers[3])
    assert refused.value.retry_after
    limit.met("bob", peers[3])
    limit.met("ann", peers[0])  # those that are open go on
    opened.shut(peers[1])
    with pytest.raises(CallerLimitError):
        limit.met("ann", opened.open())  # the kernel is asked once a second
    clock.now += 1
    limit.met("ann", opened.open())
    with pytest.raises(CallerLimitError):
        limit.met("ann", opened.open())


def test_a_caller_that_opens_and_shuts_many_within_a_second_is_not_refused(opened: Opened) -> None:
    limit = Connections(3, clock=Clock())
    for _ in range(20):
        peer = opened.open()
        limit.met("ann", peer)
        opened.shut(peer)
    for _ in range(3):
        limit.met("ann", opened.open())
    with pytest.raises(CallerLimitError):
        limit.met("ann", opened.open())


def test_the_kernel_is_asked_once_a_second_for_a_caller_that_has_too_many() -> None:
    asked: list[int] = []

    def established() -> set[str]:
        asked.append(1)
        return {f"10.0.0.1 {port}" for port in range(1, 4)}

    clock = Clock()
    limit = Connections(3, established, clock)
    for port in range(1, 4):
        limit.met("ann", f"ipv4:10.0.0.1:{port}")
    for port in range(4, 24):
        with pytest.raises(CallerLimitError):
            limit.met("ann", f"ipv4:10.0.0.1:{port}")
    assert len(asked) == 1
    clock.now += 1
    with pytest.raises(CallerLimitError):
        limit.met("ann", "ipv4:10.0.0.1:99")
    assert len(asked) == 2


def test_connections_over_the_unix_socket_are_the_doormans_business() -> None:
    limit = Connections(1)
    for number in range(5):
        limit.met("unix:0", f"unix-abstract:door/0/0/1/{number}")


def test_callers_that_are_gone_are_forgotten() -> None:
    seen: list[int] = []

    def established() -> set[str]:
        seen.append(1)
        return {"10.0.0.1 1"}

    limit = Connections(10, established)
    for port in range(4096):
        limit.met(f"caller-{port}", f"ipv4:10.0.0.1:{port + 1}")
    assert len(seen) == 1
    assert list(limit._peers) == ["caller-0"]

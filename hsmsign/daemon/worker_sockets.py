"""What a front worker inherits from the supervisor: sockets, and memory that it shares with the other workers."""

from __future__ import annotations

import argparse
import os
import socket
from dataclasses import dataclass

from hsmsign.ledger import Ledger

_SOCKETS = ("unix", "metrics", "web", "enroll")


@dataclass(frozen=True, slots=True)
class Inherited:
    """What the supervisor has opened; None: it is not wanted."""

    unix: socket.socket | None
    metrics: socket.socket | None
    web: socket.socket | None
    enroll: socket.socket | None
    ledger: Ledger


def add_options(parser: argparse.ArgumentParser) -> None:
    """How a worker is told of them."""
    for name in _SOCKETS:
        parser.add_argument(f"--{name}-fd", type=int)
    parser.add_argument("--ledger-fd", type=int, required=True)


def inherit(arguments: argparse.Namespace, slot: int) -> Inherited:
    """Take over what the options name. Raises HsmsignError."""
    sockets = {name: _socket(getattr(arguments, f"{name}_fd")) for name in _SOCKETS}
    ledger = Ledger(arguments.ledger_fd, slot)
    os.close(arguments.ledger_fd)
    return Inherited(**sockets, ledger=ledger)


def _socket(fd: int | None) -> socket.socket | None:
    if fd is None:
        return None
    os.set_inheritable(fd, False)
    return socket.socket(fileno=fd)

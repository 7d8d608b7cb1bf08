"""What callers connect to: opened once, and handed to every worker."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

from hsmsign.daemon import listeners
from hsmsign.daemon.config import Config


class Doors:
    """The sockets of a configuration, and their names."""

    def __init__(self, config: Config) -> None:
        """Open them. Raises ConfigurationError."""
        self.endpoint = ""
        """HOST:PORT of gRPC, where each worker listens by itself; "": nowhere."""
        self.endpoints: dict[str, str] = {"metrics": "", "web": "", "enroll": ""}
        """Those of the HTTP ports, by their names."""
        self._reserved: list[socket.socket] = []
        self._given: dict[str, socket.socket] = {}
        if config.listen is not None:
            host, port = config.listen
            reserved, port = listeners.reserve_port(host, port)
            self._reserved.append(reserved)
            self.endpoint = _endpoint(host, port)
        for name, address in (("metrics", config.metrics), ("web", config.web), ("enroll", config.enroll)):
            if address is not None:
                self._given[name], self.endpoints[name] = _listen(*address)
        self._unix = None
        if config.unix_socket is not None:
            self._unix = self._given["unix"] = listeners.open_public_unix(config.unix_socket, config.unix_group)

    def options(self) -> Mapping[str, socket.socket]:
        """For a worker's command line."""
        return {f"--{name}-fd": sock for name, sock in self._given.items()}

    def close(self) -> None:
        """Let go of the sockets, and of the path in the file system."""
        if self._unix is not None:
            Path(self._unix.getsockname()).unlink(missing_ok=True)
        for sock in (*self._reserved, *self._given.values()):
            sock.close()


def _listen(host: str, port: int) -> tuple[socket.socket, str]:
    """A port on which workers answer HTTP, and its name."""
    reserved, port = listeners.reserve_port(host, port)
    reserved.listen()
    return reserved, _endpoint(host, port)


def _endpoint(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

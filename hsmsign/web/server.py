"""An HTTP port: what is on it is told by who makes the application."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the worker's business."""
        yield


class WebServer:
    """Serves on a socket that somebody else has opened. Belongs to one event loop."""

    def __init__(self, sock: socket.socket, application: Starlette, connections: int) -> None:
        """`connections`: how many may be open at a time."""
        self._socket = sock
        self._server = _Server(
            uvicorn.Config(
                application,
                log_config=None,
                access_log=False,
                lifespan="off",
                http="h11",
                server_header=False,
                limit_concurrency=connections,
                timeout_keep_alive=5,
            )
        )

    async def run(self) -> None:
        """Serve until `stop`."""
        await self._server.serve(sockets=[self._socket])

    def stop(self) -> None:
        """Take no more requests."""
        self._server.should_exit = True

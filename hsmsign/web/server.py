"""An HTTP port: what is on it is told by who makes the application."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette

from hsmsign.model.tls import TlsPaths


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the worker's business."""
        yield


class WebServer:
    """Serves on a socket that somebody else has opened. Belongs to one event loop."""

    def __init__(
        self, sock: socket.socket, application: Starlette, connections: int, tls: TlsPaths | None = None
    ) -> None:
        """`connections`: how many may be open at a time; `tls`: with which certificate, None: without."""
        self._socket = sock
        self._tls = tls
        self._config = uvicorn.Config(
            application,
            log_config=None,
            access_log=False,
            lifespan="off",
            http="h11",
            server_header=False,
            limit_concurrency=connections,
            timeout_keep_alive=5,
            ssl_certfile=str(tls.certificate) if tls is not None else None,
            ssl_keyfile=str(tls.key) if tls is not None else None,
        )
        self._config.load()
        if self._config.ssl is not None and tls is not None:
            version = ssl.TLSVersion.TLSv1_2 if tls.tls12 else ssl.TLSVersion.TLSv1_3
            self._config.ssl.minimum_version = version
        self._server = _Server(self._config)

    async def run(self) -> None:
        """Serve until `stop`."""
        await self._server.serve(sockets=[self._socket])

    def renew(self) -> None:
        """The files of TLS changed: new connections see what is in them now."""
        if self._config.ssl is not None and self._tls is not None:
            self._config.ssl.load_cert_chain(self._tls.certificate, self._tls.key)

    def stop(self) -> None:
        """Take no more requests."""
        self._server.should_exit = True

"""An HTTP port: what is on it is told by who makes the application."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette

from hsmsign.model.tls import TlsPaths
from hsmsign.web.connection import Connection

PATIENCE = 20.0
"""Seconds in which a client shakes hands, sends a whole request, and reads some of an answer."""
_SHARE = 4
"""One address has at most this part of all connections: a quarter."""


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, connections: int, patience: float) -> None:
        super().__init__(config)
        self._connections = connections
        self._patience = patience

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's own does not say how long a handshake of TLS may take, nor how many connections there may be."""
        made = functools.partial(
            Connection,
            connections=self._connections,
            share=max(1, self._connections // _SHARE),
            patience=self._patience,
            config=self.config,
            server_state=self.server_state,
            app_state={},
        )
        tls, backlog = self.config.ssl, self.config.backlog
        handshake = self._patience if tls is not None else None
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(made, sock=one, ssl=tls, backlog=backlog, ssl_handshake_timeout=handshake)
            for one in sockets or ()
        ]
        self.started = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the worker's business."""
        yield


class WebServer:
    """Serves on a socket that somebody else has opened. Belongs to one event loop."""

    def __init__(
        self,
        sock: socket.socket,
        application: Starlette,
        connections: int,
        tls: TlsPaths | None = None,
        *,
        patience: float = PATIENCE,
    ) -> None:
        """`connections`: how many may be open at a time, a quarter of them from one address; `tls`: with which
        certificate, None: without; `patience`: seconds that a client may let us wait."""
        self._socket = sock
        self._tls = tls
        self._config = uvicorn.Config(
            application,
            log_config=None,
            access_log=False,
            lifespan="off",
            http="h11",
            ws="none",
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
        self._server = _Server(self._config, connections, patience)

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

"""uvicorn with an `ssl.SSLContext` of yours, which tells applications what TLS has proven.

    config = hsmsign.tls.uvicorn.Config(app, port=8443, tls=context)
    uvicorn.Server(config).run()

Each connection's application gets the TLS extension of ASGI in its scopes, with HTTP by h11 or httptools and
WebSockets by websockets or wsproto. One process: contexts do not travel to others.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import uvicorn

from hsmsign.model.errors import ConfigurationError
from hsmsign.tls.asgi import App, Receive, Scope, Send
from hsmsign.tls.peer import verified_der

_VERSIONS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}


class Config(uvicorn.Config):
    """A configuration of uvicorn whose TLS is yours."""

    def __init__(self, app: Any, *, tls: ssl.SSLContext, **options: Any) -> None:
        """`options` are uvicorn's. Raises ConfigurationError for those of its own TLS, and of several processes."""
        if said := sorted(name for name in options if name.startswith("ssl_")):
            raise ConfigurationError(f"{', '.join(said)} beside an SSLContext", hint="say it in the context")
        if options.get("http2") or options.get("http") == "zttp":
            raise ConfigurationError("zttp hides what TLS has proven", hint="use http='h11' or http='httptools'")
        super().__init__(app, **options)
        if self.use_subprocess:
            raise ConfigurationError("an SSLContext does not travel to other processes", hint="start several servers")
        self._tls: ssl.SSLContext | None = tls

    @property
    def is_ssl(self) -> bool:
        """Whether TLS is spoken: always, and uvicorn has no context of its own to make (see `load`)."""
        return self._tls is not None

    def load(self) -> None:
        """As uvicorn does, with the context and the protocols replaced."""
        tls, self._tls = self._tls, None  # or uvicorn looks for files
        try:
            super().load()
        finally:
            self._tls = tls
        self.ssl = tls
        self.http_protocol_class = _telling(self.http_protocol_class)
        if self.ws_protocol_class is not None:
            self.ws_protocol_class = _telling(self.ws_protocol_class)


class _Telling:
    """Of a connection's protocol: its application learns of the connection's TLS."""

    app: Any

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[misc]
        self.app = _Extended(self.app, extension(transport.get_extra_info("ssl_object")))


def _telling(protocol: type[asyncio.Protocol]) -> type[asyncio.Protocol]:
    return type(protocol.__name__, (_Telling, protocol), {})


class _Extended:
    """An application whose scopes have the TLS extension."""

    def __init__(self, app: App, tls: dict[str, Any]) -> None:
        self._app = app
        self._tls = tls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        extensions = scope.setdefault("extensions", {})
        extensions["tls"] = self._tls
        await self._app(scope, receive, send)


def extension(connection: object) -> dict[str, Any]:
    """The TLS extension of ASGI for an `ssl.SSLSocket` or `ssl.SSLObject`; the chain has the client's own certificate,
    where it was verified, and no other."""
    der = verified_der(connection)
    version = connection.version() if isinstance(connection, ssl.SSLSocket | ssl.SSLObject) else None
    return {
        "server_cert": None,
        "client_cert_chain": [] if der is None else [ssl.DER_cert_to_PEM_cert(der)],
        "client_cert_name": None,
        "client_cert_error": None,
        "tls_version": _VERSIONS.get(version or ""),
        "cipher_suite": None,
    }

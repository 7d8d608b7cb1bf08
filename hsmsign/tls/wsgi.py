"""Rights by client certificate for WSGI applications.

The certificate is that of the connection, which gunicorn and werkzeug put into the environ, and `PeerHandler` does for
wsgiref. Headers such as X-Forwarded-Client-Cert are not looked at: whoever reaches the server can write them.
"""

from __future__ import annotations

import contextlib
import functools
import ssl
from collections.abc import Callable, Iterable
from typing import Any

from hsmsign.model.errors import HsmsignError, UnauthenticatedError
from hsmsign.tls.gate import Gate, problem, status
from hsmsign.tls.peer import Peer, verified_der
from hsmsign.tls.rules import Decider, Request

Environ = dict[str, Any]
Start = Callable[..., Any]
App = Callable[[Environ, Start], Iterable[bytes]]

PEER = "hsmsign.peer"
SOCKET = "hsmsign.socket"
_SOCKETS = (SOCKET, "gunicorn.socket", "werkzeug.socket")
_TARGETS = ("RAW_URI", "REQUEST_URI")
_REMEMBERED = 1024


class RightsMiddleware:
    """Lets through what the rules allow, with the `Peer` in `environ["hsmsign.peer"]`; answers 401 or 403 otherwise."""

    def __init__(self, app: App, rules: Decider, *, trust_environ: bool = False) -> None:
        """`rules` are `Rules`, or a `RuleFile`. `trust_environ`: take the certificate of SSL_CLIENT_CERT, as mod_ssl
        has it with `SSLOptions +StdEnvVars +ExportCertData`. Only for a server that sets it and SSL_CLIENT_VERIFY
        itself; never where a proxy passes it on."""
        self._app = app
        self._gate = Gate(rules)
        self._trust = trust_environ
        self._of_der = functools.lru_cache(_REMEMBERED)(Peer.of_der)
        self._of_pem = functools.lru_cache(_REMEMBERED)(Peer.of_pem)

    def __call__(self, environ: Environ, start_response: Start) -> Iterable[bytes]:
        """One request."""
        action = Request(environ["REQUEST_METHOD"], _path(environ), _raw(environ))
        try:
            environ[PEER] = self._gate.check(functools.partial(self._find, environ), action)
        except HsmsignError as error:
            headers, body = problem(error)
            code, title = status(error)
            start_response(f"{code} {title}", headers)
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
        return self._app(environ, start_response)

    def _find(self, environ: Environ) -> Peer | None:
        if self._trust:
            if environ.get("SSL_CLIENT_VERIFY") != "SUCCESS":
                return None
            pem = environ.get("SSL_CLIENT_CERT") or ""
            return self._of_pem(pem.encode()) if pem else None
        der = next(filter(None, (verified_der(environ.get(name)) for name in _SOCKETS)), None)
        return None if der is None else self._of_der(der)


class PeerHandler:
    """For handlers of wsgiref: puts the connection's `Peer` into the environ, where there is one.

    class Handler(PeerHandler, wsgiref.simple_server.WSGIRequestHandler): ...
    """

    connection: Any
    path: str

    def get_environ(self) -> Environ:
        """As wsgiref does, and more."""
        environ: Environ = super().get_environ()  # type: ignore[misc]
        environ |= {SOCKET: self.connection, "REQUEST_URI": self.path}
        if isinstance(self.connection, ssl.SSLSocket):
            environ["HTTPS"] = "on"  # so that wsgi.url_scheme is https
        with contextlib.suppress(UnauthenticatedError):  # the middleware says so
            peer = Peer.of_tls(self.connection)
            if peer is not None:
                environ[PEER] = peer
        return environ


def _path(environ: Environ) -> str:
    """The whole path, as PEP 3333 has it: bytes that look like Latin-1."""
    said = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return str(said.encode("latin-1", "replace").decode("utf-8", "replace"))


def _raw(environ: Environ) -> bytes | None:
    """The path as it was sent, where the server tells."""
    for name in _TARGETS:
        if said := environ.get(name):
            return str(said).partition("?")[0].encode("latin-1", "replace")
    return None

"""Rights by client certificate for ASGI applications.

The server says in the TLS extension of ASGI which certificate it verified. Headers such as
X-Forwarded-Client-Cert are not looked at: whoever reaches the server can write them. uvicorn has no such
extension: `hsmsign.tls.uvicorn` gives it one.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from hsmsign.model.errors import HsmsignError, UnauthenticatedError
from hsmsign.tls.gate import Gate, problem, shown, status
from hsmsign.tls.peer import Peer
from hsmsign.tls.rules import WEBSOCKET, Decider, Request

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PEER = "hsmsign.peer"
_REMEMBERED = 1024


class RightsMiddleware:
    """Lets through what the rules allow, with the `Peer` in `scope["hsmsign.peer"]` and `scope["state"]["peer"]`
    (`request.state.peer` in Starlette). Answers 401 or 403 otherwise; a WebSocket is closed before it is accepted, with
    4401 or 4403, which servers make a 403."""

    def __init__(self, app: App, rules: Decider) -> None:
        """`rules` are `Rules`, or a `RuleFile`."""
        self._app = app
        self._gate = Gate(rules)
        self._of_pem = functools.lru_cache(_REMEMBERED)(Peer.of_pem)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, WebSocket or lifespan."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._app(scope, receive, send)
            return
        if kind not in ("http", "websocket"):
            raise UnauthenticatedError(f"nobody is let in by {kind!r}", hint="rules know http and websocket")
        upgrade = kind == "websocket"
        action = Request(WEBSOCKET if upgrade else scope["method"], scope["path"], scope.get("raw_path"), upgrade)
        try:
            peer = self._gate.check(functools.partial(self._find, scope), action)
        except HsmsignError as error:
            await (_close(error, receive, send) if upgrade else _answer(error, send))
            return
        state = {**(scope.get("state") or {}), "peer": peer}
        await self._app({**scope, PEER: peer, "state": state}, receive, send)

    def _find(self, scope: Scope) -> Peer | None:
        tls = (scope.get("extensions") or {}).get("tls") or {}
        if wrong := tls.get("client_cert_error"):
            raise UnauthenticatedError(f"the client certificate is not good: {shown(str(wrong))}")
        chain = list(tls.get("client_cert_chain") or ())
        return self._of_pem(chain[0].encode()) if chain else None


async def _answer(error: HsmsignError, send: Send) -> None:
    headers, body = problem(error)
    lines = [(name.encode(), value.encode()) for name, value in headers]
    await send({"type": "http.response.start", "status": status(error)[0], "headers": lines})
    await send({"type": "http.response.body", "body": body})


async def _close(error: HsmsignError, receive: Receive, send: Send) -> None:
    await receive()  # websocket.connect
    await send({"type": "websocket.close", "code": 4000 + status(error)[0], "reason": ""})

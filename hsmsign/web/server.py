"""The HTTP port: /metrics, /livez, /readyz. It is for the machine room, not for callers: keep it where they are not."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Mapping

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hsmsign.web.metrics import CONTENT_TYPE, Metrics

Checks = Callable[[], Mapping[str, str]]
"""What is wrong, by what it is about; nothing where the daemon can do its work."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the worker's business."""
        yield


class WebServer:
    """Serves on a socket that somebody else has opened. Belongs to one event loop."""

    def __init__(self, sock: socket.socket, metrics: Metrics, ready: Checks) -> None:
        self._socket = sock
        self._server = _Server(
            uvicorn.Config(
                _application(metrics, ready),
                log_config=None,
                access_log=False,
                lifespan="off",
                http="h11",
                server_header=False,
                limit_concurrency=64,
                timeout_keep_alive=5,
            )
        )

    async def run(self) -> None:
        """Serve until `stop`."""
        await self._server.serve(sockets=[self._socket])

    def stop(self) -> None:
        """Take no more requests."""
        self._server.should_exit = True


def _application(metrics: Metrics, ready: Checks) -> Starlette:
    async def live(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readiness(_: Request) -> Response:
        wrong = ready()
        return JSONResponse(
            {"status": "not ready", "failing": dict(wrong)} if wrong else {"status": "ok"}, 503 if wrong else 200
        )

    async def tell(_: Request) -> Response:
        return Response(metrics.text(), headers={"content-type": CONTENT_TYPE})

    return Starlette(routes=[Route("/livez", live), Route("/readyz", readiness), Route("/metrics", tell)])

"""/metrics, /livez, /readyz. They are for the machine room, not for callers: keep the port where they are not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hsmsign.web.metrics import CONTENT_TYPE

CONNECTIONS = 64
Checks = Callable[[], Mapping[str, str]]
"""What is wrong, by what it is about; nothing where the daemon can do its work."""


def monitoring(metrics: Callable[[], Awaitable[bytes]], ready: Checks) -> Starlette:
    """The application; `metrics` gives them as OpenMetrics."""

    async def live(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readiness(_: Request) -> Response:
        wrong = ready()
        return JSONResponse(
            {"status": "not ready", "failing": dict(wrong)} if wrong else {"status": "ok"}, 503 if wrong else 200
        )

    async def tell(_: Request) -> Response:
        return Response(await metrics(), headers={"content-type": CONTENT_TYPE})

    return Starlette(routes=[Route("/livez", live), Route("/readyz", readiness), Route("/metrics", tell)])

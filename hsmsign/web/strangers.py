"""What applications have in common that answer whoever asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route


def for_strangers(routes: Sequence[Route], handlers: Mapping[Any, Any]) -> Starlette:
    """An application with these routes and exception handlers, which sends nobody elsewhere, and has no traceback of a
    client that hung up."""
    application = Starlette(routes=list(routes), exception_handlers={**handlers, ClientDisconnect: _gone})
    application.router.redirect_slashes = False  # where to would be what the asker says is our name
    return application


async def _gone(_: Request, __: Exception) -> Response:
    """Nobody is there to read it."""
    return Response(status_code=400)

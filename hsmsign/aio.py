"""The asyncio client: `client = hsmsign.aio.connect()`, then await the same calls."""

from __future__ import annotations

from hsmsign.client.asynchronous import AsyncClient, connect

__all__ = ["AsyncClient", "connect"]

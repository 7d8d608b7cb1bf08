"""The management connection to a device host: one request at a time, JSON (see hsmsign.model.hostwire)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from hsmsign.devices.connection import open_connection
from hsmsign.model.errors import DeviceError, DeviceUnavailableError
from hsmsign.model.hostwire import HELLO_MANAGE, LENGTH, MESSAGE_MAX, error_from_json, to_json


class HostLost(DeviceUnavailableError):
    """The host went away in the middle of a request; whether it was done is not known."""


class ManageClient:
    """Asks one device host. Connects when it is first asked, and again after a loss."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turn = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, op: str, **arguments: object) -> Any:
        """The answer to a request, as JSON.

        Raises HostLost where the host went away, and whatever error the host answers with. A request
        that is cancelled costs the connection, since its answer is still to come.
        """
        message = json.dumps({"op": op, "args": {name: to_json(value) for name, value in arguments.items()}}).encode()
        async with self._turn:
            try:
                reader, writer = await self._connected()
                writer.write(LENGTH.pack(len(message)) + message)
                await writer.drain()
                (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
                if length > MESSAGE_MAX:
                    raise DeviceError("the device host answered with more than a message may have")
                answer = json.loads(await reader.readexactly(length))
            except (OSError, EOFError) as lost:
                self._drop()
                raise HostLost(
                    "the process that holds the device went away", hint="it is being replaced; try again"
                ) from lost
            except BaseException:
                self._drop()
                raise
        if "error" in answer:
            raise error_from_json(answer["error"])
        return answer["ok"]

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._streams = await asyncio.open_unix_connection(
                sock=open_connection(self._path, HELLO_MANAGE), limit=MESSAGE_MAX
            )
        return self._streams

    def _drop(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    def close(self) -> None:
        """Let go of the connection."""
        self._drop()

"""The metrics of all workers: whoever is asked asks the others, over Unix sockets that are the daemon's alone.

Nothing is added up: each worker's series have its number in the label `worker`, so that one which is replaced begins
its own anew and no others.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import structlog

_PATIENCE = 1.0
"""Seconds for another worker; without an answer its series are missing, as those of one that is not there."""
_HEAD = b"# HELP "
_END = b"# EOF\n"
_log = structlog.get_logger(__name__)


class Siblings:
    """One worker and the others. Belongs to one event loop."""

    def __init__(self, folder: Path, number: int, workers: int, own: Callable[[], bytes]) -> None:
        """`folder` is the daemon's alone; `own` gives this worker's metrics, as OpenMetrics."""
        self._folder = folder
        self._number = number
        self._workers = workers
        self._own = own

    async def run(self) -> None:
        """Answer the others, until cancelled."""
        path = self._path(self._number)
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._answer, path)
        async with server:
            await server.serve_forever()

    async def text(self) -> bytes:
        """The metrics of all."""
        others = [number for number in range(self._workers) if number != self._number]
        texts = await asyncio.gather(*(self._ask(number) for number in others))
        return merged([self._own(), *filter(None, texts)])

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.sum"

    async def _answer(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(self._own())
            async with asyncio.timeout(_PATIENCE):
                await writer.drain()
        writer.close()

    async def _ask(self, number: int) -> bytes:
        try:
            async with asyncio.timeout(_PATIENCE):
                reader, writer = await asyncio.open_unix_connection(os.fspath(self._path(number)))
                try:
                    return await reader.read(-1)
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            _log.warning("a worker does not tell its metrics", worker=number, error=repr(error))
            return b""


def merged(texts: list[bytes]) -> bytes:
    """One OpenMetrics text of several: the samples of a family stand together, below what is said of it once."""
    families: dict[bytes, list[bytes]] = {}
    for text in texts:
        if not text.endswith(_END):
            continue  # it was cut off
        for part in (b"\n" + text.removesuffix(_END)).split(b"\n" + _HEAD)[1:]:
            lines = part.removesuffix(b"\n").split(b"\n")
            about = [line for line in lines[1:] if line.startswith(b"# ")]
            name = lines[0].partition(b" ")[0]
            into = families.setdefault(name, [_HEAD + lines[0], *about])
            into += lines[1 + len(about) :]
    return b"".join(line + b"\n" for lines in families.values() for line in lines) + _END

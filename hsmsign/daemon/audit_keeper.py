"""Keeps the auditor running: the one process that writes the audit log."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from hsmsign.daemon import listeners
from hsmsign.daemon.children import Backoff, Child, Event

log = structlog.get_logger()


class AuditKeeper:
    """One auditor after the other, on one listening socket that workers can always reach."""

    def __init__(self, folder: Path, run_dir: Path, environment: dict[str, str], changed: Callable[[], None]) -> None:
        """`folder` is the log's."""
        self.child: Child | None = None
        self._folder = folder
        self._environment = environment
        self._changed = changed
        self._socket, self.path = listeners.open_host_socket(run_dir / "audit", "auditor")
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    async def start(self) -> Event | None:
        """Start it, and wait until it has the log open. Gives what it said where it cannot."""
        child = self._spawn()
        run = asyncio.get_running_loop().create_task(child.run())
        ready = asyncio.get_running_loop().create_task(child.ready.wait())
        try:
            await asyncio.wait([run, ready], return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
            self._task = asyncio.get_running_loop().create_task(self._keep(child, run))
        if not child.ready.is_set():
            return child.failure or {"message": f"the auditor ended with {run.result()} before it was ready"}
        return None

    async def _keep(self, child: Child, run: asyncio.Task[int]) -> None:
        backoff = Backoff()
        while True:
            code = await run
            said = child.failure or {}
            level = log.info if self._stopping.is_set() else log.error
            level("auditor ended", pid=child.pid, code=code, error=said.get("message", ""), hint=said.get("hint", ""))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff.after(time.monotonic() - child.started)):
                    await self._stopping.wait()
            if self._stopping.is_set():
                return
            try:
                child = self._spawn()
            except OSError as error:  # no memory, no descriptors: perhaps in a moment
                log.error("cannot start the auditor", error=error.strerror)
                continue
            run = asyncio.get_running_loop().create_task(child.run())

    def _spawn(self) -> Child:
        message = {"folder": str(self._folder)}
        self.child = Child.start(
            "auditor", "hsmsign.daemon.auditor", {"--listen-fd": self._socket}, message, self._environment
        )
        log.info("auditor started", pid=self.child.pid)
        self._changed()
        return self.child

    async def stop(self) -> None:
        """End it, and keep none."""
        self._stopping.set()
        if self._task is not None:
            if self.child is not None:
                self.child.terminate()
            await asyncio.wait([self._task])
        self._socket.close()
        self.path.unlink(missing_ok=True)

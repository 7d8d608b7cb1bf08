"""One change of a key at a time."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

_AGAIN = 0.02
"""Seconds between two tries to have what another process holds: keys are changed seldom."""


class KeyLocks:
    """A lock for each key that somebody is changing now. Belongs to one event loop; with a file, all processes that use
    it keep each other out. What a process holds that dies is free."""

    def __init__(self, file: Path | None = None) -> None:
        """`file` is made where it is not there. Raises OSError."""
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}
        # the only descriptor of this process: closing any other would give all locks away (fcntl(2), F_SETLK)
        self._fd = None if file is None else os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @asynccontextmanager
    async def hold(self, key: str) -> AsyncIterator[None]:
        """Wait for whoever changes this key now, then keep the others out."""
        lock, users = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = (lock, users + 1)
        try:
            async with lock, self._alone(key):
                yield
        finally:
            lock, users = self._locks.pop(key)
            if users > 1:
                self._locks[key] = (lock, users - 1)

    @asynccontextmanager
    async def _alone(self, key: str) -> AsyncIterator[None]:
        """Keep other processes out: a byte of the file stands for the key."""
        if self._fd is None:
            yield
            return
        at = int.from_bytes(sha256(key.encode()).digest()[:7], "big")
        while True:
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, at)
                break
            except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, as the system likes
                await asyncio.sleep(_AGAIN)
        try:
            yield
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, at)

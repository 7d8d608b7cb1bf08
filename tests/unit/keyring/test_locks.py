"""Locks of keys, between tasks and between processes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsmsign.keyring.locks import KeyLocks

_HOLDER = """
import asyncio, pathlib, sys
from hsmsign.keyring.locks import KeyLocks
async def hold():
    async with KeyLocks(pathlib.Path(sys.argv[1])).hold("web"):
        print("held", flush=True)
        await asyncio.to_thread(sys.stdin.read)
asyncio.run(hold())
"""


async def _takes(locks: KeyLocks, key: str) -> bool:
    """Whether it can be had without waiting for anybody."""
    try:
        async with asyncio.timeout(0.3), locks.hold(key):
            return True
    except TimeoutError:
        return False


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds keys/web."""
    command = [sys.executable, "-c", _HOLDER, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process


async def test_what_another_process_holds_is_free_when_that_is_killed(
    tmp_path: Path, holder: subprocess.Popen[bytes]
) -> None:
    locks = KeyLocks(tmp_path / "lock")
    assert not await _takes(locks, "web")
    assert await _takes(locks, "api")
    holder.kill()
    holder.wait()
    assert await _takes(locks, "web")


async def test_one_task_at_a_time_holds_a_key(tmp_path: Path) -> None:
    locks = KeyLocks(tmp_path / "lock")
    async with locks.hold("web"):
        assert not await _takes(locks, "web")
        assert await _takes(locks, "api")
    assert await _takes(locks, "web")

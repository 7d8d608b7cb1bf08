"""What this kernel can do."""

from __future__ import annotations

import ctypes
from pathlib import Path

_LANDLOCK_CREATE_RULESET = 444


def confines() -> bool:
    """Whether it has Landlock, and filters system calls."""
    libc = ctypes.CDLL(None)
    filters = "Seccomp:" in Path("/proc/self/status").read_text()
    return filters and libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), 1) > 0

"""What a front worker gives up before it reads what strangers send."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import hsmsign._native._front as _front
from hsmsign.model.errors import HsmsignError

_ffi: Any = _front.ffi
_lib: Any = _front.lib


def confine(readable: Iterable[Path], writable: Iterable[Path]) -> list[str]:
    """For good: no core dumps, no tracing by others of the same uid, no new privileges, no other programs or processes,
    no system calls that a worker has no business with; no file but those at or below these paths (others are left out),
    and no change of any file's mode, owner or attributes.

    In the calling thread and those that it starts later: call it first. Answers with what this kernel cannot do, in
    words. Raises HsmsignError.
    """
    if _lib.hsm_harden_process() != _lib.HSM_OK:
        raise _failed("the process could not give up its privileges")
    missing = []
    if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208 - it is no folder of files
        missing.append("Landlock: threads that were there before can still read what their user can")
    may_read, may_write = _strings(readable), _strings(writable)
    status = _lib.hsm_restrict_files(may_read, len(may_read), may_write, len(may_write))
    if status == _lib.HSM_E_UNSUPPORTED:
        missing.append("Landlock: the worker can read whatever its user can")
    elif status != _lib.HSM_OK:
        raise _failed("access to files could not be restricted")
    status = _lib.hsm_filter_system_calls(_lib.HSM_REFUSE_EXEC | _lib.HSM_REFUSE_MODES)
    if status == _lib.HSM_E_UNSUPPORTED:
        missing.append("seccomp: system calls are not filtered")
    elif status != _lib.HSM_OK:
        raise _failed("system calls could not be filtered")
    return missing


def _strings(paths: Iterable[Path]) -> list[Any]:
    """C strings, which live as long as the list does."""
    return [_ffi.new("char[]", os.fsencode(path)) for path in paths]


def _failed(what: str) -> HsmsignError:
    return HsmsignError(f"{what}: {os.strerror(_ffi.errno)}")

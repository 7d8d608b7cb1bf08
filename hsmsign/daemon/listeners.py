"""The sockets that outlive workers and hosts: the supervisor owns them and hands them on."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import socket
import stat
import time
from pathlib import Path
from typing import Any

from hsmsign.model.errors import ConfigurationError, UnavailableError

_PATH_MAX = 107
_BACKLOG = 512
_PATIENCE = 2.0
"""Seconds to wait for a port that a daemon which is just going may still have."""


def lock_state(state_dir: Path) -> int:
    """Make sure that this is the only daemon on a state folder; the lock lasts as long as the descriptor."""
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    return _lock(state_dir / "lock", "state")


def lock_run(run_dir: Path) -> int:
    """The same for the folder of its sockets, which is there."""
    return _lock(run_dir / "run.lock", "run")


def _lock(path: Path, what: str) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        raise UnavailableError(
            f"another daemon (process {owner}) uses the {what} folder {path.parent}",
            hint="stop it first, or give this one a state_dir and run_dir of its own",
        ) from error
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def reserve_port(host: str, port: int) -> tuple[socket.socket, int]:
    """Bind, but do not listen: workers share the port (SO_REUSEPORT), also those that come later.

    Port 0 becomes a free one. Raises ConfigurationError.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        if port:
            _wait_until_free(family, address)
        reserved = socket.socket(family, kind, protocol)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(address)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            hint="is something else listening there? choose another server.listen",
        ) from error
    return reserved, int(reserved.getsockname()[1])


def _wait_until_free(family: int, address: Any) -> None:
    """SO_REUSEPORT alone would let two daemons share a port, and callers, without a word. A daemon that was
    killed leaves a worker that goes a moment later. Raises OSError."""
    end = time.monotonic() + _PATIENCE
    while True:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what is only closing is no obstacle
            try:
                probe.bind(address)
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
            else:
                return


def open_public_unix(path: Path, group: str) -> socket.socket:
    """The callers' Unix socket, mode 0660. One that nobody answers on is replaced.

    Raises ConfigurationError.
    """
    if len(os.fsencode(path)) > _PATH_MAX:
        raise ConfigurationError(
            f"the path {path} is longer than the {_PATH_MAX} bytes that a Unix socket may have",
            hint="choose a shorter server.unix_socket",
        )
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    _remove_stale(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o117)  # so that there is no moment in which the socket is open to more
    try:
        listening.bind(str(path))
    except OSError as error:
        raise ConfigurationError(f"cannot make the Unix socket {path}: {error.strerror}") from error
    finally:
        os.umask(mask)
    if group:
        try:
            os.chown(path, -1, grp.getgrnam(group).gr_gid)
        except (KeyError, OSError) as error:
            raise ConfigurationError(
                f"cannot give the Unix socket to the group {group!r}", hint="see server.unix_group"
            ) from error
    listening.listen(_BACKLOG)
    return listening


def _remove_stale(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ConfigurationError(f"{path} is there and is no socket", hint="choose another server.unix_socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError as error:
            if error.errno != errno.ECONNREFUSED:
                raise ConfigurationError(f"cannot reach the Unix socket {path}: {error.strerror}") from error
            path.unlink()
            return
    raise ConfigurationError(
        f"somebody listens on the Unix socket {path}", hint="is another daemon running? choose another path"
    )


def open_host_socket(folder: Path, name: str) -> tuple[socket.socket, Path]:
    """Where a device host will be reached by the workers; in a folder that is the daemon's alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    path = folder / f"{name}.sock"
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    directory = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listening.bind(f"/proc/self/fd/{directory}/{path.name}")  # a long path would not fit
    finally:
        os.close(directory)
    listening.listen(_BACKLOG)
    return listening, path

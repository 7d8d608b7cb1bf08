"""The agent: answers what SSH clients ask on a Unix socket, and has the daemon sign."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from hsmsign.client.asynchronous import AsyncClient
from hsmsign.client.values import PublicKeyInfo, VersionState
from hsmsign.model.errors import ConfigurationError, HsmsignError
from hsmsign.ssh import keys, wire
from hsmsign.ssh.keys import Identity

CLIENTS_MAX = 256
"""Connections at a time; one more is closed at once."""
SILENCE_SECONDS = 30.0
"""How long a message that has begun may take to come, and its answer to be fetched."""
KEYS_MAX = 100
"""More keys are no use: servers close the connection after a few that they do not know."""
_PEER = struct.Struct("3i")

log = logging.getLogger("hsmsign.ssh")


class Agent:
    """Offers the keys named, or all that the caller may list with the labels. Asks anew for each client's list."""

    def __init__(
        self,
        client: AsyncClient,
        *,
        names: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        certificates: Sequence[Path] = (),
        deadline: float = 10.0,
    ) -> None:
        """`deadline` is in seconds, for the whole of one answer."""
        self._client = client
        self._names = tuple(names)
        self._labels = dict(labels or {})
        self._certificates = tuple(certificates)
        self._deadline = deadline
        self._known: dict[bytes, Identity] = {}

    async def identities(self) -> list[Identity]:
        """What is offered now; certificates first, as ssh tries them in this order. Raises HsmsignError."""
        found = [key async for key in self._keys()]
        offered = [keys.certified(path, found) for path in self._certificates] + [keys.identity(key) for key in found]
        self._known = {one.blob: one for one in offered}
        return offered

    async def answer(self, message: bytes, peer: str = "") -> bytes:
        """The answer to one message; never raises an HsmsignError: a client is told FAILURE, the log why."""
        try:
            async with asyncio.timeout(self._deadline):
                return await self._serve(wire.parse(message), peer)
        except HsmsignError as error:
            log.warning("refused%s: %s%s", peer, error.message, f" ({error.hint})" if error.hint else "")
        except TimeoutError:
            log.warning("refused%s: no answer within %g seconds", peer, self._deadline)
        return wire.failure()

    async def _serve(self, request: wire.Request, peer: str) -> bytes:
        if isinstance(request, wire.IdentitiesRequest):
            return wire.identities([(one.blob, one.comment) for one in await self.identities()])
        if isinstance(request, wire.SignRequest):
            return await self._sign(request, peer)
        if isinstance(request, wire.ExtensionRequest):
            # ssh sends session-bind@openssh.com, and goes on where an agent does not know it
            return wire.extensions() if request.name == "query" else wire.failure()
        log.warning(
            "refused%s: message %d; this agent lists keys and signs, and does nothing else", peer, request.number
        )
        return wire.failure()

    async def _sign(self, request: wire.SignRequest, peer: str) -> bytes:
        if request.blob not in self._known:  # a client that knows the key need not have asked for the list
            await self.identities()
        identity = self._known.get(request.blob)
        if identity is None:
            log.warning("refused%s: a signature with a key that is not offered", peer)
            return wire.failure()
        scheme, version = identity.scheme(request.flags), identity.key.key_version
        made = await self._client.sign(version, message=request.data, scheme=scheme, deadline=self._deadline)
        log.info(
            "signed%s: %d bytes by %s, %s, %s", peer, len(request.data), version, scheme.name, identity.fingerprint
        )
        return wire.signature(keys.signature(scheme, made.value))

    async def _keys(self) -> AsyncIterator[PublicKeyInfo]:
        if self._names:
            for name in self._names:
                yield await self._client.public_key_info(name, deadline=self._deadline)
            return
        count = 0
        async for key in self._client.list_keys(labels=self._labels, deadline=self._deadline):
            primary = key.primary
            if primary is None or primary.state is not VersionState.ENABLED or count == KEYS_MAX:
                continue
            count += 1
            yield PublicKeyInfo(primary.name, primary.algorithm, primary.public_key, "", "")


class Door:
    """The socket: who may come in, and how much each may send."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._open: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def listening(self, path: Path) -> AsyncIterator[None]:
        """Serve the socket for as long as this lasts. Raises ConfigurationError where it cannot be there."""
        _check_folder(path)
        listener = _bind(path)
        mine = _inode(path)
        server = await asyncio.start_unix_server(self._welcome, sock=listener)
        try:
            yield
        finally:
            server.close()
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)
            _remove(path, mine)

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._open) >= CLIENTS_MAX:
            log.warning("refused: %d connections are open", len(self._open))
            writer.close()
            return
        self._open.add(task)
        try:
            peer = _peer(writer)
            if peer is not None:
                await self._converse(reader, writer, peer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # it went away, or sends too slowly
        except wire.WireError as error:
            log.warning("closed: %s", error.message)
        finally:
            self._open.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: str) -> None:
        while head := await reader.read(1):
            async with asyncio.timeout(SILENCE_SECONDS):
                head += await reader.readexactly(wire.LENGTH_BYTES - 1)
                message = await reader.readexactly(wire.length(head))
            answer = await self._agent.answer(message, peer)
            writer.write(wire.string(answer))
            async with asyncio.timeout(SILENCE_SECONDS):
                await writer.drain()


def _peer(writer: asyncio.StreamWriter) -> str | None:
    """Words about the process at the other end; None where it is another user's."""
    taken = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    pid, uid, _ = _PEER.unpack(taken)
    if uid not in (os.getuid(), 0):
        log.warning("refused: uid %d is not the agent's own", uid)
        return None
    return f" (pid {pid})"


def _check_folder(path: Path) -> None:
    try:
        found = path.parent.stat()
    except OSError as error:
        raise ConfigurationError(f"the folder of the socket, {path.parent}: {error.strerror}") from error
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigurationError(
            f"others may enter {path.parent}, in which the agent's socket is to be",
            hint=f"make a folder of your own for it: mkdir -m 700 {path.parent}/agent",
        )


def _bind(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        if path.is_socket() and not _is_served(path):
            path.unlink()  # of an agent that was killed
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"cannot listen on {path}: {error.strerror or error}", hint="is another agent there? name another --socket"
        ) from error
    finally:
        os.umask(before)
    return listener


def _inode(path: Path) -> int:
    return path.stat().st_ino


def _remove(path: Path, inode: int) -> None:
    """Take our socket away, and no other agent's that took its place."""
    with contextlib.suppress(FileNotFoundError):
        if _inode(path) == inode:
            path.unlink()


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(str(path)) == 0

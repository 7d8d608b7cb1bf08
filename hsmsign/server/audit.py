"""AuditService."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hsmsign.audit import proofs, reading
from hsmsign.audit.notes import Verifier
from hsmsign.audit.verifying import newest_note
from hsmsign.keyring import Keyring
from hsmsign.model.errors import FailedPreconditionError
from hsmsign.server.guard import Call
from hsmsign.server.rights import Rights
from hsmsign.v1 import audit_pb2

_LOOK_EVERY = 0.2
_AT_ONCE = 256


class AuditService:
    """Reads the log. It is written by another process."""

    def __init__(self, folder: Path | None, key: str, keyring: Keyring, rights: Rights) -> None:
        """`folder` is None where nothing is recorded; `key` is the id of the key that signs checkpoints."""
        self._folder = folder
        self._key = f"keys/{key}"
        self._keyring = keyring
        self._rights = rights

    async def GetCheckpoint(
        self, request: audit_pb2.GetCheckpointRequest, call: Call
    ) -> audit_pb2.GetCheckpointResponse:
        """The newest."""
        folder = self._log(call)
        note = await asyncio.to_thread(newest_note, folder)
        key = await self._keyring.resolve(self._key)
        origin = note.split(b"\n", 1)[0].decode()
        verifier = str(Verifier.of(origin, key.public_key))
        return audit_pb2.GetCheckpointResponse(checkpoint=note, verifier_key=verifier)

    async def ProveRecord(self, request: audit_pb2.ProveRecordRequest, call: Call) -> audit_pb2.ProveRecordResponse:
        """Against the newest checkpoint."""
        folder = self._log(call)
        return audit_pb2.ProveRecordResponse(proof=await asyncio.to_thread(_prove, folder, request.id))

    async def TailRecords(self, request: audit_pb2.TailRecordsRequest, call: Call) -> None:
        """The end of the log, and what comes."""
        folder = self._log(call)
        at = max(0, await asyncio.to_thread(reading.size, folder) - request.last)
        while not call.drained.is_set():
            found = await asyncio.to_thread(_some, folder, at)
            for index, record in found:
                answer = audit_pb2.TailRecordsResponse(index=index, record=record)
                await call.context.write(answer.SerializeToString())
                at = index + 1
            if len(found) < _AT_ONCE:
                if not request.follow:
                    return
                call.identify()  # it may last longer than the caller's certificate
                self._rights.to_audit(call.caller)
                await asyncio.sleep(_LOOK_EVERY)

    def _log(self, call: Call) -> Path:
        self._rights.to_audit(call.caller)
        if self._folder is None:
            raise FailedPreconditionError("this daemon keeps no audit log", hint="audit.durability is off")
        return self._folder


def _prove(folder: Path, id: str) -> bytes:
    note = newest_note(folder)
    return proofs.prove(folder, proofs.find(folder, id), note).encode()


def _some(folder: Path, start: int) -> list[tuple[int, bytes]]:
    return [one for one, _ in zip(reading.records(folder, start), range(_AT_ONCE), strict=False)]

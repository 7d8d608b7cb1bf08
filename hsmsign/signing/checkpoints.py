"""Signs the audit log's checkpoints with a key on a device, which signs nothing else."""

from __future__ import annotations

import asyncio
import time

import structlog

from hsmsign.audit.notes import Checkpoint, Verifier
from hsmsign.audit.recorder import Recorder
from hsmsign.devices.base import Device
from hsmsign.keyring import Keyring, ResolvedKey
from hsmsign.model.algorithms import InputKind, KeyAlgorithm, SignatureFormat
from hsmsign.model.device import SignOrder
from hsmsign.model.errors import FailedPreconditionError, HsmsignError, KeyNotFoundError
from hsmsign.model.purpose import Purpose, PurposeKind
from hsmsign.signing.places import Places

_PATIENCE = 10.0
"""Seconds for one signature."""
_log = structlog.get_logger(__name__)


class Checkpointer:
    """Makes checkpoints of one log."""

    def __init__(
        self,
        keyring: Keyring,
        places: Places,
        home: Device,
        recorder: Recorder,
        *,
        origin: str,
        key: str,
    ) -> None:
        """`home` takes new keys where nothing is said; `origin` names the log; `key` is a key's id: it is made where it
        is not there."""
        self._keyring = keyring
        self._places = places
        self._home = home
        self._recorder = recorder
        self._origin = origin
        self._name = f"keys/{key}"
        self._size = -1
        self._said = ""

    async def run(self, interval: float) -> None:
        """One checkpoint each `interval` seconds in which something was recorded."""
        while True:
            await asyncio.sleep(interval)
            await self.make()

    async def make(self) -> None:
        """One checkpoint, where there is something new. What stands in the way is logged, once."""
        try:
            await self._make()
            self._said = ""
        except HsmsignError as error:
            if error.message != self._said:
                _log.warning("the audit log has no new checkpoint", error=error.message, hint=error.hint)
            self._said = error.message

    async def _make(self) -> None:
        size, root = await self._recorder.head()
        if size == self._size:
            return
        key = await self._key()
        checkpoint = Checkpoint(self._origin, size, root)
        signature = await self._sign(key, checkpoint.text.encode())
        note = f"{checkpoint.text}\n{Verifier.of(self._origin, key.public_key).line(signature)}"
        refused = await self._recorder.keep(note.encode())
        if refused:
            raise HsmsignError(f"the auditor keeps no checkpoint: {refused}")
        self._size = size

    async def _key(self) -> ResolvedKey:
        try:
            key = await self._keyring.resolve(self._name)
        except KeyNotFoundError:
            made = await self._keyring.create(
                self._name.removeprefix("keys/"), self._algorithm(), purpose=Purpose(PurposeKind.AUDIT)
            )
            _log.info(
                "a key for the audit log's checkpoints was made", key=made.name, algorithm=made.row.algorithm.value
            )
            key = await self._keyring.resolve(self._name)
        if key.purpose.kind is not PurposeKind.AUDIT:
            raise FailedPreconditionError(
                f"{self._name} is for {key.purpose.kind.value!r}, and an audit log wants a key of its own",
                hint="name another in audit.key",
            )
        return key

    def _algorithm(self) -> KeyAlgorithm:
        """Ed25519, which every verifier of such notes knows, where the device has it."""
        info = self._home.info()
        known = () if info is None else info.algorithms
        return KeyAlgorithm.ED25519 if KeyAlgorithm.ED25519 in known else KeyAlgorithm.EC_P256

    async def _sign(self, key: ResolvedKey, text: bytes) -> bytes:
        scheme = key.algorithm.schemes[0]
        deadline = time.monotonic() + _PATIENCE
        order = SignOrder(key.locator, scheme, InputKind.MESSAGE, SignatureFormat.DER, [text], deadline, 0)
        signed = await self._places.sign(key, order)
        if signed.failures:
            raise signed.failures[0].error
        return signed.signatures[0]

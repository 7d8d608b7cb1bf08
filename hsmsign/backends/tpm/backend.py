"""A TPM 2.0 as a device: one queue for the one chip, healed where that is possible."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from tpm2_pytss import TSS2_Exception

from hsmsign.backends import native
from hsmsign.backends.base import BackendConfig, ObjectQuery, TpmConfig
from hsmsign.backends.pin import read_pin
from hsmsign.backends.tpm import attester, blobs, codes, shapes
from hsmsign.backends.tpm.chip import Chip
from hsmsign.backends.tpm.codes import Remedy
from hsmsign.backends.tpm.simulator import Simulator
from hsmsign.backends.turns import Turn, Turns
from hsmsign.model import locators, tpm
from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.attestation import AttesterIdentity, Certified
from hsmsign.model.device import DeviceHealth, DeviceInfo, DeviceKey, DeviceState, JobStatus, Protection
from hsmsign.model.errors import (
    CapabilityMissingError,
    ConfigurationError,
    DeviceError,
    DeviceUnavailableError,
    HsmsignError,
    InvalidArgumentError,
    KeyDamagedError,
    ObjectNotFoundError,
    ParentChangedError,
    PinLockedError,
    PinRefusedError,
    TokenNotPresentError,
)
from hsmsign.model.tpm import Trouble

_T = TypeVar("_T")
_QUEUED_BYTES = 64 << 20
_IDLE = 0.25
"""Seconds after which the signing thread looks whether it is to end."""
_TRIES, _WAIT = 40, 0.05
"""How often a command is sent again, and seconds in between, while the TPM is busy with itself."""
_GRACE = 5.0
"""Seconds for which a TPM may be away before callers are told so, instead of waiting."""
_LOOK_EVERY = 5.0
_PACE_WEIGHT = 0.05
_LOST = frozenset({Remedy.RECONNECT, Remedy.FRESH})
"""After `_repeat`: fresh sessions and keys did not help, so that the storage key itself is gone."""


class Tpm2Backend:
    """Implements `hsmsign.backends.base.Backend`."""

    def __init__(
        self, config: BackendConfig, *, pin_refused: bool = False, logging_in: Callable[[], None] = lambda: None
    ) -> None:
        if config.tpm is None:
            raise ConfigurationError(
                f"backend {config.name!r} says nothing of its TPM", hint="see docs/configuration.md"
            )
        self._config = config
        self._tpm: TpmConfig = config.tpm
        self._refused = pin_refused
        self._logging_in = logging_in
        self._simulator = Simulator(config.tpm.simulator) if config.tpm.simulator is not None else None
        self._chip: Chip | None = None
        self._chip_lock = threading.Lock()
        self._lost_at = 0.0
        self._looked_at = 0.0
        self._pool = native.SigningPool(0, 0, _QUEUED_BYTES, native.Exclusion.NOTHING)
        self._turns = Turns(self._pool)
        self._health = DeviceHealth(DeviceState.STARTING, "the TPM is being opened")
        self._signing_since = 0.0
        self._pace = 0.0
        self._stop = threading.Event()
        self._signer = threading.Thread(target=self._sign_for_ever, name="tpm", daemon=True)

    # -- the life of a device ------------------------------------------------------------------------

    @property
    def config(self) -> BackendConfig:
        """What it was made from."""
        return self._config

    def start(self) -> None:
        """Open the TPM, let signatures flow."""
        self._bring_up()
        self._signer.start()

    def health(self) -> DeviceHealth:
        """How the device is now, without asking it."""
        return self._health

    def fault_fd(self) -> int:
        """Readable when the signing thread lost the TPM."""
        return self._pool.fault_fd()

    def oldest_active(self) -> float:
        """Seconds that the running signature has been inside the TPM."""
        since = self._signing_since
        return time.monotonic() - since if since else 0.0

    def serve(self, connection: socket.socket) -> None:
        """Take over a connection that carries orders (its hello has been read)."""
        self._pool.serve(connection)

    def drain(self, timeout: float) -> None:
        """Wait for running signatures to end, at most this many seconds."""
        self._pool.drain(timeout)

    def close(self) -> None:
        """Let go of everything."""
        self._stop.set()
        if self._signer.is_alive():
            self._signer.join()
        self._drop_chip()
        if self._simulator is not None:
            self._simulator.stop()
        self._pool.close()

    def tick(self) -> None:
        """Notice a lost TPM, bring it back."""
        state = self._health.state
        if state is DeviceState.PIN_REFUSED:
            return
        if state is not DeviceState.READY:
            self._bring_up()
        elif self._pool.stats().mode is native.PoolMode.HEALING:
            said = tpm.read_code(self._pool.stats().last_fault_ckr)
            self._lose(f"the TPM was lost ({tpm.name(said[0]) if said else 'no code'})")
            self._bring_up()
        elif time.monotonic() - self._looked_at > _LOOK_EVERY:
            self._look()

    def _look(self) -> None:
        """See whether the TPM is there, and how its lockout counter stands."""
        try:
            self._ask("looking at the TPM", lambda chip: chip.look())
            self._become(self._ready())
        except HsmsignError as error:
            self._failed(error)

    # -- opening, losing, healing --------------------------------------------------------------------

    def _bring_up(self) -> None:
        try:
            with self._chip_lock:
                self._open()
            self._become(self._ready())
            self._lost_at = 0.0
        except TSS2_Exception as error:
            self._failed(_to_error(error.rc, "opening the TPM"))
        except HsmsignError as error:
            self._failed(error)

    def _open(self) -> None:
        self._drop_chip()
        if self._refused:
            raise PinRefusedError(
                "the owner's authorization was refused before; it is not tried again",
                hint="put the right one where the configuration says, then reload the daemon",
                metadata={"tpm_rc": "TPM_RC_BAD_AUTH"},
            )
        tcti = self._simulator.start() if self._simulator is not None else self._tpm.tcti
        secret = read_pin(self._tpm.key_auth).encode()
        owner = self._owner_auth() if self._tpm.owner_auth is not None else None
        try:
            self._chip = Chip(
                tcti,
                storage_handle=self._tpm.storage_key,
                owner_auth=owner,
                key_secret=secret,
                plain_authorization=self._tpm.authorization == "password",
            )
        except TSS2_Exception as error:
            if tpm.base(error.rc) in codes.BAD_AUTH:
                self._refused = True
            raise

    def _owner_auth(self) -> Callable[[], str]:
        def read() -> str:
            assert self._tpm.owner_auth is not None  # noqa: S101 - else this is not asked for
            value = read_pin(self._tpm.owner_auth)
            self._logging_in()
            return value

        return read

    def _drop_chip(self) -> None:
        chip, self._chip = self._chip, None
        if chip is not None:
            chip.close()

    def _lose(self, why: str) -> None:
        self._lost_at = self._lost_at or time.monotonic()
        self._become(DeviceHealth(DeviceState.HEALING, f"the TPM is being brought back: {why}"))

    def _failed(self, error: HsmsignError) -> None:
        code = error.metadata.get("tpm_rc", "")
        state = DeviceState.BROKEN
        if isinstance(error, PinRefusedError):
            state = DeviceState.PIN_REFUSED
        elif isinstance(error, TokenNotPresentError):
            self._lost_at = self._lost_at or time.monotonic()
            patient = time.monotonic() - self._lost_at < _GRACE
            state = DeviceState.HEALING if patient else DeviceState.TOKEN_NOT_PRESENT
        elif isinstance(error, DeviceError):
            state = DeviceState.HEALING
        self._become(DeviceHealth(state, error.message, error.hint, code))

    def _ready(self) -> DeviceHealth:
        assert self._chip is not None  # noqa: S101 - just opened, or looked at
        self._looked_at = time.monotonic()
        said = self._chip.properties
        counter = f"lockout counter {said.lockout_counter} of {said.lockout_limit}"
        if said.in_lockout:
            return DeviceHealth(
                DeviceState.READY,
                f"TPM {said.manufacturer} {said.model} is in lockout ({counter}): keys of ours go on, others do not",
                hint="wait for its recovery time, or reset it: tpm2_dictionarylockout --clear-lockout",
                ckr="TPM_RC_LOCKOUT",
            )
        return DeviceHealth(DeviceState.READY, f"TPM {said.manufacturer} {said.model} is ready, {counter}")

    def _become(self, health: DeviceHealth) -> None:
        self._health = health
        if health.state is DeviceState.READY:
            if self._pool.stats().mode is not native.PoolMode.RUNNING:
                self._pool.running()
        elif health.state is DeviceState.PIN_REFUSED:
            self._pool.failing(JobStatus.PIN_REFUSED)
        elif health.state is DeviceState.TOKEN_NOT_PRESENT:
            self._pool.failing(JobStatus.NOT_PRESENT)
        elif health.state is DeviceState.BROKEN:
            self._pool.failing(JobStatus.BROKEN)
        else:
            self._pool.healing()

    # -- management ----------------------------------------------------------------------------------

    def describe(self) -> DeviceInfo:
        """Who the TPM is and what it can do."""
        chip = self._chip
        if chip is None:
            raise self._unusable()
        said = chip.properties
        return DeviceInfo(
            protection=Protection.SOFTWARE if self._simulator is not None else Protection.TPM,
            module_path=self._tpm.tcti or "simulator",
            library="tpm2-tss ESAPI",
            library_version="",
            cryptoki_version=said.revision,
            token_label=f"{said.manufacturer} {said.model}",
            token_serial=chip.parent_name[2:18].hex(),
            token_manufacturer=said.manufacturer,
            token_model=said.model,
            firmware_version=said.firmware,
            algorithms=chip.algorithms,
            sessions=1,
            keeps_keys=False,
            attests=True,
        )

    def generate(self, algorithm: KeyAlgorithm, object_id: bytes, label: str, pcrs: str = "") -> DeviceKey:
        """Make a key pair. It is nowhere but in the answer: the TPM keeps none of it."""
        del label
        self.describe().must_make(algorithm, "the TPM")
        if pcrs:
            shapes.pcr_selection(pcrs)
        doing = f"making a key of algorithm {algorithm.value}"
        locator, _ = self._ask(doing, lambda chip: chip.generate(algorithm, object_id, pcrs))
        return self._ask(doing, lambda chip: _key(locator, chip))

    def find(self, query: ObjectQuery) -> list[DeviceKey]:
        """A persistent handle (the id, four bytes), or the key of a locator. Keys have no labels in a TPM."""
        if query.locator is not None:
            locator = query.locator
            if blobs.is_ours(locator):
                return [self._ask("reading a key", lambda chip: _key(locator, chip))]
            if locators.is_by_id(locator):
                return []  # what the rest of an unfinished key would be called: a TPM has none
            raise ObjectNotFoundError("the locator is none of a TPM", hint="was this key made on another backend?")
        if query.id is None and query.label is None:
            raise InvalidArgumentError("a search wants an id, a label or a locator")
        if query.id is None or len(query.id) != 4 or query.label is not None:
            return []
        handle = int.from_bytes(query.id, "big")
        if not 0x81000000 <= handle <= 0x81FFFFFF:
            raise InvalidArgumentError(
                f"0x{handle:08x} is no persistent handle",
                hint="they begin at 0x81000000: tpm2_getcap handles-persistent",
            )
        try:
            key = self._ask("reading a key", lambda chip: _key(chip.persistent(handle)[0], chip))
        except ObjectNotFoundError:
            return []
        return [key]

    def destroy(self, locator: bytes) -> bool:
        """Flush a key; a persistent one is taken out of the TPM. A wrapped key is gone with its locator."""
        if not blobs.is_ours(locator):
            return False
        try:
            key = blobs.decode(locator)
        except KeyDamagedError:
            return False
        if isinstance(key, blobs.WrappedKey):
            self._ask("flushing a key", lambda chip: chip.forget(locator))
            return True
        return self._ask("evicting a key", lambda chip: self._evict(chip, locator, key.handle))

    def _evict(self, chip: Chip, locator: bytes, handle: int) -> bool:
        try:
            if chip.persistent(handle)[0] != locator:
                return False  # another key is there now
        except ObjectNotFoundError:
            return False
        chip.forget(locator)
        chip.evict(handle, self._owner_auth() if self._tpm.owner_auth is not None else None)
        return True

    # -- attestation ---------------------------------------------------------------------------------

    def attester(self) -> AttesterIdentity:
        """Who certifies keys of this TPM."""
        return self._ask("reading the endorsement key", attester.identity)

    def certify(self, locator: bytes, qualifying: bytes) -> Certified:
        """Have the TPM say that a key is in it."""
        return self._ask("certifying a key", lambda chip: attester.certify(chip, locator, qualifying))

    def activate(self, credential: bytes, secret: bytes) -> bytes:
        """Open a verifier's challenge. Raises InvalidArgumentError where it is not for this TPM."""
        try:
            return self._ask("opening a challenge", lambda chip: attester.activate(chip, credential, secret))
        except (DeviceError, KeyDamagedError, ValueError) as error:
            raise InvalidArgumentError(
                "the TPM cannot open the challenge", hint="was it made from an attestation of this TPM?"
            ) from error

    def _ask(self, doing: str, ask: Callable[[Chip], _T]) -> _T:
        """Ask the TPM; where it was lost, bring it back and ask once more."""
        try:
            with self._chip_lock:
                return self._repeat(ask)
        except TSS2_Exception as error:
            if codes.remedy(error.rc) not in _LOST:
                raise _to_error(error.rc, doing) from error
            self._lose(f"{tpm.name(error.rc)} while {doing}")
        self._bring_up()
        try:
            with self._chip_lock:
                return self._repeat(ask)
        except TSS2_Exception as error:
            raise _to_error(error.rc, doing) from error

    def _repeat(self, ask: Callable[[Chip], _T]) -> _T:
        """`ask`, again as often as the TPM's answer says that this helps. Wrong authorizations are never repeated."""
        fresh = False
        for turn in range(_TRIES):
            if self._chip is None:
                raise self._unusable()
            try:
                return ask(self._chip)
            except TSS2_Exception as error:
                helps = codes.remedy(error.rc)
                if helps is Remedy.ROOM and self._chip.make_room():
                    continue
                if helps is Remedy.FRESH and not fresh:
                    fresh = True
                    self._chip.refresh()
                    continue
                if helps is not Remedy.WAIT or turn == _TRIES - 1:
                    raise
                time.sleep(_WAIT)
        raise AssertionError("unreachable")

    def _unusable(self) -> HsmsignError:
        health = self._health
        kind = {
            DeviceState.PIN_REFUSED: PinRefusedError,
            DeviceState.TOKEN_NOT_PRESENT: TokenNotPresentError,
        }.get(health.state, DeviceUnavailableError)
        metadata = {"tpm_rc": health.ckr} if health.ckr else {}
        return kind(health.message, hint=health.hint, metadata=metadata)

    # -- signatures ----------------------------------------------------------------------------------

    def _sign_for_ever(self) -> None:
        while not self._stop.is_set():
            turn = self._turns.begin(_IDLE)
            if turn is not None:
                self._sign(turn)

    def _sign(self, turn: Turn) -> None:
        turns = self._turns
        try:
            with self._chip_lock:
                began = self._signing_since = time.monotonic()
                signature = self._repeat(lambda chip: chip.sign(turn.locator, turn.scheme, turn.digest))
            turns.end(signature)
            took = time.monotonic() - began
            self._pace = took if not self._pace else self._pace + _PACE_WEIGHT * (took - self._pace)
            turns.pace(self._pace)
        except TSS2_Exception as error:
            if codes.remedy(error.rc) in _LOST:
                turns.put_off(tpm.code(error.rc))
            else:
                turns.fail(JobStatus.DEVICE_ERROR, tpm.code(error.rc, codes.trouble(error.rc)))
        except ParentChangedError:
            turns.fail(JobStatus.DEVICE_ERROR, tpm.code(0, Trouble.PARENT_CHANGED))
        except KeyDamagedError:
            turns.fail(JobStatus.DEVICE_ERROR, tpm.code(0, Trouble.BLOB_DAMAGED))
        except ObjectNotFoundError:
            turns.fail(JobStatus.KEY_NOT_FOUND)
        except HsmsignError:  # no chip at the moment
            turns.put_off(tpm.code(codes.INITIALIZE))
        except BaseException:  # noqa: BLE001
            os._exit(70)  # a host that signs no more must not look alive
        finally:
            self._signing_since = 0.0


def _key(locator: bytes, chip: Chip) -> DeviceKey:
    public, pcrs = chip.public(locator)
    algorithm = shapes.algorithm_of(public)
    if algorithm is None or not shapes.signs_freely(public):
        raise CapabilityMissingError(
            "the TPM's key is of a kind that is not used here", hint="an EC or RSA key that signs and is not restricted"
        )
    key = blobs.decode(locator)
    uri = f"tpm2:handle=0x{key.handle:08x}" if isinstance(key, blobs.PersistentKey) else ""
    return DeviceKey(locator, algorithm, shapes.spki_of(public), shapes.facts_of(public, pcrs), uri)


def _to_error(rc: int, doing: str) -> HsmsignError:
    """A response code as an error of ours."""
    said = {"tpm_rc": tpm.name(rc)}
    named = tpm.name(rc)
    if rc == codes.TCTI_IO_ERROR or (codes.remedy(rc) is Remedy.RECONNECT and rc >> 16 == 0):
        return TokenNotPresentError(
            f"the TPM cannot be reached while {doing} ({named})",
            hint="is it there, and may the daemon's user use it? see the backend's `tcti`",
            metadata=said,
            retry_after=1.0,
        )
    if rc >> 16 in (10, 7):
        return DeviceUnavailableError(
            f"the way to the TPM cannot be used ({named})",
            hint="is the backend's `tcti` right? for example device:/dev/tpmrm0",
            metadata=said,
        )
    if tpm.base(rc) == codes.LOCKOUT:
        return PinLockedError(
            f"the TPM is in lockout, and did not go on with {doing}",
            hint="wait for its recovery time, or reset it: tpm2_dictionarylockout --clear-lockout",
            metadata=said,
        )
    if tpm.base(rc) in codes.BAD_AUTH:
        return PinRefusedError(
            f"the TPM refused the authorization for {doing}; it was tried once",
            hint="put the right owner_auth where the configuration says, then reload the daemon",
            metadata=said,
        )
    if codes.trouble(rc) is Trouble.BLOB_DAMAGED:
        return KeyDamagedError(
            f"the TPM does not take the key while {doing}", hint="restore the store from a backup", metadata=said
        )
    return DeviceError(f"the TPM answered {named} while {doing}", metadata=said)

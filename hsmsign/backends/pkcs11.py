"""A PKCS #11 token as a device: logs in once, makes and finds keys, brings back what is lost.

Management goes through python-pkcs11, signatures through the native pool; both share one initialised
module (native/host/host.h). A login is the token's, so that one C_Login serves all sessions of both.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import pkcs11
from pkcs11.exceptions import PKCS11Error, UserAlreadyLoggedIn

from hsmsign.backends import native, objects
from hsmsign.backends.base import BackendConfig, ObjectQuery
from hsmsign.backends.ckr import CORRECT_PIN, LOST, name_of_error, to_error
from hsmsign.backends.keys import KeyCabinet
from hsmsign.backends.pin import read_pin
from hsmsign.backends.token import check_pin_counters, find_token, fits, info_of, serial_of, uri_of
from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.ckr import name
from hsmsign.model.device import DeviceHealth, DeviceInfo, DeviceKey, DeviceState, JobStatus, Protection
from hsmsign.model.errors import (
    CapabilityMissingError,
    ConfigurationError,
    DeviceError,
    DeviceUnavailableError,
    HsmsignError,
    ObjectNotFoundError,
    PinLockedError,
    PinRefusedError,
    TokenNotPresentError,
)

_T = TypeVar("_T")
_HEAL_PAUSE = 1.0
"""Seconds after healing in which another fault waits for the next look at the device: one that is healed in vain
is not healed without end."""
_IN_VAIN = 3
"""Times that it is healed without a signature in between before callers are told, instead of waiting for the next."""
_LONGEST_PAUSE = 30.0
_QUEUED_BYTES = 64 << 20
"""Of orders that one connection may have waiting; the worker's own limit is smaller than the frame's."""
_JOBS_GET = {
    DeviceState.TOKEN_NOT_PRESENT: JobStatus.NOT_PRESENT,
    DeviceState.PIN_REFUSED: JobStatus.PIN_REFUSED,
    DeviceState.PIN_LOCKED: JobStatus.PIN_LOCKED,
    DeviceState.BROKEN: JobStatus.BROKEN,
}
_RAISES: dict[DeviceState, type[HsmsignError]] = {
    DeviceState.TOKEN_NOT_PRESENT: TokenNotPresentError,
    DeviceState.PIN_REFUSED: PinRefusedError,
    DeviceState.PIN_LOCKED: PinLockedError,
}


class Pkcs11Backend:
    """Implements `hsmsign.backends.base.Backend`.

    `prepare` is called before the module is opened and may raise TokenNotPresentError; `present` is asked,
    with the token's serial (or None where that is not known yet), whether the token can be there at all.
    `logging_in` is called before the PIN is tried: whoever outlives this process can remember that. `tidy` is
    given a session at each look at a device that is well, until it answers False.
    """

    def __init__(
        self,
        config: BackendConfig,
        *,
        pin_refused: bool = False,
        protection: Protection = Protection.HSM,
        prepare: Callable[[], None] = lambda: None,
        present: Callable[[str | None], bool] | None = None,
        logging_in: Callable[[], None] = lambda: None,
        tidy: Callable[[Any], bool] | None = None,
    ) -> None:
        self._config = config
        self._pin_refused = pin_refused
        self._protection = protection
        self._prepare = prepare
        self._present = present
        self._logging_in = logging_in
        self._tidy = tidy
        self._healed_at = 0.0
        self._in_vain = 0
        self._signed_then = -1
        self._broken_until = 0.0
        self._sessions = config.sessions or os.cpu_count() or 1
        self._exclusion = native.Exclusion[config.quirks.exclusive_management.upper()]
        self._health = DeviceHealth(DeviceState.STARTING, "the device is being opened")
        self._library: Any = None
        self._token: Any = None
        self._session: Any = None
        self._pool: native.SigningPool | None = None
        self._pool_slot = -1
        self._pool_lock = threading.Lock()
        self._no_fault = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._outdated = False

    # -- the life of a device ------------------------------------------------------------------------

    @property
    def config(self) -> BackendConfig:
        """What it was made from."""
        return self._config

    def start(self) -> None:
        """Open the module, find the token, log in (one try), let signatures flow."""
        self._bring_up()

    def health(self) -> DeviceHealth:
        """How the device is now, without asking it."""
        return self._health

    def outdated(self) -> bool:
        """Whether only a new process can see the token: the module looks for tokens once, when it is loaded."""
        return self._outdated

    def tick(self) -> None:
        """Notice lost tokens, bring back what can be brought back."""
        state = self._health.state
        if state in (DeviceState.PIN_REFUSED, DeviceState.PIN_LOCKED):
            return
        if state is DeviceState.BROKEN and time.monotonic() < self._broken_until:
            return
        if state is DeviceState.READY:
            if not self._pool_faulted():
                self._check_token()
            elif self._heals_in_vain():
                self._break_off()
            elif time.monotonic() - self._healed_at < _HEAL_PAUSE:
                self._become(_healing(f"a signature met {self._last_fault()} again"))
            else:
                self._heal(f"a signature met {self._last_fault()}")
            return
        self._bring_up()

    def describe(self) -> DeviceInfo:
        """Who the device is and what it can do."""
        if self._library is None or self._token is None:
            raise self._unusable()
        return self._asking(
            "asking for the token's description",
            lambda: info_of(self._library, self._token, self._config, self._protection, self._sessions),
        )

    def drain(self, timeout: float) -> None:
        """Wait for running signatures to end, at most this many seconds."""
        pool = self._pool
        if pool is not None:
            pool.drain(timeout)

    def close(self) -> None:
        """Let go of everything."""
        with self._pool_lock:
            if self._pool is not None:
                self._pool.close()
                self._pool = None
        self._drop_session()
        if self._no_fault >= 0:
            os.close(self._no_fault)
            self._no_fault = -1

    # -- keys ----------------------------------------------------------------------------------------

    def generate(self, algorithm: KeyAlgorithm, object_id: bytes, label: str, pcrs: str = "") -> DeviceKey:
        """Make a key pair: on the token, sensitive, not extractable, with this CKA_ID."""
        if pcrs:
            raise CapabilityMissingError(
                "a PKCS #11 token has no platform registers (PCRs) to bind a key to", hint="use a backend of kind tpm2"
            )
        self.describe().must_make(algorithm, f"the token {self._token.label!r}")
        return self._asking(
            f"making a key of algorithm {algorithm.value}",
            self._alone(lambda: self._cabinet().generate(algorithm, object_id, label)),
        )

    def find(self, query: ObjectQuery) -> list[DeviceKey]:
        """The key pairs that fit."""
        if query.locator is not None:
            _check_locator(query.locator)
        return self._asking("looking for a key", lambda: self._cabinet().find(query))

    def destroy(self, locator: bytes) -> bool:
        """Destroy the private and the public object. False where there was nothing."""
        _check_locator(locator)
        done = self._asking("destroying a key", self._alone(lambda: self._cabinet().destroy(locator)))
        if self._pool is not None:
            self._pool.forget(locator)
        return done

    # -- signatures ----------------------------------------------------------------------------------

    def fault_fd(self) -> int:
        """A file descriptor that is readable when `tick` should be called now. It changes with the token's slot."""
        with self._pool_lock:
            return self._no_fault if self._pool is None else self._pool.fault_fd()

    def oldest_active(self) -> float:
        """Seconds that the oldest running signature has been inside the device."""
        with self._pool_lock:
            return 0.0 if self._pool is None else self._pool.stats().oldest_active

    def serve(self, connection: socket.socket) -> None:
        """Take over a connection that carries orders (its hello has been read)."""
        with self._pool_lock:
            if self._pool is None:
                # no token yet: its orders wait, or are told why not, in a pool that is replaced when it is found
                self._pool = self._new_pool(0)
                self._pool_slot = -1
                self._set_mode(self._pool)
            self._pool.serve(connection)

    # -- opening -------------------------------------------------------------------------------------

    def _bring_up(self) -> None:
        """From whatever state to READY, or to the state that says what is in the way."""
        try:
            self._open_library()
            self._token = find_token(self._library, self._config)
            if self._present is not None and not self._present(serial_of(self._token)):
                raise TokenNotPresentError(f"the token {self._token.label!r} was removed", hint="put it back")
            self._use_slot(self._token.slot.slot_id)
            self._log_in()
            self._become(self._ready())
            self._healed_at = time.monotonic()
        except PKCS11Error as error:
            self._failed(to_error(error, "opening the token"))
        except HsmsignError as error:
            self._failed(error)

    def _open_library(self) -> None:
        if self._library is not None:
            return
        self._prepare()
        native.open_module(str(self._config.module))
        self._library = pkcs11.lib(native.module_path())

    def _use_slot(self, slot_id: int) -> None:
        with self._pool_lock:
            if self._pool is not None and self._pool_slot == slot_id:
                return
            if self._pool is not None:
                self._pool.close()  # its connections are made anew by their workers, with what waits in them
            self._pool = self._new_pool(slot_id)
            self._pool_slot = slot_id

    def _new_pool(self, slot_id: int) -> native.SigningPool:
        return native.SigningPool(slot_id, self._sessions, _QUEUED_BYTES, self._exclusion)

    def _log_in(self) -> None:
        self._drop_session()
        if self._config.quirks.login_as == "none":
            self._session = self._token.open(rw=True, attribute_mapper=objects.Mapper())
            return
        if self._pin_refused:
            raise PinRefusedError(
                "the PIN was refused before, or its last try came to no end; it is not tried again",
                hint=CORRECT_PIN,
                metadata={"ckr": "CKR_PIN_INCORRECT"},
            )
        check_pin_counters(self._token)
        if self._config.pin is None:
            raise ConfigurationError(
                f"backend {self._config.name!r} has no pin, and its token wants a login",
                hint='add pin.file, pin.env or pin.credential; or quirks.login_as = "none"',
            )
        pin = read_pin(self._config.pin)
        self._logging_in()
        try:
            self._session = self._token.open(rw=True, user_pin=pin, attribute_mapper=objects.Mapper())
        except UserAlreadyLoggedIn:
            self._session = self._token.open(rw=True, attribute_mapper=objects.Mapper())
        except PKCS11Error as error:
            translated = to_error(error, "logging in")
            self._pin_refused = isinstance(translated, PinRefusedError)
            raise translated from None  # the frames below hold the PIN

    def _drop_session(self) -> None:
        if self._session is not None:
            with contextlib.suppress(PKCS11Error):
                self._session.close()
            self._session = None

    # -- healing -------------------------------------------------------------------------------------

    def _check_token(self) -> None:
        try:
            now = self._token.slot.get_token()
            there = fits(now, self._config) and serial_of(now) == serial_of(self._token)
            if there and self._present is not None:
                there = self._present(serial_of(now))
        except PKCS11Error as error:
            self._failed(to_error(error, "looking at the token"))
            return
        if not there:
            self._failed(TokenNotPresentError(f"the token {self._token.label!r} was removed", hint="put it back"))
            return
        self._health = self._ready()
        self._tidy_up()

    def _tidy_up(self) -> None:
        tidy = self._tidy
        if tidy is None:
            return
        with contextlib.suppress(PKCS11Error):  # of a lost session a signature, or whoever manages, learns soon
            if not self._alone(lambda: tidy(self._session))():
                self._tidy = None

    def _ready(self) -> DeviceHealth:
        message = f"token {self._token.label!r} is ready"
        stats = self._pool.stats() if self._pool is not None else None
        if stats is None or stats.resting == 0:
            return DeviceHealth(DeviceState.READY, message)
        there = self._sessions - stats.resting
        return DeviceHealth(
            DeviceState.READY,
            f"{message}, but gives only {there} of {self._sessions} sessions for signatures",
            hint=f"set the backend's `sessions` to {there}, or see what else uses the token's sessions",
        )

    def _heal(self, why: str) -> None:
        self._become(_healing(why))
        self._bring_up()

    def _heals_in_vain(self) -> bool:
        """Count a fault; whether nothing was signed since some faults."""
        signed = self._pool.stats().signed_total if self._pool is not None else 0
        self._in_vain = self._in_vain + 1 if signed == self._signed_then else 1
        self._signed_then = signed
        return self._in_vain > _IN_VAIN

    def _break_off(self) -> None:
        """Tell those who wait, and those who come, and try again after a pause that grows."""
        pause = min(2.0 ** (self._in_vain - _IN_VAIN - 1), _LONGEST_PAUSE)
        self._broken_until = time.monotonic() + pause
        why = f"signatures meet {self._last_fault()}, whatever is done about it; it is tried again in {pause:g} seconds"
        self._become(DeviceHealth(DeviceState.BROKEN, why, "look at the device and its vendor's log"))

    def _failed(self, error: HsmsignError) -> None:
        ckr = error.metadata.get("ckr", "")
        state = DeviceState.BROKEN
        if isinstance(error, TokenNotPresentError):
            state = DeviceState.TOKEN_NOT_PRESENT
            self._outdated = self._library is not None and self._present is not None and self._present(None)
        elif isinstance(error, PinRefusedError):
            state = DeviceState.PIN_REFUSED
        elif isinstance(error, PinLockedError):
            state = DeviceState.PIN_LOCKED
        elif self._library is not None and isinstance(error, DeviceError | DeviceUnavailableError):
            state = DeviceState.HEALING
        self._become(DeviceHealth(state, error.message, error.hint, ckr))

    def _become(self, health: DeviceHealth) -> None:
        """Change the state, and with it what becomes of signatures."""
        self._health = health
        with self._pool_lock:
            if self._pool is None:
                return
            try:
                self._set_mode(self._pool)
            except HsmsignError as error:  # the pool's sessions cannot be opened
                ckr = error.metadata.get("ckr", "")
                self._health = DeviceHealth(DeviceState.HEALING, error.message, error.hint, ckr)
                self._pool.healing()

    def _set_mode(self, pool: native.SigningPool) -> None:
        if self._health.state is DeviceState.READY:
            pool.running()
        elif self._health.state in _JOBS_GET:
            pool.failing(_JOBS_GET[self._health.state])
        else:
            pool.healing()

    def _pool_faulted(self) -> bool:
        return self._pool is not None and self._pool.stats().mode is native.PoolMode.HEALING

    def _last_fault(self) -> str:
        ckr = self._pool.stats().last_fault_ckr if self._pool is not None else 0
        return name(ckr) if ckr else "a lost session"

    # -- asking the device ---------------------------------------------------------------------------

    def _cabinet(self) -> KeyCabinet:
        if self._session is None or self._health.state is not DeviceState.READY:
            raise self._unusable()
        as_name = self._config.quirks.eddsa_curve_as_name
        return KeyCabinet(self._session, uri_of(self._token), curve_as_name=as_name)

    def _asking(self, doing: str, ask: Callable[[], _T]) -> _T:
        """Ask the device; where a session was lost, bring it back and ask once more."""
        try:
            return ask()
        except PKCS11Error as error:
            if name_of_error(error) not in LOST:
                raise to_error(error, doing) from error
            self._heal(f"{name_of_error(error)} while {doing}")
        try:
            return ask()
        except PKCS11Error as error:
            raise to_error(error, doing) from error

    def _unusable(self) -> HsmsignError:
        health = self._health
        kind = _RAISES.get(health.state, DeviceUnavailableError)
        return kind(
            health.message,
            hint=health.hint,
            metadata={"ckr": health.ckr} if health.ckr else {},
            retry_after=1.0 if kind is not PinRefusedError and kind is not PinLockedError else None,
        )

    def _alone(self, ask: Callable[[], _T]) -> Callable[[], _T]:
        """`ask`, with signatures kept out. Only around a single try: healing may replace the pool."""

        def asking_alone() -> _T:
            if self._exclusion is native.Exclusion.NOTHING or self._pool is None:
                return ask()
            with self._pool.managing():
                return ask()

        return asking_alone


def _healing(why: str) -> DeviceHealth:
    return DeviceHealth(DeviceState.HEALING, f"the session is being brought back: {why}")


def _check_locator(locator: bytes) -> None:
    try:
        objects.read_locator(locator)
    except ValueError as error:
        raise ObjectNotFoundError(
            f"the locator points to nothing on a PKCS #11 token: {error}", hint="was this key made on another backend?"
        ) from None

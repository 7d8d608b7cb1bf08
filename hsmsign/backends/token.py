"""Finding a token among a module's slots, and what it says about itself."""

from __future__ import annotations

from typing import Any

from pkcs11.constants import TokenFlag
from pkcs11.exceptions import PKCS11Error
from pkcs11.mechanisms import Mechanism

from hsmsign.backends import objects
from hsmsign.backends.base import BackendConfig
from hsmsign.backends.ckr import GONE, UNLOCK, name_of_error
from hsmsign.backends.uri import Pkcs11Uri
from hsmsign.model.algorithms import Family, KeyAlgorithm
from hsmsign.model.device import DeviceInfo, Protection
from hsmsign.model.errors import ConfigurationError, PinLockedError, TokenNotPresentError


def find_token(library: Any, config: BackendConfig) -> Any:
    """The one token that the configuration means, as python-pkcs11's Token.

    Raises TokenNotPresentError where it is not there, ConfigurationError where several fit, PKCS11Error.
    """
    tokens = []
    for slot in library.get_slots(token_present=True):
        try:
            token = slot.get_token()
        except PKCS11Error as error:
            if name_of_error(error) in GONE:
                continue
            raise
        if token.flags & TokenFlag.TOKEN_INITIALIZED:
            tokens.append(token)
    fitting = [token for token in tokens if fits(token, config)]
    if not fitting:
        there = ", ".join(f"{t.label!r} (serial {serial_of(t)})" for t in tokens) or "none"
        raise TokenNotPresentError(
            f"no token {_wanted(config)} in any slot of {config.module}",
            hint=f"tokens that are there: {there}",
            metadata={"ckr": "CKR_TOKEN_NOT_PRESENT"},
        )
    if len(fitting) > 1:
        serials = ", ".join(serial_of(token) for token in fitting)
        raise ConfigurationError(
            f"{len(fitting)} tokens fit {_wanted(config)}", hint=f"name one by token_serial: {serials}"
        )
    return fitting[0]


def fits(token: Any, config: BackendConfig) -> bool:
    """Whether it is the token that the configuration means."""
    return (config.token_label is None or token.label == config.token_label) and (
        config.token_serial is None or serial_of(token) == config.token_serial
    )


def serial_of(token: Any) -> str:
    """CK_TOKEN_INFO.serialNumber without its padding."""
    return str(token.serial.decode("utf-8", "replace").rstrip(" \0"))


def check_pin_counters(token: Any) -> None:
    """Read the counters before they are risked (CK_TOKEN_INFO.flags). Raises PinLockedError, PKCS11Error."""
    flags = token.slot.get_token().flags
    if flags & TokenFlag.USER_PIN_LOCKED:
        raise PinLockedError("the token's PIN is locked", hint=UNLOCK, metadata={"ckr": "CKR_PIN_LOCKED"})
    if flags & TokenFlag.USER_PIN_FINAL_TRY:
        raise PinLockedError(
            "one wrong PIN more would lock the token, so the PIN was not tried",
            hint="make sure of the PIN by logging in with the vendor's tool (which resets the counter),"
            " then reload the daemon",
        )


def uri_of(token: Any) -> Pkcs11Uri:
    """The token's own URI, to which a key's adds its id and label."""
    return Pkcs11Uri(token=token.label, serial=serial_of(token), manufacturer=token.manufacturer_id, model=token.model)


def info_of(library: Any, token: Any, config: BackendConfig, protection: Protection, sessions: int) -> DeviceInfo:
    """Who the device says it is. Raises PKCS11Error."""
    return DeviceInfo(
        protection=protection,
        module_path=str(config.module),
        library=library.library_description,
        library_version=_version(library.library_version),
        cryptoki_version=_version(library.cryptoki_version),
        token_label=token.label,
        token_serial=serial_of(token),
        token_manufacturer=token.manufacturer_id,
        token_model=token.model,
        firmware_version=_version(token.firmware_version),
        algorithms=algorithms_of(token.slot, config.quirks.unusable_mechanisms),
        sessions=sessions,
    )


def algorithms_of(slot: Any, unusable: tuple[str, ...]) -> tuple[KeyAlgorithm, ...]:
    """The key algorithms that a slot's mechanisms can both make and sign with."""
    usable = {int(m) for m in slot.get_mechanisms()} - {_mechanism(name) for name in unusable}
    able = []
    for algorithm in KeyAlgorithm:
        make, sign = objects.GENERATE[algorithm.family], objects.SIGN[algorithm.family]
        if make in usable and sign in usable and _size_fits(slot, make, algorithm):
            able.append(algorithm)
    return tuple(able)


def _size_fits(slot: Any, mechanism: Mechanism, algorithm: KeyAlgorithm) -> bool:
    if algorithm.family is Family.ED25519:
        return True  # modules disagree whether its size is 255 or 256 bits
    info = slot.get_mechanism_info(mechanism)
    if algorithm.family is Family.EC and info.max_key_length == 0:
        return True  # said nothing
    return bool(info.min_key_length <= algorithm.bits <= info.max_key_length)


def _mechanism(name: str) -> int:
    known = Mechanism.__members__.get(name.removeprefix("CKM_"))
    if known is None:
        raise ConfigurationError(f"{name!r} is no PKCS #11 mechanism", hint="for one: CKM_EC_EDWARDS_KEY_PAIR_GEN")
    return int(known)


def _wanted(config: BackendConfig) -> str:
    label = f"with label {config.token_label!r}" if config.token_label is not None else ""
    serial = f"with serial {config.token_serial!r}" if config.token_serial is not None else ""
    return " and ".join(part for part in (label, serial) if part) or "at all"


def _version(pair: tuple[int, int]) -> str:
    return f"{pair[0]}.{pair[1]}"

"""What a device's state means to who wants something of it."""

from __future__ import annotations

from hsmsign.model.device import DeviceHealth, DeviceState
from hsmsign.model.errors import (
    DeviceUnavailableError,
    HsmsignError,
    PinLockedError,
    PinRefusedError,
    TokenNotPresentError,
)

_REFUSALS: dict[DeviceState, type[HsmsignError]] = {
    DeviceState.TOKEN_NOT_PRESENT: TokenNotPresentError,
    DeviceState.PIN_REFUSED: PinRefusedError,
    DeviceState.PIN_LOCKED: PinLockedError,
    DeviceState.BROKEN: DeviceUnavailableError,
}


def refusal(name: str, health: DeviceHealth) -> HsmsignError | None:
    """The error of asking a device in this state; None where it is ready, or will be in a moment."""
    kind = _REFUSALS.get(health.state)
    if kind is None:
        return None
    metadata = {"backend": name, "state": health.state.value} | ({"ckr": health.ckr} if health.ckr else {})
    hint = health.hint or "look at it: hsmsign backend list"
    return kind(health.message, hint=hint, metadata=metadata, retry_after=1.0 if kind.code == "UNAVAILABLE" else None)

"""Saying where a key lives, with what the device can prove of it."""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import dataclass

from hsmsign.devices.base import Device, Lookup
from hsmsign.keyring.desk import Desk
from hsmsign.keyring.values import ResolvedKey
from hsmsign.model.algorithms import InputKind, KeyAlgorithm, SignatureFormat
from hsmsign.model.attestation import FORMAT, Attestation, canonical, qualifying_data, signed_bytes, text
from hsmsign.model.device import DeviceInfo, DeviceKey, JobStatus, SignOrder
from hsmsign.model.errors import (
    CapabilityMissingError,
    DeviceError,
    InvalidArgumentError,
    ObjectNotFoundError,
    VersionStateError,
)

NONCE_MIN, NONCE_MAX = 8, 64
_PATIENCE = 30.0
"""Seconds for a signature of a key about itself."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A verifier's question: its nonce, and perhaps a challenge that only the right TPM can open."""

    nonce: bytes
    credential: bytes = b""
    secret: bytes = b""


async def attest(desk: Desk, key: ResolvedKey, asked: Asked) -> Attestation:
    """Attest one version. Raises InvalidArgumentError, VersionStateError, ObjectNotFoundError."""
    if not NONCE_MIN <= len(asked.nonce) <= NONCE_MAX:
        raise InvalidArgumentError(
            f"a nonce has {NONCE_MIN} to {NONCE_MAX} bytes, this one has {len(asked.nonce)}",
            hint="make it at random, once for each attestation",
        )
    if not key.locator:
        raise VersionStateError(f"{key.name} is destroyed: there is nothing to attest")
    device = desk.device(key.device)
    found = await device.find(Lookup(locator=key.locator))
    info = device.info()
    if len(found) != 1 or found[0].public_key != key.public_key or info is None:
        raise ObjectNotFoundError(f"the device of backend {device.name!r} has not the key of {key.name}")
    statement = _statement(key, device, info, found[0], asked)
    if info.attests:
        return await _certified(device, key, statement, asked)
    if asked.credential:
        raise CapabilityMissingError(
            f"backend {device.name!r} cannot open challenges: it is no TPM", hint="leave the challenge out"
        )
    return await _asserted(device, key, statement)


def _statement(key: ResolvedKey, device: Device, info: DeviceInfo, found: DeviceKey, asked: Asked) -> dict[str, object]:
    facts = found.facts
    return {
        "format": FORMAT,
        "name": key.name,
        "algorithm": key.algorithm.value,
        "public_key": text(key.public_key),
        "nonce": asked.nonce.hex(),
        "time": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "backend": device.name,
        "protection": info.protection.name,
        "device": {
            "library": f"{info.library} {info.library_version}".strip(),
            "token": info.token_label,
            "serial": info.token_serial,
            "manufacturer": info.token_manufacturer,
            "model": info.token_model,
            "firmware": info.firmware_version,
        },
        "facts": {
            "sensitive": facts.sensitive,
            "extractable": facts.extractable,
            "local": facts.local,
            "always_sensitive": facts.always_sensitive,
            "never_extractable": facts.never_extractable,
            "pcrs": facts.pcrs,
        },
    }


async def _certified(device: Device, key: ResolvedKey, statement: dict[str, object], asked: Asked) -> Attestation:
    identity = await device.attester()
    activated = b""
    if asked.credential:
        activated = await device.activate(asked.credential, asked.secret)
    said = canonical(
        {
            **statement,
            "evidence": "tpm2-certify",
            "ak_public": text(identity.ak_public),
            "ek_public": text(identity.ek_public),
            "ek_certificate": text(identity.ek_certificate),
            "ek_chain": [text(one) for one in identity.ek_chain],
            "activated": text(activated),
        }
    )
    certified = await device.certify(key.locator, qualifying_data(said))
    return Attestation(said, certified.attest, certified.signature, certified.key_public)


async def _asserted(device: Device, key: ResolvedKey, statement: dict[str, object]) -> Attestation:
    said = canonical({**statement, "evidence": "asserted"})
    return Attestation(said, possession=await possession(device, key.locator, key.algorithm, signed_bytes(said)))


async def possession(device: Device, locator: bytes, algorithm: KeyAlgorithm, message: bytes) -> bytes:
    """The key's own signature, DER, with the first scheme of its algorithm, over a message of ours: one that stands
    for nothing but this. Raises DeviceError."""
    deadline = time.monotonic() + _PATIENCE
    order = SignOrder(locator, algorithm.schemes[0], InputKind.MESSAGE, SignatureFormat.DER, [message], deadline)
    outcome = await device.sign(order)
    if outcome.failures:
        status = outcome.failures[0].status
        raise DeviceError(f"the key on backend {device.name!r} did not sign ({JobStatus(status).name})")
    return outcome.signatures[0]

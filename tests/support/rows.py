"""A key and its version, as the store keeps them."""

from __future__ import annotations

from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.device import DeviceFacts, Protection
from hsmsign.store import KeyRow, VersionRow, VersionState

KEY = KeyRow("web-1", KeyAlgorithm.EC_P256, "soft", {"a": "ä"}, 1, 5, 6, 1, True)
VERSION = VersionRow(
    "web-1",
    1,
    VersionState.ENABLED,
    Protection.HSM,
    5,
    object_id=b"\x01",
    locator=b"\x01\x01\x00",
    public_key=b"spki",
    facts=DeviceFacts(sensitive=True, extractable=None, unique_id="u"),
    uri="pkcs11:id=%01",
    holds="soft/1",
)

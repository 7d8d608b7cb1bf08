"""hsmsign: sign with keys that live on a device, by their names, over gRPC.

    with hsmsign.connect() as client:
        key = client.key("keys/web-1")                 # for cryptography, PyJWT, josepy
        client.sign("keys/web-1", message=b"...").value

The names below come from `hsmsign.client` and `hsmsign.model` when they are first used: importing the
package loads neither gRPC nor cryptography.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hsmsign.client import (
        AdoptedObject,
        Client,
        Health,
        KeyInfo,
        RemoteEd25519PrivateKey,
        RemoteEllipticCurvePrivateKey,
        RemoteRSAPrivateKey,
        RemoteSigner,
        Signature,
        SignedBatch,
        TlsFiles,
        VersionInfo,
        connect,
    )
    from hsmsign.model.algorithms import InputKind, KeyAlgorithm, Scheme, SignatureFormat
    from hsmsign.model.dual_control import DualControl
    from hsmsign.model.errors import HsmsignError
    from hsmsign.model.purpose import Purpose, PurposeKind

_HOMES = {
    "hsmsign.client": (
        "AdoptedObject",
        "Client",
        "Health",
        "KeyInfo",
        "RemoteEd25519PrivateKey",
        "RemoteEllipticCurvePrivateKey",
        "RemoteRSAPrivateKey",
        "RemoteSigner",
        "Signature",
        "SignedBatch",
        "TlsFiles",
        "VersionInfo",
        "connect",
    ),
    "hsmsign.model.algorithms": ("InputKind", "KeyAlgorithm", "Scheme", "SignatureFormat"),
    "hsmsign.model.dual_control": ("DualControl",),
    "hsmsign.model.errors": ("HsmsignError",),
    "hsmsign.model.purpose": ("Purpose", "PurposeKind"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AdoptedObject",
    "Client",
    "DualControl",
    "Health",
    "HsmsignError",
    "InputKind",
    "KeyAlgorithm",
    "KeyInfo",
    "Purpose",
    "PurposeKind",
    "RemoteEd25519PrivateKey",
    "RemoteEllipticCurvePrivateKey",
    "RemoteRSAPrivateKey",
    "RemoteSigner",
    "Scheme",
    "Signature",
    "SignatureFormat",
    "SignedBatch",
    "TlsFiles",
    "VersionInfo",
    "connect",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        if name == "aio":  # hsmsign.aio.connect() without an import of its own
            return importlib.import_module("hsmsign.aio")
        raise AttributeError(f"module 'hsmsign' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Checking signatures with public keys, in this process: no device is asked."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from hsmsign.model.algorithms import Scheme
from hsmsign.model.limits import Limits
from hsmsign.model.verification import is_good
from hsmsign.signing.values import SignGroup

_LONG = 64 << 10
_SLOW = frozenset({Scheme.ECDSA_P384_SHA384, Scheme.ECDSA_P521_SHA512})
"""Those take about a millisecond; all others much less."""


class Verifier:
    """Checks signatures. Remembers the public keys that were used last."""

    def __init__(self, limits: Limits, size: int = 256) -> None:
        self._limits = limits
        self._size = size
        self._keys: OrderedDict[bytes, PublicKeyTypes] = OrderedDict()

    async def verify(self, public_key: bytes, scheme: Scheme, group: SignGroup, signature: bytes) -> bool:
        """Whether `signature` is one of the group's input by this key (SPKI, DER)."""
        key = self._load(public_key)
        how = (key, scheme, signature, group.inputs[0], group.kind, group.format)
        if scheme in _SLOW or len(group.inputs[0]) > _LONG:
            return await asyncio.to_thread(is_good, *how)
        return is_good(*how)

    def _load(self, der: bytes) -> PublicKeyTypes:
        key = self._keys.pop(der, None) or serialization.load_der_public_key(der)
        self._keys[der] = key
        if len(self._keys) > self._size:
            self._keys.popitem(last=False)
        return key

"""The way from the certificate authority to its keys: the signing pipeline, like for any caller."""

from __future__ import annotations

from hsmsign.model.algorithms import InputKind, Scheme, SignatureFormat
from hsmsign.model.caller import Caller
from hsmsign.model.errors import HsmsignError
from hsmsign.model.limits import Limits
from hsmsign.pki.authority import Version
from hsmsign.signing import SigningPipeline
from hsmsign.signing.values import SignGroup

ITSELF = Caller("hsmsign:ca")
"""Who asks for what nobody asked for: CRLs and OCSP answers on their schedules."""


class Signer:
    """Signs with the keys of authorities. Rights are asked for before."""

    def __init__(self, pipeline: SigningPipeline, limits: Limits) -> None:
        self._pipeline = pipeline
        self._limits = limits

    async def sign(
        self, by: Caller, version: Version, parts: list[bytes], deadline: float = 0.0, request: str = ""
    ) -> list[bytes | HsmsignError]:
        """Sign these with an authority's key: for each, the signature or its error."""
        return await self.sign_with(by, version.row.key_version, version.scheme, parts, deadline, request)

    async def sign_with(
        self,
        by: Caller,
        key_version: str,
        scheme: Scheme,
        parts: list[bytes],
        deadline: float = 0.0,
        request: str = "",
    ) -> list[bytes | HsmsignError]:
        """The same with any key."""
        group = SignGroup(key_version, scheme, InputKind.MESSAGE, SignatureFormat.DER, parts)
        try:
            result = await self._pipeline.sign(by, group, deadline, request, own=True)
        except HsmsignError as error:
            return [error] * len(parts)
        answers: list[bytes | HsmsignError] = list(result.signatures)
        for failure in result.failures:
            answers[failure.index] = failure.error
        return answers

    def takes(self, size: int) -> bool:
        """Whether something of so many bytes is signed as a message, so that it is seen what it is."""
        return size <= self._limits.max_message_bytes

    async def sign_digest(self, version: Version, digest: bytes) -> bytes:
        """Sign what the daemon itself wrote and is too large for a message. Raises HsmsignError."""
        group = SignGroup(version.row.key_version, version.scheme, InputKind.DIGEST, SignatureFormat.DER, [digest])
        result = await self._pipeline.sign(ITSELF, group, own=True)
        if result.failures:
            raise result.failures[0].error
        return result.signatures[0]

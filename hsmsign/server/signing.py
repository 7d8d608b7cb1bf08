"""SigningService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from hsmsign.model.errors import HsmsignError
from hsmsign.server import wire_signing as wire
from hsmsign.server.guard import Call
from hsmsign.server.stream import answer_stream
from hsmsign.signing import Limits, SigningPipeline
from hsmsign.signing.inputs import check_sizes
from hsmsign.v1 import signing_pb2


class SigningService:
    """Signatures."""

    def __init__(self, pipeline: SigningPipeline, limits: Limits) -> None:
        self._pipeline = pipeline
        self._limits = limits

    async def Sign(self, request: signing_pb2.SignRequest, call: Call) -> signing_pb2.SignResponse:
        """One."""
        order = wire.sign_order(request)
        call.apart = call.recorded = True
        result = await self._pipeline.sign(call.caller, order, call.deadline, call.request_id)
        return wire.sign_response(result)

    async def SignBatch(self, request: signing_pb2.SignBatchRequest, call: Call) -> signing_pb2.SignBatchResponse:
        """Many."""
        groups = [wire.sign_group(group) for group in request.groups]
        unread = [(at, group) for at, group in enumerate(groups) if isinstance(group, HsmsignError)]
        if unread:
            check_sizes(groups, self._limits)  # what is too much as a whole is refused, and recorded, as a whole
            await asyncio.gather(*[call.refused(error, request.groups[at].name) for at, error in unread])
        call.apart = True
        return wire.batch_response(await self._pipeline.sign_batch(call.caller, groups, call.deadline, call.request_id))

    async def SignStream(self, requests: AsyncIterator[signing_pb2.SignStreamRequest], call: Call) -> None:
        """Many, over a long time."""
        await answer_stream(self._pipeline, self._limits, requests, call)

    async def Verify(self, request: signing_pb2.VerifyRequest, call: Call) -> signing_pb2.VerifyResponse:
        """Check one."""
        version, valid = await self._pipeline.verify(call.caller, wire.verify_order(request), request.signature)
        return signing_pb2.VerifyResponse(valid=valid, key_version=version)

"""How a call ends with an error."""

from __future__ import annotations

import grpc

from hsmsign.model.errors import HsmsignError
from hsmsign.model.status import DETAILS, to_status


async def abort(context: grpc.aio.ServicerContext[bytes, bytes], error: HsmsignError, request_id: str) -> None:
    """End the call with this error. Does not return."""
    status = to_status(error, request_id)
    await context.abort(
        grpc.StatusCode[error.code], error.message, trailing_metadata=((DETAILS, status.SerializeToString()),)
    )

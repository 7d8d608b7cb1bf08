"""What a failed call said, read the way a caller of any language would."""

from __future__ import annotations

from dataclasses import dataclass, field

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status


@dataclass
class Said:
    """A google.rpc.Status with its details taken apart."""

    code: str
    message: str
    reason: str = ""
    domain: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    retry: float | None = None


def read(status: status_pb2.Status) -> Said:
    code = next(one.name for one in grpc.StatusCode if one.value[0] == status.code)
    said = Said(code, status.message)
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Unpack(info):
            said.reason, said.domain, said.metadata = info.reason, info.domain, dict(info.metadata)
        if detail.Unpack(retry):
            said.retry = retry.retry_delay.ToMicroseconds() / 1e6
    return said


async def refusal(call) -> Said:
    """The status of a call that must fail."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        status = rpc_status.from_call(error)
        return read(status) if status is not None else Said(error.code().name, error.details() or "")
    raise AssertionError("the call did not fail")

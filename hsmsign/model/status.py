"""Errors on the wire: `google.rpc.Status` with ErrorInfo, and RetryInfo where a retry may help. Needs gRPC."""

from __future__ import annotations

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from hsmsign.model.errors import HsmsignError

DOMAIN = "hsmsign"
DETAILS = "grpc-status-details-bin"
"""The trailing metadata that carries the status."""


def to_status(error: HsmsignError, request_id: str = "") -> status_pb2.Status:
    """The error with its reason, its words, and what to do (`ErrorInfo.metadata["hint"]`)."""
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    if error.hint:
        info.metadata["hint"] = error.hint
    if request_id:
        info.metadata["request_id"] = request_id
    details = [_packed(info)]
    if error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMicroseconds(int(error.retry_after * 1_000_000))
        details.append(_packed(retry))
    code: int = grpc.StatusCode[error.code].value[0]
    return status_pb2.Status(code=code, message=error.message, details=details)


def _packed(message: Message) -> Any:
    packed = Any()
    packed.Pack(message)
    return packed

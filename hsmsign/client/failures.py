"""gRPC errors as the errors of hsmsign: `google.rpc.Status` and `ErrorInfo` back into classes."""

from __future__ import annotations

import re
from typing import Any, Protocol

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from hsmsign.client.configuration import Endpoint
from hsmsign.model import errors
from hsmsign.model.errors import HsmsignError
from hsmsign.model.status import DOMAIN

_BY_CODE: dict[str, type[HsmsignError]] = {
    "INVALID_ARGUMENT": errors.InvalidArgumentError,
    "NOT_FOUND": errors.NotFoundError,
    "ALREADY_EXISTS": errors.KeyExistsError,
    "FAILED_PRECONDITION": errors.FailedPreconditionError,
    "ABORTED": errors.EtagError,
    "UNAUTHENTICATED": errors.UnauthenticatedError,
    "PERMISSION_DENIED": errors.PermissionDeniedError,
    "RESOURCE_EXHAUSTED": errors.ResourceExhaustedError,
    "UNAVAILABLE": errors.UnavailableError,
    "DEADLINE_EXCEEDED": errors.DeadlineError,
    "CANCELLED": errors.CancelledError,
    "DATA_LOSS": errors.SignatureCorruptedError,
}
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


class FailedCall(Protocol):
    """What the errors of the blocking and of the asyncio API have in common."""

    def code(self) -> grpc.StatusCode:
        """The status."""
        ...

    def details(self) -> str | None:
        """Words."""
        ...

    def trailing_metadata(self) -> Any:
        """Pairs, or None."""
        ...


def from_call(call: FailedCall, endpoint: Endpoint) -> HsmsignError:
    """The error that a failed call stands for."""
    try:
        status = rpc_status.from_call(call)
    except ValueError:  # a proxy changed the code or the words: what the status says is as good
        status = None
    if status is not None:
        return from_status(status)
    code, details = call.code().name, call.details() or "no details"
    if code == "UNAVAILABLE":
        return _unreachable(details, endpoint)
    if code == "DEADLINE_EXCEEDED":
        return late(endpoint)
    if code == "UNIMPLEMENTED":
        return HsmsignError(
            f"the daemon at {endpoint.target} does not know this call: {details}",
            hint="is it hsmsign, and not older than this client? compare: hsmsign version, hsmsign backend list",
        )
    return _plain(code, details)


def late(endpoint: Endpoint) -> errors.DeadlineError:
    """For a caller whose deadline has passed."""
    return errors.DeadlineError(
        f"no answer from {endpoint.target} before the deadline",
        hint="give more time (deadline=, --timeout), or look at the backends: hsmsign backend list",
        metadata={"endpoint": endpoint.target},
    )


def from_status(status: status_pb2.Status) -> HsmsignError:
    """The error of one `google.rpc.Status`, of a call or of one item of a batch."""
    info, retry, hint = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), ""
    links = error_details_pb2.Help()
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(retry)
        if detail.Unpack(links) and links.links:
            hint = links.links[0].description
    if info.domain != DOMAIN:
        return _plain(_CODES.get(status.code, "UNKNOWN"), status.message)
    metadata = dict(info.metadata)
    hint = metadata.pop("hint", hint)
    after = retry.retry_delay.ToTimedelta().total_seconds() if retry.HasField("retry_delay") else None
    return errors.rebuild(info.reason, status.message, hint=hint, metadata=metadata, retry_after=after)


def _plain(code: str, details: str) -> HsmsignError:
    kind = _BY_CODE.get(code, HsmsignError)
    error = kind.__new__(kind)  # some classes make their own sentence; here the sentence is there
    HsmsignError.__init__(error, details, metadata={"grpc_code": code})
    return error


def _unreachable(details: str, endpoint: Endpoint) -> errors.UnavailableError:
    text = details.lower()
    if "certificate_verify_failed" in text or "hostname verification" in text or "peer name" in text:
        hint = (
            "the daemon's certificate was not accepted: is 'ca' the one that signed it, and does it hold the"
            " name in the target (or in 'server_name')?"
        )
    elif "no_common_signature_algorithms" in text:
        hint = "the daemon takes no signatures of this client's kind of key: use P-256, P-384 or RSA"
    elif "handshake" in text or "ssl" in text or (endpoint.tls and ("closed" in text or "reset" in text)):
        hint = "TLS failed: does the daemon's client_ca cover this client's certificate, and is it in date?"
    elif "permission denied" in text:
        hint = f"this user may not open the socket {endpoint.socket_path}; ask for its group or mode"
    else:
        hint = "is the daemon running there? start it: hsmsign serve; ask it: hsmsign doctor"
    return errors.UnavailableError(
        f"cannot reach the daemon at {endpoint.target}: {_short(details)}",
        hint=hint,
        metadata={"endpoint": endpoint.target},
    )


def _short(details: str) -> str:
    """The end of gRPC's chain of causes, which is where the cause is."""
    cause = re.split(r"(?i)\berror: ", details)[-1].strip() or details
    return cause if len(cause) <= 200 else cause[:197] + "..."

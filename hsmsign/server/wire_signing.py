"""Signatures on the wire, both ways. A good batch costs a few built-in calls, not a loop."""

from __future__ import annotations

import google_crc32c
from google.rpc import status_pb2

from hsmsign.model.algorithms import InputKind
from hsmsign.model.errors import HsmsignError, MessageSizeError
from hsmsign.model.status import to_status
from hsmsign.server.numbers import FORMATS, KINDS, SCHEME_NUMBERS, SCHEMES, read
from hsmsign.signing import GroupResult, SignGroup
from hsmsign.v1 import signing_pb2


def sign_order(request: signing_pb2.SignRequest) -> SignGroup:
    """A single signature, as a group of one."""
    kind, data = _input(request)
    return SignGroup(
        request.name,
        read(SCHEMES, request.scheme, "scheme"),
        kind,
        read(FORMATS, request.format, "format"),
        [data],
        request.input_crc32c if request.HasField("input_crc32c") else None,
    )


def verify_order(request: signing_pb2.VerifyRequest) -> SignGroup:
    """What a signature is to be checked over."""
    kind, data = _input(request)
    scheme, form = read(SCHEMES, request.scheme, "scheme"), read(FORMATS, request.format, "format")
    return SignGroup(request.name, scheme, kind, form, [data])


def sign_group(group: signing_pb2.SignGroup) -> SignGroup | HsmsignError:
    """One group, or why it cannot be read: that is the group's answer and does not spoil the others."""
    try:
        return SignGroup(
            group.name,
            read(SCHEMES, group.scheme, "scheme"),
            read(KINDS, group.kind, "kind"),
            read(FORMATS, group.format, "format"),
            list(group.inputs),
            group.inputs_crc32c if group.HasField("inputs_crc32c") else None,
        )
    except HsmsignError as error:
        return error


def sign_response(result: GroupResult) -> signing_pb2.SignResponse:
    """The answer to a single signature. Raises the error of an item that failed."""
    if result.failures:
        raise result.failures[0].error
    signature = result.signatures[0]
    return signing_pb2.SignResponse(
        key_version=result.key_version,
        scheme=SCHEME_NUMBERS[result.scheme],  # type: ignore[arg-type]
        signature=signature,
        signature_crc32c=google_crc32c.value(signature),
    )


def group_result(result: GroupResult | HsmsignError) -> signing_pb2.SignGroupResult:
    """The answer to one group."""
    if isinstance(result, HsmsignError):
        return signing_pb2.SignGroupResult(status=to_status(result))
    message = signing_pb2.SignGroupResult(
        key_version=result.key_version,
        scheme=SCHEME_NUMBERS[result.scheme],  # type: ignore[arg-type]
        signatures=result.signatures,
        signatures_crc32c=google_crc32c.value(b"".join(result.signatures)),
    )
    if result.failures:
        known: dict[int, status_pb2.Status] = {}  # items that failed for the same reason share the error
        for failure in result.failures:
            status = known.get(id(failure.error)) or known.setdefault(id(failure.error), to_status(failure.error))
            message.failures.add(index=failure.index, status=status)
    return message


def batch_response(results: list[GroupResult | HsmsignError]) -> signing_pb2.SignBatchResponse:
    """The answers to all groups, in their order."""
    return signing_pb2.SignBatchResponse(groups=[group_result(result) for result in results])


def _input(request: signing_pb2.SignRequest | signing_pb2.VerifyRequest) -> tuple[InputKind, bytes]:
    which = request.WhichOneof("input")
    if which == "digest":
        return InputKind.DIGEST, request.digest
    if which == "message":
        return InputKind.MESSAGE, request.message
    raise MessageSizeError("the request has neither a digest nor a message", hint="send one of the two")

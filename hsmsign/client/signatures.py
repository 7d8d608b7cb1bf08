"""The calls that sign and verify: requests with their checksums, answers checked against theirs.

Nothing here loops over items in the good case: protobuf, `len`, `join` and CRC32C do that in C.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import google_crc32c

from hsmsign.client.failures import from_status
from hsmsign.client.messages import Call, key_name
from hsmsign.client.values import Signature, SignedBatch, Verdict
from hsmsign.model.algorithms import InputKind, Scheme, SignatureFormat
from hsmsign.model.errors import HsmsignError, InvalidArgumentError, SignatureCorruptedError
from hsmsign.v1 import signing_pb2

BATCH_ITEMS = 4096
"""Items in one call of a large batch; the daemon takes at most 10,000."""
BATCH_BYTES = 8 << 20
"""Input bytes in one call of a large batch; the daemon takes at most 16 MiB."""
CALLS_AHEAD = 4
"""Calls of one large batch that are under way at the same time."""
_SCHEMES = {scheme.value: scheme for scheme in Scheme}


def sign(
    name: str, message: bytes | None, digest: bytes | None, scheme: Scheme | None, form: SignatureFormat
) -> Call[Signature]:
    """Sign, with one of `message` and `digest`."""
    kind, data = what(message, digest)
    return sign_one(key_name(name), scheme, kind, form, data)


def sign_one(name: str, scheme: Scheme | None, kind: InputKind, form: SignatureFormat, data: bytes) -> Call[Signature]:
    """Sign one input; `name` is a whole one."""
    request = signing_pb2.SignRequest(
        name=name,
        scheme=_number(scheme),  # type: ignore[arg-type]
        format=form.value,  # type: ignore[arg-type]
        input_crc32c=google_crc32c.value(data),
    )
    if kind is InputKind.MESSAGE:
        request.message = data
    else:
        request.digest = data
    return Call("/hsmsign.v1.SigningService/Sign", request, signing_pb2.SignResponse, _signature)


def verify(
    name: str,
    signature: bytes,
    message: bytes | None,
    digest: bytes | None,
    scheme: Scheme | None,
    form: SignatureFormat,
) -> Call[Verdict]:
    """Verify, with one of `message` and `digest`."""
    _input(message, digest)
    request = signing_pb2.VerifyRequest(
        name=key_name(name),
        scheme=_number(scheme),  # type: ignore[arg-type]
        signature=signature,
        format=form.value,  # type: ignore[arg-type]
    )
    if message is not None:
        request.message = message
    if digest is not None:
        request.digest = digest
    return Call(
        "/hsmsign.v1.SigningService/Verify",
        request,
        signing_pb2.VerifyResponse,
        lambda answer: Verdict(answer.valid, answer.key_version),
    )


def group(
    name: str, inputs: Sequence[bytes], kind: InputKind, scheme: Scheme | None, form: SignatureFormat
) -> signing_pb2.SignGroup:
    """Inputs of one kind for one key, with their checksum."""
    return signing_pb2.SignGroup(
        name=name,
        scheme=_number(scheme),  # type: ignore[arg-type]
        kind=kind.value,  # type: ignore[arg-type]
        inputs=inputs,
        inputs_crc32c=google_crc32c.value(b"".join(inputs)),
        format=form.value,  # type: ignore[arg-type]
    )


def sign_batch(one: signing_pb2.SignGroup) -> Call[SignedBatch]:
    """SignBatch with one group."""

    def read(answer: signing_pb2.SignBatchResponse) -> SignedBatch:
        if len(answer.groups) != 1:
            raise HsmsignError(f"the daemon answered 1 group with {len(answer.groups)}", hint="report it as a bug")
        return result(answer.groups[0], len(one.inputs))

    request = signing_pb2.SignBatchRequest(groups=[one])
    return Call("/hsmsign.v1.SigningService/SignBatch", request, signing_pb2.SignBatchResponse, read)


def result(answer: signing_pb2.SignGroupResult, expected: int) -> SignedBatch:
    """A group's answer, checked. Raises the group's error where all of it failed, SignatureCorruptedError."""
    if answer.HasField("status"):
        raise from_status(answer.status)
    if len(answer.signatures) != expected:
        raise HsmsignError(
            f"the daemon answered {expected} inputs with {len(answer.signatures)} signatures",
            hint="report it as a bug",
        )
    if google_crc32c.value(b"".join(answer.signatures)) != answer.signatures_crc32c:
        raise _corrupted(answer.key_version)
    batch = SignedBatch(answer.signatures, answer.key_version, _SCHEMES.get(answer.scheme))
    for failure in answer.failures:
        if failure.index < expected:
            batch[failure.index] = from_status(failure.status)
    if b"" in batch:
        raise HsmsignError("the daemon left inputs without a signature and without an error", hint="report it as a bug")
    return batch


def split(inputs: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Pieces of at most BATCH_ITEMS items and BATCH_BYTES bytes; one that is larger by itself goes alone."""
    for start in range(0, len(inputs), BATCH_ITEMS):
        yield from _halve(inputs if len(inputs) <= BATCH_ITEMS else inputs[start : start + BATCH_ITEMS])


def _halve(piece: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    if len(piece) <= 1 or sum(map(len, piece)) <= BATCH_BYTES:
        yield piece
        return
    middle = len(piece) // 2
    yield from _halve(piece[:middle])
    yield from _halve(piece[middle:])


def _signature(answer: signing_pb2.SignResponse) -> Signature:
    if google_crc32c.value(answer.signature) != answer.signature_crc32c:
        raise _corrupted(answer.key_version)
    scheme = _SCHEMES.get(answer.scheme)
    if scheme is None:
        raise unknown_scheme()
    return Signature(answer.signature, answer.key_version, scheme)


def unknown_scheme() -> HsmsignError:
    """For what a newer daemon signed with."""
    return HsmsignError(
        "the daemon signed with a scheme that this client does not know",
        hint="install the hsmsign version that the daemon has",
    )


def _corrupted(key_version: str) -> SignatureCorruptedError:
    return SignatureCorruptedError(
        f"a signature of {key_version} changed on its way here: its CRC32C does not fit",
        hint="sign again; if it comes back, look at the machine's memory and at proxies in between",
    )


def what(message: bytes | None, digest: bytes | None) -> tuple[InputKind, bytes]:
    """The one of the two that is there, and its kind. Raises InvalidArgumentError."""
    return InputKind.DIGEST if message is None else InputKind.MESSAGE, _input(message, digest)


def _input(message: bytes | None, digest: bytes | None) -> bytes:
    if (message is None) == (digest is None):
        raise InvalidArgumentError(
            "one of message= and digest= is wanted, not " + ("both" if message is not None else "none"),
            hint="message= is hashed by the daemon, digest= is signed as it is",
        )
    return bytes(message if message is not None else digest or b"")


def _number(scheme: Scheme | None) -> int:
    return scheme.value if scheme else 0

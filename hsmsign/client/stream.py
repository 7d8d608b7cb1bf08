"""One SignStream: groups go out with ids, answers come in any order and leave in the order of the inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from hsmsign.client import signatures
from hsmsign.client.messages import key_name
from hsmsign.client.values import SignedBatch
from hsmsign.model.errors import UnavailableError
from hsmsign.v1 import signing_pb2

if TYPE_CHECKING:
    from hsmsign.model.algorithms import InputKind, Scheme, SignatureFormat

PATH = "/hsmsign.v1.SigningService/SignStream"
GROUPS_AHEAD = 16
"""Groups that may wait for an answer at the same time."""


class StreamBook:
    """What was sent and not yet answered, and what was answered and must wait for its turn."""

    def __init__(self, name: str, kind: InputKind, scheme: Scheme | None, form: SignatureFormat) -> None:
        self._name = key_name(name)
        self._what = (kind, scheme, form)
        self._sizes: dict[int, int] = {}
        self._ready: dict[int, SignedBatch] = {}
        self._sent = 0
        self._given = 0

    def request(self, inputs: list[bytes]) -> signing_pb2.SignStreamRequest:
        """The next group."""
        self._sent += 1
        self._sizes[self._sent] = len(inputs)
        return signing_pb2.SignStreamRequest(id=self._sent, group=signatures.group(self._name, inputs, *self._what))

    def answered(self, answer: signing_pb2.SignStreamResponse) -> Iterator[SignedBatch]:
        """Take in an answer; gives the batches whose turn it now is. Raises the error of a whole group."""
        self._ready[answer.id] = signatures.result(answer.result, self._sizes.pop(answer.id, 0))
        while (batch := self._ready.pop(self._given + 1, None)) is not None:
            self._given += 1
            yield batch

    def ended(self, failure: list[Exception]) -> None:
        """The stream is over: raises what the inputs raised, or that answers are missing."""
        if failure:
            raise failure[0]
        if self._sizes or self._ready:
            raise UnavailableError(
                f"the daemon ended the stream before it had answered {len(self._sizes)} of {self._sent} groups",
                hint="sign what is missing again",
            )


def groups(inputs: Iterable[bytes], size: int) -> Callable[[], list[bytes]]:
    """A function that gives the next `size` inputs, and an empty list at the end."""
    iterator = iter(inputs)
    return lambda: list(islice(iterator, size))

"""The frames of native/core/frame.h in Python, as plainly as can be: the tests' side of a signing connection."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from hsmsign.model.algorithms import InputKind, Scheme, SignatureFormat
from hsmsign.model.device import JobStatus
from hsmsign.model.hostwire import HELLO_SIGN, hello

HEADER = struct.Struct("=IHHQII")
ORDER_HEAD = struct.Struct("=QHBBHH")
RESULT = struct.Struct("=IIQII")
MAGIC = 0x314D5348
ORDER, CANCEL, DONE = 1, 2, 3


@dataclass(frozen=True)
class Result:
    """What became of one item."""

    status: JobStatus
    ckr: int
    signature: bytes


def order_frame(
    order_id: int,
    locator: bytes,
    scheme: Scheme,
    inputs: list[bytes],
    *,
    kind: InputKind = InputKind.MESSAGE,
    form: SignatureFormat = SignatureFormat.DER,
    deadline_ns: int = 0,
) -> bytes:
    """An ORDER frame."""
    head = ORDER_HEAD.pack(deadline_ns, scheme.value, kind.value, form.value, len(locator), 0) + locator
    head += b"\0" * (-len(head) % 4)
    body = head + b"".join(struct.pack("=I", len(item)) for item in inputs) + b"".join(inputs)
    return HEADER.pack(MAGIC, ORDER, 0, order_id, len(inputs), len(body)) + body


class SignConnection:
    """A signing connection to a host."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._next = 1
        connection.sendall(hello(HELLO_SIGN))

    def sign(self, locator: bytes, scheme: Scheme, inputs: list[bytes], **how: object) -> list[Result]:
        """Send one order and wait for all of its answers."""
        return self.wait({self.send(locator, scheme, inputs, **how): len(inputs)})[0]

    def send(self, locator: bytes, scheme: Scheme, inputs: list[bytes], **how: object) -> int:
        """Send one order; its number."""
        number, self._next = self._next, self._next + 1
        self._socket.sendall(order_frame(number, locator, scheme, inputs, **how))  # type: ignore[arg-type]
        return number

    def cancel(self, number: int) -> None:
        """Take an order back; what of it is not signed is answered as cancelled."""
        self._socket.sendall(HEADER.pack(MAGIC, CANCEL, 0, number, 0, 0))

    def wait(self, orders: dict[int, int]) -> list[list[Result]]:
        """The answers to the orders {number: items}, in order. An item that is answered twice is an error."""
        answers: dict[int, dict[int, Result]] = {number: {} for number in orders}
        while any(len(answers[number]) < items for number, items in orders.items()):
            number, results = self._done()
            for index, result in results:
                assert index not in answers[number], f"item {index} was answered twice"
                answers[number][index] = result
        return [[answers[number][index] for index in range(items)] for number, items in orders.items()]

    def _done(self) -> tuple[int, list[tuple[int, Result]]]:
        magic, kind, _, number, count, length = HEADER.unpack(self._exactly(HEADER.size))
        assert (magic, kind) == (MAGIC, DONE)
        body = self._exactly(length)
        at = count * RESULT.size
        results = []
        for place in range(count):
            index, status, ckr, size, _ = RESULT.unpack_from(body, place * RESULT.size)
            results.append((index, Result(JobStatus(status), ckr, body[at : at + size])))
            at += size
        assert at == length
        return number, results

    def _exactly(self, length: int) -> bytes:
        parts = bytearray()
        while len(parts) < length:
            part = self._socket.recv(length - len(parts))
            if not part:
                raise ConnectionError("the host closed the connection")
            parts += part
        return bytes(parts)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

"""The native link to a device host: orders in, outcomes out, never blocking.

Checks arguments and turns statuses into our errors; above this nobody sees cffi. The work here is done
for each order, not for each signature, wherever it can be.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any

import hsmsign._native._front as _front
from hsmsign.model.device import JobFailure, JobStatus, SignOrder, SignOutcome
from hsmsign.model.errors import DeviceUnavailableError, InvalidArgumentError, QueueFullError

_ffi: Any = _front.ffi
_lib: Any = _front.lib

_LATEST = 2**63
"""Nanoseconds: a deadline that nobody lives to see."""
RETRY_AFTER = 0.1
"""Seconds after which a caller that met a full queue may come again."""


class LinkLost(Exception):
    """The connection to the host is of no more use; the orders stay."""


class Link:
    """One worker's orders for one device host. Owned by one event loop; not thread-safe."""

    def __init__(self, *, max_jobs: int, max_bytes: int, max_attempts: int = 3) -> None:
        config = _ffi.new("hsm_link_config *", {"max_jobs": max_jobs, "max_bytes": max_bytes})
        config.max_attempts = max_attempts
        out = _ffi.new("hsm_link **")
        if _lib.hsm_link_new(config, out) != _lib.HSM_OK:
            raise MemoryError
        self._link = _ffi.gc(out[0], _lib.hsm_link_free)
        self._order = _ffi.new("hsm_order *")
        self._done = _ffi.new("hsm_done *")
        self._id = _ffi.new("uint64_t *")

    def attach(self, fd: int) -> None:
        """Take over a connected, non-blocking socket whose hello was sent, and send what waits."""
        if _lib.hsm_link_attach(self._link, fd) != _lib.HSM_OK:
            raise LinkLost

    def detach(self) -> None:
        """Close the socket; the orders wait for the next one."""
        _lib.hsm_link_detach(self._link)

    def submit(self, order: SignOrder) -> int:
        """Queue an order and send what the socket takes. Gives the order's id.

        Raises QueueFullError where more would wait than may.
        """
        inputs = order.inputs
        joined = b"".join(inputs)
        sizes = list(map(len, inputs))
        c = self._order
        c.deadline_ns = min(int(order.deadline * 1e9), _LATEST)
        c.scheme = order.scheme.value
        c.kind = order.kind.value
        c.format = order.format.value
        c.flow = order.flow
        locator = _ffi.from_buffer("uint8_t[]", order.locator)
        c.locator, c.locator_len = locator, len(order.locator)
        lengths = _ffi.NULL
        if sizes and sizes.count(sizes[0]) != len(sizes):
            lengths = _ffi.from_buffer("uint32_t[]", array("I", sizes))
        data = _ffi.from_buffer("uint8_t[]", joined)
        c.count, c.lengths, c.inputs, c.inputs_len = len(inputs), lengths, data, len(joined)
        status = _lib.hsm_link_submit(self._link, c, self._id)
        if status == _lib.HSM_E_FULL:
            raise QueueFullError(
                "the device has as much waiting work as it may have",
                hint="send less at once, or add sessions or devices",
                retry_after=RETRY_AFTER,
            )
        if status == _lib.HSM_E_NO_MEMORY:
            raise DeviceUnavailableError("no memory for another order", retry_after=RETRY_AFTER)
        if status != _lib.HSM_OK:
            raise InvalidArgumentError(
                "the order does not fit into a frame", hint="send fewer or smaller inputs at once"
            )
        return int(self._id[0])

    def cancel(self, order_id: int) -> None:
        """Nobody waits for this order any more."""
        _lib.hsm_link_cancel(self._link, order_id)

    def fail_all(self, status: JobStatus) -> None:
        """Answer every order that waits, as if the host had."""
        _lib.hsm_link_fail_all(self._link, int(status))

    def pump(self) -> None:
        """Read what the socket has. Raises LinkLost."""
        if _lib.hsm_link_pump(self._link) != _lib.HSM_OK:
            raise LinkLost

    def flush(self) -> None:
        """Write what the socket takes. Raises LinkLost."""
        if _lib.hsm_link_flush(self._link) != _lib.HSM_OK:
            raise LinkLost

    def wants_write(self) -> bool:
        """Whether something waits until the socket takes it."""
        return bool(_lib.hsm_link_wants_write(self._link))

    def jobs(self) -> int:
        """Signatures that wait or are under way."""
        return int(_lib.hsm_link_jobs(self._link))

    def reap(self) -> Iterator[tuple[int, SignOutcome]]:
        """The orders that are finished, each once."""
        while _lib.hsm_link_reap(self._link, self._done):
            order_id = int(self._done.order_id)
            outcome = _outcome(self._done)
            _lib.hsm_link_release(self._link, order_id)
            yield order_id, outcome


def _outcome(done: Any) -> SignOutcome:
    count = done.count
    data = bytes(_ffi.buffer(done.signatures, done.signatures_len)) if done.signatures_len else b""
    if count == 1 and not done.failed:
        return SignOutcome([data])
    offsets, lengths = _ffi.unpack(done.offsets, count), _ffi.unpack(done.lengths, count)
    signatures = [data[at : at + length] for at, length in zip(offsets, lengths, strict=True)]
    if not done.failed:
        return SignOutcome(signatures)
    statuses, ckrs = _ffi.unpack(done.statuses, count), _ffi.unpack(done.ckrs, count)
    return SignOutcome(
        signatures,
        tuple(
            JobFailure(index, JobStatus(status), ckrs[index])
            for index, status in enumerate(statuses)
            if status != JobStatus.OK
        ),
    )

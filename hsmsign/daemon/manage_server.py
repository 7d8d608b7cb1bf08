"""The device host's management side: requests of all front workers, answered one at a time by one thread."""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from hsmsign.backends.base import Attesting, Backend, ObjectQuery
from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.errors import HsmsignError, InvalidArgumentError
from hsmsign.model.hostwire import LENGTH, MESSAGE_MAX, error_to_json, from_json, to_json

OBJECT_ID_MAX = 255
LABEL_MAX = 255
EXIT_INTERNAL = 70


class OneThread:
    """Runs jobs one after the other in a thread of its own; `wake` is called when one is done."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake = wake
        self._since = 0.0
        threading.Thread(target=self._work, name="management", daemon=True).start()

    def submit(self, job: Callable[[], None]) -> None:
        """Have `job` run. It handles its own errors: one that it does not handle ends the process."""
        self._jobs.put(job)

    def busy(self) -> float:
        """Seconds that the running job has taken; 0 where none runs."""
        since = self._since
        return time.monotonic() - since if since else 0.0

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            self._since = time.monotonic()
            try:
                job()
            except BaseException:  # noqa: BLE001 - whoever waits for this thread would wait for ever
                traceback.print_exc(file=sys.stderr)
                os._exit(EXIT_INTERNAL)
            self._since = 0.0
            self._wake()


def serve_management(connection: socket.socket, backend: Backend, thread: OneThread) -> None:
    """Answer the requests of one connection (its hello has been read) until its other side closes it."""
    with connection:
        while True:
            try:
                request = _receive(connection)
                if request is None:
                    return
                _send(connection, _answer(request, backend, thread))
            except (OSError, ValueError):  # gone, or no message of ours: it may connect again
                return


def _answer(request: dict[str, Any], backend: Backend, thread: OneThread) -> dict[str, Any]:
    if request.get("op") == "health":
        health = dataclasses.replace(backend.health(), busy=backend.oldest_active())
        return {"ok": to_json(health)}  # asks nothing of the device, and so waits for nobody
    answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    thread.submit(lambda: answers.put(perform(request, backend)))
    return answers.get()


def perform(request: dict[str, Any], backend: Backend) -> dict[str, Any]:
    """Do what a request asks, and answer with its value or its error. Never raises."""
    try:
        return {"ok": to_json(_operate(str(request.get("op")), request.get("args") or {}, backend))}
    except HsmsignError as error:
        return {"error": error_to_json(error)}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        traceback.print_exc(file=sys.stderr)
        wrong = InvalidArgumentError(f"the management request cannot be read: {type(error).__name__}")
        return {"error": error_to_json(wrong)}
    except Exception as error:  # noqa: BLE001 - the answer must be sent, whatever it was
        traceback.print_exc(file=sys.stderr)
        return {"error": error_to_json(HsmsignError(f"the device host failed: {type(error).__name__}"))}


def _operate(op: str, args: dict[str, Any], backend: Backend) -> object:
    if op == "describe":
        return backend.describe()
    if op == "generate":
        algorithm: KeyAlgorithm = from_json(KeyAlgorithm, args["algorithm"])
        object_id, label = from_json(bytes, args["object_id"]), from_json(str, args["label"])
        if not 1 <= len(object_id) <= OBJECT_ID_MAX or len(label.encode()) > LABEL_MAX:
            raise InvalidArgumentError(f"a CKA_ID has 1 to {OBJECT_ID_MAX} bytes, a label at most {LABEL_MAX}")
        return backend.generate(algorithm, object_id, label, from_json(str, args.get("pcrs", "")))
    if op == "find":
        query: ObjectQuery = from_json(ObjectQuery, args)
        if query.id is None and query.label is None and query.locator is None:
            raise InvalidArgumentError("a search wants an id, a label or a locator")
        return backend.find(query)
    if op == "destroy":
        return backend.destroy(from_json(bytes, args["locator"]))
    if isinstance(backend, Attesting):
        return _attest(op, args, backend)
    raise InvalidArgumentError(f"{op!r} is no management operation")


def _attest(op: str, args: dict[str, Any], backend: Attesting) -> object:
    if op == "attester":
        return backend.attester()
    if op == "certify":
        return backend.certify(from_json(bytes, args["locator"]), from_json(bytes, args["qualifying"]))
    if op == "activate":
        return backend.activate(from_json(bytes, args["credential"]), from_json(bytes, args["secret"]))
    raise InvalidArgumentError(f"{op!r} is no management operation")


def _receive(connection: socket.socket) -> dict[str, Any] | None:
    head = read_exactly(connection, LENGTH.size)
    if head is None:
        return None
    (length,) = LENGTH.unpack(head)
    if length > MESSAGE_MAX:
        raise ValueError("the message is too long")
    body = read_exactly(connection, length)
    if body is None:
        return None
    request = json.loads(body)
    if not isinstance(request, dict):
        raise ValueError("a request is a JSON object")  # noqa: TRY004 - what the caller treats as broken input
    return request


def _send(connection: socket.socket, answer: dict[str, Any]) -> None:
    body = json.dumps(answer).encode()
    if len(body) > MESSAGE_MAX:
        error = HsmsignError("the answer is too long", hint="ask for fewer objects: by id, not by label")
        body = json.dumps({"error": error_to_json(error)}).encode()
    connection.sendall(LENGTH.pack(len(body)) + body)


def read_exactly(connection: socket.socket, length: int) -> bytes | None:
    """That many bytes; None where the other side closed first. Raises OSError, TimeoutError."""
    parts = bytearray()
    while len(parts) < length:
        part = connection.recv(length - len(parts))
        if not part:
            return None
        parts += part
    return bytes(parts)

"""Stands between the TPM library and a real swtpm, and makes the faults that swtpm cannot be made to show."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from hsmsign.backends.tpm.simulator import two_free_ports

SIGN, LOAD, CREATE = 0x15D, 0x157, 0x153
"""TPM_CC (TPM 2.0 Part 2, section 6.5.2)."""
_HEADER = 10
Serve = Callable[[socket.socket, socket.socket], None]


@dataclass
class Fault:
    """What becomes of a command, as often as `times`; for ever where that is None."""

    command: int
    rc: int | None = None
    """The answer is this response code, and the TPM is not asked."""
    drop: bool = False
    """The connection is closed in the middle of the answer."""
    times: int | None = None
    hold: threading.Event | None = None
    """The command waits for it, then goes to the TPM."""


@dataclass
class Proxy:
    """Listens where a TPM would; `faults` may be changed at any time. `seen` has the command codes that came."""

    behind: int
    faults: list[Fault] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.port = two_free_ports()
        self._listening = [self._listen(0, self._commands), self._listen(1, self._pass_on)]

    @property
    def tcti(self) -> str:
        """How it is reached."""
        return f"swtpm:host=127.0.0.1,port={self.port}"

    def stop(self) -> None:
        """Take no more connections."""
        for listening in self._listening:
            listening.shutdown(socket.SHUT_RDWR)
            listening.close()

    def _listen(self, which: int, serve: Serve) -> socket.socket:
        listening = socket.create_server(("127.0.0.1", self.port + which))
        threading.Thread(target=self._accept, args=(listening, which, serve), daemon=True).start()
        return listening

    def _accept(self, listening: socket.socket, which: int, serve: Serve) -> None:
        while True:
            try:
                near, _ = listening.accept()
                far = socket.create_connection(("127.0.0.1", self.behind + which))
            except OSError:
                return
            threading.Thread(target=self._run, args=(serve, near, far), daemon=True).start()

    @staticmethod
    def _run(serve: Serve, near: socket.socket, far: socket.socket) -> None:
        with near, far:
            with contextlib.suppress(OSError, EOFError):
                serve(near, far)
            for end in (near, far):  # closing alone does not end what another thread reads
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _commands(self, near: socket.socket, far: socket.socket) -> None:
        while True:
            command = _message(near)
            code = int.from_bytes(command[6:10], "big")
            self.seen.append(code)
            fault = self._fault(code)
            if fault is not None and fault.hold is not None:
                fault.hold.wait()
            if fault is not None and fault.rc is not None:
                near.sendall(b"\x80\x01" + _HEADER.to_bytes(4, "big") + fault.rc.to_bytes(4, "big"))
                continue
            far.sendall(command)
            answer = _message(far)
            if fault is not None and fault.drop:
                near.sendall(answer[: _HEADER // 2])
                return
            near.sendall(answer)

    def _fault(self, code: int) -> Fault | None:
        for fault in self.faults:
            if fault.command == code and fault.times != 0:
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None

    @staticmethod
    def _pass_on(near: socket.socket, far: socket.socket) -> None:
        def back() -> None:
            with contextlib.suppress(OSError):
                while data := far.recv(4096):
                    near.sendall(data)
                near.shutdown(socket.SHUT_RDWR)

        threading.Thread(target=back, daemon=True).start()
        while data := near.recv(4096):
            far.sendall(data)


def _message(connection: socket.socket) -> bytes:
    """A command or an answer: its size is in bytes 2 to 5 (TPM 2.0 Part 1, section 18)."""
    head = _exactly(connection, _HEADER)
    return head + _exactly(connection, int.from_bytes(head[2:6], "big") - _HEADER)


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data

"""The bare device beside the daemon, as a yardstick: a process of its own, which logs in once and signs with
python-pkcs11 when it is told to (`hsmsign.backends.yardstick`). The PIN is read there and known nowhere else."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import select
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from cryptography.hazmat.primitives.serialization import load_der_public_key

from hsmsign.client.values import PublicKeyInfo
from hsmsign.measuring.plan import Subject
from hsmsign.model import verification
from hsmsign.model.algorithms import InputKind, SignatureFormat
from hsmsign.model.errors import ConfigurationError, DeviceUnavailableError
from hsmsign.model.hostwire import error_from_json

_PATIENCE = 60.0
"""Seconds for a login, or for a signature more than was asked for."""
_GRACE = 5.0
_SAID = 400


@dataclass(frozen=True, slots=True)
class Where:
    """The object on the device that is the key."""

    backend: dict[str, Any]
    """A BackendConfig, as `hostwire.to_json` has it: what it names, and no PIN."""
    id: bytes | None
    label: str | None
    threads: int
    """Sessions that sign at once."""


class BareDevice:
    """The process, from `with` on."""

    def __init__(self, where: Where, subject: Subject, public: PublicKeyInfo) -> None:
        self.where = where
        self._subject = subject
        self._public = public
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process

    def __enter__(self) -> Self:
        if importlib.util.find_spec("pkcs11") is None:
            raise ConfigurationError(
                "the bare device is measured with python-pkcs11, which is not installed",
                hint="pip install 'hsmsign[server]'",
            )
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "hsmsign.backends.yardstick"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            start_new_session=True,  # Ctrl-C is for us: it would be in the middle of a signature
        )
        try:
            self._begin()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def rate(self, seconds: float) -> float:
        """Signatures a second, for so many seconds. Raises HsmsignError where the device does not sign."""
        return float(self._ask({"seconds": seconds}, seconds + _PATIENCE))

    def _begin(self) -> None:
        """Log in, and see that its key is the one that the daemon signs with."""
        (data,) = replace(self._subject, kind=InputKind.DIGEST).inputs(
            1
        )  # whatever callers send, a device gets digests
        order = {
            "backend": self.where.backend,
            "id": None if self.where.id is None else self.where.id.hex(),
            "label": self.where.label,
            "threads": self.where.threads,
            "scheme": self._subject.scheme.name,
            "data": data.hex(),
        }
        signature = bytes.fromhex(self._ask(order, _PATIENCE))
        kind = InputKind.MESSAGE if self._subject.scheme.hash is None else InputKind.DIGEST
        key = load_der_public_key(self._public.der)
        if not verification.is_good(key, self._subject.scheme, signature, data, kind, SignatureFormat.RAW):
            raise ConfigurationError(
                f"the object on the device is not the key of {self._public.key_version}",
                hint="name the object that is: --key-id, --key-label (hsmsign key show says its pkcs11: URI)",
            )

    def _ask(self, order: dict[str, Any], patience: float) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101, PT018 - both are pipes
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._lost() from None
        ready, _, _ = select.select([self._process.stdout], [], [], patience)
        if not ready:
            raise DeviceUnavailableError(f"the bare device gave no answer within {patience:g} seconds")
        try:
            answer = json.loads(self._process.stdout.readline())
        except ValueError:
            raise self._lost() from None
        if "error" in answer:
            raise error_from_json(answer["error"])
        return answer["ok"]

    def _lost(self) -> DeviceUnavailableError:
        self._said.seek(0)
        said = self._said.read().decode("utf-8", "replace").strip()[-_SAID:]
        return DeviceUnavailableError("the process that measures the bare device ended" + (f": {said}" if said else ""))

    def _end(self) -> None:
        """It ends by itself, after the signatures that are under way; one that hangs in a module is killed."""
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101, PT018 - both are pipes
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.terminate()
        try:
            self._process.wait(timeout=_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._said.close()

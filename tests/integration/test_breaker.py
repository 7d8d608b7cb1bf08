"""A device that answers every signature with an error: what callers, health and metrics say, and how it ends."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hsmsign.model.errors import DeviceUnavailableError, HsmsignError
from tests.support.daemon import Daemon, eventually
from tests.support.softhsm import calls

DIGEST = hashlib.sha256(b"hello").digest()


@pytest.mark.parametrize("ckr", ["CKR_DEVICE_ERROR", "CKR_DEVICE_MEMORY"])
def test_a_device_that_keeps_failing_is_broken_off_and_comes_back(
    tmp_path: Path, new_daemon: Callable[..., Daemon], ckr: str
) -> None:
    daemon = new_daemon(edit=lambda text: text.replace('[metrics]\nlisten = ""', '[metrics]\nlisten = "127.0.0.1:0"'))
    faults = daemon.with_faults(tmp_path)
    daemon.start()
    with daemon.client() as client:
        client.create_key("web", "ecdsa-p256")
        log = faults.log("C_Sign", f"C_Sign rv={ckr}")

        def broken_off() -> DeviceUnavailableError | None:
            try:
                client.sign_batch("web", [DIGEST] * 20).signatures()
            except DeviceUnavailableError as error:
                return error
            except HsmsignError:
                return None
            return None

        error = eventually(broken_off)
        assert 0 < (error.retry_after or 0) <= 30
        # the device is tried now and then, whoever calls
        before = calls(log)
        for _ in range(4):  # the client itself repeats each of them some times
            with pytest.raises(HsmsignError):
                client.sign_batch("web", [DIGEST] * 100).signatures()
        assert calls(log) - before < 4 * 100
        eventually(lambda: "backends/softhsm" in json.loads(daemon.http("/readyz")[1]).get("failing", {}))
        faults.set()
        eventually(lambda: not broken_off())
        assert client.sign("web", digest=DIGEST).value
        eventually(lambda: daemon.http("/readyz")[0] == 200)

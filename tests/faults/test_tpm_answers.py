"""What a TPM answers when it is busy, short of memory, locked, or gone in the middle of an answer.

swtpm never says most of this: a proxy in front of it does, and counts what was sent.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hsmsign.model import tpm
from hsmsign.model.algorithms import KeyAlgorithm, Scheme
from hsmsign.model.device import DeviceKey, JobStatus
from hsmsign.model.errors import DeviceError, PinLockedError
from hsmsign.model.tpm import Trouble
from tests.support import swtpm
from tests.support.host_process import HostProcess
from tests.support.swtpm import Swtpm
from tests.support.tpm_proxy import CREATE, LOAD, SIGN, Fault, Proxy
from tests.support.verify import verify

P256 = Scheme.ECDSA_P256_SHA256
Start = Callable[..., HostProcess]


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    chip = Swtpm(tmp_path / "tpm")
    made = Proxy(chip.port)
    yield made
    made.stop()
    chip.stop()


@pytest.fixture
def device(proxy: Proxy, tmp_path: Path) -> Iterator[HostProcess]:
    host = HostProcess(swtpm.config_at(proxy.tcti, tmp_path, authorization="password"), tmp_path)
    host.wait_for_state("READY")
    yield host
    for fault in proxy.faults:
        if fault.hold is not None:
            fault.hold.set()
    host.stop()


def signs(device: HostProcess, key: DeviceKey) -> None:
    """A right signature."""
    (result,) = device.signing().sign(key.locator, P256, [b"m"])
    assert result.status is JobStatus.OK, tpm.read_code(result.ckr)
    verify(key.public_key, P256, result.signature, b"m")


@pytest.mark.parametrize(
    "rc",
    [0x922, 0x908, 0x90A, 0x920, 0x901, 0x910, 0x918, 0x902, 0x903],
    ids=tpm.name,
)
@pytest.mark.parametrize("command", [SIGN, LOAD], ids=["sign", "load"])
def test_what_passes_by_itself_costs_no_signature(proxy: Proxy, device: HostProcess, rc: int, command: int) -> None:
    keys = [device.generate(KeyAlgorithm.EC_P256) for _ in range(4)]  # one more than there are places
    proxy.faults = [Fault(command, rc=rc, times=1)]
    for key in keys:
        signs(device, key)
    assert proxy.faults[0].times == 0


@pytest.mark.parametrize("rc", [0x922, 0x90A], ids=["RETRY", "TESTING"])
def test_a_tpm_that_is_busy_for_ever_is_not_waited_for_for_ever(proxy: Proxy, device: HostProcess, rc: int) -> None:
    key = device.generate(KeyAlgorithm.EC_P256)
    proxy.faults = [Fault(SIGN, rc=rc)]
    (result,) = device.signing().sign(key.locator, P256, [b"m"])
    assert result.status is JobStatus.DEVICE_ERROR
    assert tpm.read_code(result.ckr) == (rc, Trouble.NONE)
    proxy.faults = []
    signs(device, key)


@pytest.mark.parametrize(
    ("rc", "trouble"),
    [(0x921, Trouble.LOCKOUT), (0x98E, Trouble.AUTH_REFUSED), (0x9A2, Trouble.AUTH_REFUSED), (0x101, Trouble.NONE)],
    ids=["LOCKOUT", "AUTH_FAIL", "BAD_AUTH", "FAILURE"],
)
def test_what_counts_against_the_lockout_is_never_sent_again(
    proxy: Proxy, device: HostProcess, rc: int, trouble: Trouble
) -> None:
    key = device.generate(KeyAlgorithm.EC_P256)
    signs(device, key)
    proxy.faults = [Fault(SIGN, rc=rc)]
    before = proxy.seen.count(SIGN)
    (result,) = device.signing().sign(key.locator, P256, [b"m"])
    assert result.status is JobStatus.DEVICE_ERROR
    assert tpm.read_code(result.ckr) == (rc, trouble)
    assert proxy.seen.count(SIGN) == before + 1


def test_management_is_refused_in_a_lockout_and_not_repeated(proxy: Proxy, device: HostProcess) -> None:
    proxy.faults = [Fault(CREATE, rc=0x921)]
    with pytest.raises(PinLockedError):
        device.generate(KeyAlgorithm.EC_P256)
    assert proxy.seen.count(CREATE) == 1
    proxy.faults = [Fault(CREATE, rc=0x101)]
    with pytest.raises(DeviceError, match="TPM_RC_FAILURE"):
        device.generate(KeyAlgorithm.EC_P256)


@pytest.mark.parametrize("command", [SIGN, LOAD], ids=["sign", "load"])
def test_a_connection_lost_in_the_middle_of_an_answer_is_made_anew(
    proxy: Proxy, device: HostProcess, command: int
) -> None:
    keys = [device.generate(KeyAlgorithm.EC_P256) for _ in range(4)]
    proxy.faults = [Fault(command, drop=True, times=1)]
    for key in keys:
        signs(device, key)
    assert proxy.faults[0].times == 0


def test_what_cannot_be_served_in_time_is_refused_before_its_time(proxy: Proxy, device: HostProcess) -> None:
    key = device.generate(KeyAlgorithm.EC_P256)
    for _ in range(30):
        signs(device, key)  # it learns how long a signature takes
    go = threading.Event()
    proxy.faults = [Fault(SIGN, hold=go, times=1)]
    connection = device.signing()
    first = connection.send(key.locator, P256, [b"m"] * 3000)
    hopeless = connection.send(key.locator, P256, [b"m"] * 3000, deadline_ns=time.monotonic_ns() + 300_000_000)
    refused = connection.wait({hopeless: 3000})[0]  # the TPM has done nothing since: only an early refusal comes
    assert {result.status for result in refused} == {JobStatus.BUSY}
    connection.cancel(first)
    go.set()
    signs(device, key)


def test_a_cancelled_order_is_taken_out_of_the_queue(proxy: Proxy, device: HostProcess) -> None:
    key = device.generate(KeyAlgorithm.EC_P256)
    signs(device, key)
    go = threading.Event()
    proxy.faults = [Fault(SIGN, hold=go, times=1)]
    connection = device.signing()
    order = connection.send(key.locator, P256, [b"m"] * 500)
    connection.cancel(order)
    go.set()
    statuses = [result.status for result in connection.wait({order: 500})[0]]
    assert statuses.count(JobStatus.CANCELLED) > 450
    signs(device, key)
    assert proxy.seen.count(SIGN) < 10


def test_orders_of_several_callers_are_served_in_turn(proxy: Proxy, device: HostProcess) -> None:
    key = device.generate(KeyAlgorithm.EC_P256)
    long, short = device.signing(), device.signing()
    order = long.send(key.locator, P256, [b"m"] * 400)
    (result,) = short.sign(key.locator, P256, [b"m"])  # does not wait for the 400
    assert result.status is JobStatus.OK
    assert proxy.seen.count(SIGN) < 300
    long.cancel(order)

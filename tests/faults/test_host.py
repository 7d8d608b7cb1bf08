"""A device host whose token fails in all the ways that tokens fail."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hsmsign.backends.base import ObjectQuery, PinSource
from hsmsign.model.algorithms import KeyAlgorithm, Scheme
from hsmsign.model.device import DeviceState, JobStatus
from hsmsign.model.errors import DeviceError, PinLockedError, PinRefusedError, TokenNotPresentError
from tests.support.host_process import HostProcess
from tests.support.softhsm import Faults, calls
from tests.support.verify import verify

P256 = Scheme.ECDSA_P256_SHA256
HUSK = (
    "000000000000000500000000000000000000000000000002000000000000000300000000000000010000000000000001"
    "0000000000000000020000000000000001ff000000000000010000000000000000020000000000000003"
)
Start = Callable[..., HostProcess]


def husk_in(folder: Path) -> Path:
    """What SoftHSM 2.6.1 had on disk when it was killed in C_GenerateKeyPair, before it wrote what the object is."""
    husk = folder / "61b7e4c8-0949-0b8b-4c41-a043b6169dd1.object"
    husk.write_bytes(bytes.fromhex(HUSK))
    return husk


def wrong_pin(folder: Path) -> PinSource:
    path = folder / "wrong-pin"
    path.write_text("not-the-pin")
    path.chmod(0o600)
    return PinSource(file=path)


def test_a_wrong_pin_is_tried_once(host: Start, faults: Faults, tmp_path: Path) -> None:
    log = faults.log("C_Login")
    device = host(pin=wrong_pin(tmp_path))
    health = device.wait_for_state("PIN_REFUSED")
    assert health["ckr"] == "CKR_PIN_INCORRECT"
    assert "not-the-pin" not in str(device.events)
    device.wait_for_beats(3)
    with pytest.raises(PinRefusedError):
        device.generate(KeyAlgorithm.EC_P256)
    assert device.signing().sign(b"\x01a\x00", P256, [b"m"])[0].status is JobStatus.PIN_REFUSED
    assert calls(log) == 1


def test_a_host_that_is_told_of_a_refused_pin_does_not_try_it(host: Start, faults: Faults) -> None:
    log = faults.log("C_Login")
    device = host(pin_refused=True)
    device.wait_for_state("PIN_REFUSED")
    device.wait_for_beats(2)
    assert calls(log) == 0


@pytest.mark.parametrize("flag", ["USER_PIN_LOCKED", "USER_PIN_FINAL_TRY"])
def test_a_pin_is_not_risked_where_that_could_lock_the_token(host: Start, faults: Faults, flag: str) -> None:
    log = faults.log("C_Login", f"C_GetTokenInfo flags={flag}")
    device = host()
    assert device.wait_for_state("PIN_LOCKED")["hint"]
    with pytest.raises(PinLockedError):
        device.find(ObjectQuery(label="a"))
    device.wait_for_beats(2)
    assert calls(log) == 0


def test_a_module_that_is_missing_or_none_is_said(host: Start, tmp_path: Path) -> None:
    missing = host(name="missing", module=tmp_path / "none.so")
    assert str(tmp_path / "none.so") in missing.wait_for_state("BROKEN")["message"]
    no_module = host(name="other", module=Path("/lib/x86_64-linux-gnu/libm.so.6"))
    assert "PKCS" in no_module.wait_for_state("BROKEN")["message"]
    assert no_module.health().state is DeviceState.BROKEN


def test_a_token_that_comes_later_is_found(host: Start, tmp_path: Path) -> None:
    tokens, away = tmp_path / "token" / "tokens", tmp_path / "away"
    shutil.move(tokens, away)
    device = host()
    device.wait_for_state("TOKEN_NOT_PRESENT")
    with pytest.raises(TokenNotPresentError):
        device.find(ObjectQuery(label="a"))
    shutil.move(away, tokens)
    device.wait_for_state("READY")
    device.generate(KeyAlgorithm.EC_P256)


def test_a_token_that_goes_away_is_noticed_and_found_again(host: Start, faults: Faults) -> None:
    device = host()
    device.wait_for_state("READY")
    key = device.generate(KeyAlgorithm.EC_P256)
    connection = device.signing()
    faults.set("C_GetTokenInfo rv=CKR_TOKEN_NOT_PRESENT", "C_Sign rv=CKR_TOKEN_NOT_PRESENT")
    device.wait_for_state("TOKEN_NOT_PRESENT")
    assert connection.sign(key.locator, P256, [b"m"])[0].status is JobStatus.NOT_PRESENT
    before = len(device.events)
    faults.set()
    device.wait_for_state("READY", after=before)
    assert connection.sign(key.locator, P256, [b"m"])[0].status is JobStatus.OK


@pytest.mark.parametrize(
    "rule",
    [
        "C_SignInit rv=CKR_USER_NOT_LOGGED_IN count=1",
        "C_SignInit rv=CKR_SESSION_HANDLE_INVALID count=3",
        "C_Sign rv=CKR_SESSION_CLOSED count=1",
        "C_Sign rv=CKR_DEVICE_REMOVED count=1",
    ],
)
def test_what_is_lost_while_signing_is_brought_back(host: Start, faults: Faults, rule: str) -> None:
    device = host()
    device.wait_for_state("READY")
    key = device.generate(KeyAlgorithm.EC_P256)
    faults.set(rule)
    messages = [b"%d" % number for number in range(100)]
    for message, result in zip(messages, device.signing().sign(key.locator, P256, messages), strict=True):
        assert result.status is JobStatus.OK
        verify(key.public_key, P256, result.signature, message)


@pytest.mark.parametrize("ckr", ["CKR_SESSION_HANDLE_INVALID", "CKR_USER_NOT_LOGGED_IN"])
def test_what_is_lost_while_managing_is_brought_back(host: Start, faults: Faults, ckr: str) -> None:
    device = host()
    device.wait_for_state("READY")
    faults.set(f"C_GenerateKeyPair rv={ckr} count=1")
    key = device.generate(KeyAlgorithm.EC_P256)
    assert device.find(ObjectQuery(locator=key.locator)) == [key]


def test_a_devices_own_error_has_its_name_and_leaves_nothing(host: Start, faults: Faults) -> None:
    device = host()
    device.wait_for_state("READY")
    faults.set("C_GenerateKeyPair rv=CKR_DEVICE_MEMORY count=1")
    with pytest.raises(DeviceError) as caught:
        device.generate(KeyAlgorithm.EC_P256, b"id-of-mine", "mine")
    assert caught.value.metadata["ckr"] == "CKR_DEVICE_MEMORY"
    assert device.find(ObjectQuery(id=b"id-of-mine")) == []


def test_a_key_that_cannot_be_read_back_is_not_left_behind(host: Start, faults: Faults) -> None:
    device = host()
    device.wait_for_state("READY")
    faults.set("C_GetAttributeValue rv=CKR_DEVICE_ERROR after=4 count=4")  # the pair is made, its facts fail
    with pytest.raises(DeviceError):
        device.generate(KeyAlgorithm.EC_P256, b"id-of-mine", "mine")
    assert device.destroy(b"\x0aid-of-mine\x00") is False


def test_a_key_that_could_not_even_be_taken_away_is_there_once_after_the_next_try(host: Start, faults: Faults) -> None:
    device = host()
    device.wait_for_state("READY")
    faults.set("C_GetAttributeValue rv=CKR_DEVICE_ERROR")
    with pytest.raises(DeviceError):
        device.generate(KeyAlgorithm.EC_P256, b"id-of-mine", "mine")
    faults.set()
    key = device.generate(KeyAlgorithm.EC_P256, b"id-of-mine", "mine")
    assert device.find(ObjectQuery(id=b"id-of-mine")) == [key]


def test_a_token_with_fewer_sessions_than_asked_signs_with_those_it_has(host: Start, faults: Faults) -> None:
    faults.set("C_OpenSession most=2")  # one for management, and one for the three threads
    device = host(sessions=3)
    device.wait_for_state("READY")
    key = device.generate(KeyAlgorithm.EC_P256)
    connection = device.signing()
    for _ in range(3):
        results = connection.sign(key.locator, P256, [b"m"] * 200)
        assert {result.status for result in results} == {JobStatus.OK}
    assert "only 1 of 3 sessions" in device.wait_for(lambda event: "only" in event.get("message", ""))["message"]
    assert not [event for event in device.events if event.get("state") == "HEALING"]


def test_a_token_without_a_session_to_spare_is_not_healed_without_end(host: Start, faults: Faults) -> None:
    log = faults.log("C_Login", "C_OpenSession most=1")
    device = host()
    device.wait_for_state("HEALING")
    device.wait_for_beats(3)
    assert device.health().ckr == "CKR_SESSION_COUNT"
    assert calls(log) < 8
    faults.set()
    device.wait_for_state("READY")
    key = device.generate(KeyAlgorithm.EC_P256)
    assert device.signing().sign(key.locator, P256, [b"m"])[0].status is JobStatus.OK


def test_a_fault_that_healing_does_not_cure_is_told_and_looked_at_now_and_then(host: Start, faults: Faults) -> None:
    log = faults.log("C_Login")
    device = host()
    device.wait_for_state("READY")
    key = device.generate(KeyAlgorithm.EC_P256)
    connection = device.signing()
    faults.set(f"C_Login log={log}", "C_Sign rv=CKR_DEVICE_REMOVED")
    results = connection.sign(key.locator, P256, [b"m"] * 40)
    assert {result.status for result in results} <= {JobStatus.DEVICE_ERROR, JobStatus.BROKEN}
    assert results[-1].status is JobStatus.BROKEN  # it does not wait for one healing after the other
    assert "CKR_DEVICE_REMOVED" in device.wait_for_state("BROKEN")["message"]
    assert calls(log) <= len([event for event in device.events if event["event"] == "beat"]) + 3
    faults.set()
    device.wait_for_state("READY", after=len(device.events))
    assert device.signing().sign(key.locator, P256, [b"m"])[0].status is JobStatus.OK


def test_sessions_and_login_lost_at_once_under_load_are_brought_back(host: Start, faults: Faults) -> None:
    device = host()
    device.wait_for_state("READY")
    key = device.generate(KeyAlgorithm.EC_P256)
    faults.set("C_SignInit lose after=50 count=1")
    messages = [b"%d" % number for number in range(200)]
    for message, result in zip(messages, device.signing().sign(key.locator, P256, messages), strict=True):
        assert result.status is JobStatus.OK
        verify(key.public_key, P256, result.signature, message)


def test_a_slot_that_changed_is_found_while_a_key_is_made(host: Start, faults: Faults) -> None:
    device = host()
    device.wait_for_state("READY")
    faults.set("C_GetSlotList moved", "C_GenerateKeyPair rv=CKR_SESSION_HANDLE_INVALID count=1")
    key = device.generate(KeyAlgorithm.EC_P256)
    assert device.signing().sign(key.locator, P256, [b"m"])[0].status is JobStatus.OK


def test_what_a_killed_softhsm_left_without_a_key_in_it_is_taken_away(host: Start, tmp_path: Path) -> None:
    device = host()
    device.wait_for_state("READY")
    key = device.generate(KeyAlgorithm.EC_P256)
    folder = next((tmp_path / "token" / "tokens").iterdir())
    device.kill()
    husk = husk_in(folder)
    device.start()
    device.wait_for_state("READY")
    device.wait_for_beats(3)
    assert not husk.exists()
    assert device.find(ObjectQuery(locator=key.locator)) == [key]


def test_a_hanging_signature_ends_the_host(host: Start, faults: Faults) -> None:
    device = host(hang_after=1.0)
    device.wait_for_state("READY")
    key = device.generate(KeyAlgorithm.EC_P256)
    faults.set("C_Sign hang after=5")
    connection = device.signing()  # a connection that is closed takes its orders with it
    connection.send(key.locator, P256, [b"m"] * 10)
    assert device.ended() == 75


def test_a_hanging_management_call_ends_the_host(host: Start, faults: Faults) -> None:
    device = host(manage_timeout=2.0)
    device.wait_for_state("READY")
    faults.set("C_GenerateKeyPair hang")
    with pytest.raises(ConnectionError):
        device.generate(KeyAlgorithm.EC_P256)
    assert device.ended() == 75


def test_a_crash_of_the_module_costs_its_host_and_nothing_else(host: Start, faults: Faults) -> None:
    device = host()
    device.wait_for_state("READY")
    key = device.generate(KeyAlgorithm.EC_P256)
    faults.set("C_Sign crash after=20")
    with pytest.raises(ConnectionError):
        device.signing().sign(key.locator, P256, [b"m"] * 100)
    assert device.ended() == -11
    faults.set()
    device.start()
    device.wait_for_state("READY")
    assert device.signing().sign(key.locator, P256, [b"m"])[0].status is JobStatus.OK


def test_sigterm_lets_what_was_taken_be_signed(host: Start, faults: Faults) -> None:
    device = host()
    device.wait_for_state("READY")
    key = device.generate(KeyAlgorithm.EC_P256)
    connection = device.signing()
    assert connection.sign(key.locator, P256, [b"first"])[0].status is JobStatus.OK
    faults.set("C_Sign delay_ms=5")
    number = connection.send(key.locator, P256, [b"m"] * 100)
    device.wait_for_beats(1)
    device.process.terminate()
    assert {result.status for result in connection.wait({number: 100})[0]} == {JobStatus.OK}
    assert device.ended() == 0


def test_draining_for_longer_than_a_management_call_may_take_is_no_hang(host: Start, faults: Faults) -> None:
    device = host(manage_timeout=0.5)
    device.wait_for_state("READY")
    key = device.generate(KeyAlgorithm.EC_P256)
    connection = device.signing()
    faults.set("C_Sign delay_ms=40")
    number = connection.send(key.locator, P256, [b"m"] * 100)
    device.wait_for_beats(1)
    device.process.terminate()
    assert {result.status for result in connection.wait({number: 100})[0]} == {JobStatus.OK}
    assert device.ended() == 0


def test_a_host_ends_with_its_supervisor(host: Start) -> None:
    device = host()
    device.wait_for_state("READY")
    device.abandon()
    assert device.ended() == 0

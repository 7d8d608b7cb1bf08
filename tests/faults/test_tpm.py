"""A device host whose TPM goes away, changes, or refuses: on swtpm, which is a real TPM 2.0 in software."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tpm2_pytss import (
    ESAPI,
    ESYS_TR,
    TPM2_SU,
    TPM2B_AUTH,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPMA_OBJECT,
    TPMS_SENSITIVE_CREATE,
    TPMT_PUBLIC,
    TSS2_Exception,
)

from hsmsign.attestation import structures
from hsmsign.attestation.challenging import make_credential
from hsmsign.backends.base import ObjectQuery, PinSource
from hsmsign.backends.tpm import blobs
from hsmsign.model import tpm
from hsmsign.model.algorithms import KeyAlgorithm, Scheme
from hsmsign.model.attestation import AttesterIdentity
from hsmsign.model.device import DeviceKey, JobStatus
from hsmsign.model.errors import (
    CapabilityMissingError,
    InvalidArgumentError,
    KeyDamagedError,
    ParentChangedError,
    PinRefusedError,
)
from hsmsign.model.hostwire import from_json
from hsmsign.model.tpm import Trouble
from tests.support import swtpm
from tests.support.host_process import HostProcess
from tests.support.swtpm import Swtpm
from tests.support.verify import verify

P256 = Scheme.ECDSA_P256_SHA256
Start = Callable[..., HostProcess]


@pytest.fixture
def chip(tmp_path: Path) -> Iterator[Swtpm]:
    running = Swtpm(tmp_path / "tpm")
    yield running
    running.stop()


@pytest.fixture
def host(chip: Swtpm, tmp_path: Path) -> Iterator[Start]:
    """Starts a host on the chip: `host(**changes to its TPM configuration)`."""
    started: list[HostProcess] = []

    def start(**changes: object) -> HostProcess:
        started.append(HostProcess(swtpm.config_for(chip, **changes), tmp_path))
        return started[-1]

    yield start
    for made in started:
        made.stop()


@contextlib.contextmanager
def esapi(chip: Swtpm) -> Iterator[ESAPI]:
    """The TPM for the test itself, while no host has it."""
    with ESAPI(chip.tcti) as esys:
        with contextlib.suppress(TSS2_Exception):
            esys.startup(TPM2_SU.CLEAR)
        yield esys


def persist(esys: ESAPI, handle: int, attributes: TPMA_OBJECT, auth: bytes = b"") -> None:
    """Somebody else's key, at a persistent handle."""
    fixed = TPMA_OBJECT.FIXEDTPM | TPMA_OBJECT.FIXEDPARENT | TPMA_OBJECT.SENSITIVEDATAORIGIN | TPMA_OBJECT.USERWITHAUTH
    template = TPM2B_PUBLIC(TPMT_PUBLIC.parse("ecc256", objectAttributes=fixed | attributes))
    sensitive = TPM2B_SENSITIVE_CREATE(TPMS_SENSITIVE_CREATE(userAuth=TPM2B_AUTH(auth)))
    made = esys.create_primary(sensitive, template, ESYS_TR.OWNER)[0]
    esys.evict_control(ESYS_TR.OWNER, made, handle)
    esys.flush_context(made)


def signs(device: HostProcess, key: DeviceKey, count: int = 3) -> None:
    messages = [b"message %d" % number for number in range(count)]
    connection = device.signing()
    for message, result in zip(messages, connection.sign(key.locator, P256, messages), strict=True):
        assert result.status is JobStatus.OK, tpm.read_code(result.ckr)
        verify(key.public_key, P256, result.signature, message)
    connection.close()


def trouble_with(device: HostProcess, locator: bytes) -> Trouble:
    connection = device.signing()
    (result,) = connection.sign(locator, P256, [b"m"])
    connection.close()
    assert result.status is JobStatus.DEVICE_ERROR
    said = tpm.read_code(result.ckr)
    assert said is not None
    return said[1]


def test_a_tpm_that_is_killed_and_started_again_under_load_costs_time_and_no_signature(
    chip: Swtpm, host: Start
) -> None:
    device = host()
    device.wait_for_state("READY")
    keys = [device.generate(KeyAlgorithm.EC_P256) for _ in range(5)]
    connections = [device.signing() for _ in keys]
    messages = [b"%d" % number for number in range(60)]
    orders = [connection.send(key.locator, P256, messages) for key, connection in zip(keys, connections, strict=True)]
    for _ in range(2):
        before = len(device.events)
        chip.kill()
        device.wait_for_state("HEALING", after=before)
        chip.start()
        device.wait_for_state("READY", after=before)
    for key, connection, order in zip(keys, connections, orders, strict=True):
        for message, result in zip(messages, connection.wait({order: len(messages)})[0], strict=True):
            assert result.status is JobStatus.OK, tpm.read_code(result.ckr)
            verify(key.public_key, P256, result.signature, message)


def test_a_tpm_that_stays_away_is_said_to_be(chip: Swtpm, host: Start) -> None:
    device = host()
    device.wait_for_state("READY")
    key = device.generate(KeyAlgorithm.EC_P256)
    chip.kill()
    connection = device.signing()
    connection.send(key.locator, P256, [b"m"])
    assert "cannot be reached" in device.wait_for_state("TOKEN_NOT_PRESENT")["message"]
    assert device.signing().sign(key.locator, P256, [b"m"])[0].status is JobStatus.NOT_PRESENT
    before = len(device.events)
    chip.start()
    device.wait_for_state("READY", after=before)
    signs(device, key)


def test_keys_of_a_tpm_that_was_wiped_say_so_and_new_ones_work(chip: Swtpm, host: Start) -> None:
    device = host()
    device.wait_for_state("READY")
    keys = [device.generate(KeyAlgorithm.EC_P256) for _ in range(4)]
    signs(device, keys[0])
    chip.wipe()
    for key in keys:
        assert trouble_with(device, key.locator) is Trouble.PARENT_CHANGED
        with pytest.raises(ParentChangedError):
            device.find(ObjectQuery(locator=key.locator))
    signs(device, device.generate(KeyAlgorithm.EC_P256))


def test_a_key_of_another_tpm_is_known_as_such(chip: Swtpm, host: Start, tmp_path: Path) -> None:
    other = Swtpm(tmp_path / "other")
    elsewhere = HostProcess(swtpm.config_for(other, name="elsewhere"), tmp_path)
    try:
        elsewhere.wait_for_state("READY")
        foreign = elsewhere.generate(KeyAlgorithm.EC_P256)
        signs(elsewhere, foreign)
    finally:
        elsewhere.stop()
        other.stop()
    device = host()
    device.wait_for_state("READY")
    assert trouble_with(device, foreign.locator) is Trouble.PARENT_CHANGED


def test_a_bit_that_flipped_in_the_store_is_noticed_wherever_it_is(host: Start) -> None:
    device = host()
    device.wait_for_state("READY")
    key = device.generate(KeyAlgorithm.EC_P256)
    for place in range(4, len(key.locator), 7):
        flipped = bytearray(key.locator)
        flipped[place] ^= 0x10
        assert trouble_with(device, bytes(flipped)) is Trouble.BLOB_DAMAGED
    # with a checksum that fits: then it is the TPM that notices
    wrapped = blobs.decode(key.locator)
    assert isinstance(wrapped, blobs.WrappedKey)
    private = bytearray(wrapped.private)
    private[-1] ^= 1
    forged = blobs.encode(dataclasses.replace(wrapped, private=bytes(private)))
    assert trouble_with(device, forged) is Trouble.BLOB_DAMAGED
    with pytest.raises(KeyDamagedError):
        device.find(ObjectQuery(locator=forged))
    signs(device, key)


def test_the_wrong_secret_for_authorizations_is_refused_key_by_key(host: Start, tmp_path: Path) -> None:
    device = host()
    device.wait_for_state("READY")
    key = device.generate(KeyAlgorithm.EC_P256)
    device.terminate()
    other = tmp_path / "other-secret"
    other.write_text("another secret altogether")
    other.chmod(0o600)
    again = host(key_auth=PinSource(file=other))
    again.wait_for_state("READY")
    assert trouble_with(again, key.locator) is Trouble.AUTH_REFUSED
    assert "lockout counter 0" in again.health().message


@pytest.mark.parametrize("right", [True, False])
def test_the_owners_authorization_is_tried_once(chip: Swtpm, host: Start, tmp_path: Path, right: bool) -> None:
    with esapi(chip) as esys:
        esys.hierarchy_change_auth(ESYS_TR.OWNER, b"the owner's own")
    secret = tmp_path / "owner"
    secret.write_text("the owner's own" if right else "somebody else's")
    secret.chmod(0o600)
    device = host(owner_auth=PinSource(file=secret))
    if right:
        device.wait_for_state("READY")
        signs(device, device.generate(KeyAlgorithm.EC_P256))
        return
    assert device.wait_for_state("PIN_REFUSED")["ckr"] == "TPM_RC_BAD_AUTH"
    device.wait_for_beats(3)
    with pytest.raises(PinRefusedError):
        device.generate(KeyAlgorithm.EC_P256)
    assert len([event for event in device.events if event["event"] == "logging-in"]) == 1
    assert "somebody" not in str(device.events)


def test_a_tpm_in_lockout_serves_our_keys_and_says_of_others_why_not(chip: Swtpm, host: Start) -> None:
    with esapi(chip) as esys:
        persist(esys, 0x81010001, TPMA_OBJECT.SIGN_ENCRYPT)
        esys.dictionary_attack_parameters(0, 1000, 1000)  # no wrong try is allowed: locked
    device = host()
    said = device.wait_for_state("READY")
    assert "lockout" in said["message"]
    assert said["ckr"] == "TPM_RC_LOCKOUT"
    signs(device, device.generate(KeyAlgorithm.EC_P256))
    (theirs,) = device.find(ObjectQuery(id=b"\x81\x01\x00\x01"))
    assert trouble_with(device, theirs.locator) is Trouble.LOCKOUT


def test_a_persistent_key_is_adopted_used_and_evicted(chip: Swtpm, host: Start) -> None:
    with esapi(chip) as esys:
        persist(esys, 0x81010001, TPMA_OBJECT.SIGN_ENCRYPT | TPMA_OBJECT.NODA)
        persist(esys, 0x81010002, TPMA_OBJECT.DECRYPT | TPMA_OBJECT.NODA)
    device = host()
    device.wait_for_state("READY")
    (key,) = device.find(ObjectQuery(id=b"\x81\x01\x00\x01"))
    assert (key.algorithm, key.uri) == (KeyAlgorithm.EC_P256, "tpm2:handle=0x81010001")
    signs(device, key)
    assert device.find(ObjectQuery(locator=key.locator)) == [key]
    assert device.find(ObjectQuery(id=b"\x81\x01\x00\x09")) == []
    with pytest.raises(CapabilityMissingError):
        device.find(ObjectQuery(id=b"\x81\x01\x00\x02"))
    with pytest.raises(InvalidArgumentError):
        device.find(ObjectQuery(id=b"\x80\x00\x00\x01"))
    assert device.destroy(key.locator) is True
    assert device.destroy(key.locator) is False
    assert device.signing().sign(key.locator, P256, [b"m"])[0].status is JobStatus.KEY_NOT_FOUND


def test_a_key_bound_to_registers_signs_only_while_they_are_as_they_were(chip: Swtpm, host: Start) -> None:
    device = host()
    device.wait_for_state("READY")
    asked = {"algorithm": KeyAlgorithm.EC_P256, "object_id": b"i" * 16, "label": "bound"}
    bound = device.generate_with(**asked, pcrs="sha256:0,16")
    assert bound.facts.pcrs == "sha256:0,16"
    signs(device, bound)
    for wrong in ("sha256", "md5:0", "sha256:24", "sha256:1,1"):
        with pytest.raises(InvalidArgumentError):
            device.generate_with(**asked, pcrs=wrong)
    device.terminate()
    with esapi(chip) as esys:
        event = hashlib.sha256(b"something else was booted").digest()
        from tpm2_pytss import TPM2_ALG, TPML_DIGEST_VALUES, TPMT_HA, TPMU_HA

        values = TPML_DIGEST_VALUES([TPMT_HA(hashAlg=TPM2_ALG.SHA256, digest=TPMU_HA(sha256=event))])
        esys.pcr_extend(ESYS_TR.PCR16, values)
    again = host()
    again.wait_for_state("READY")
    assert trouble_with(again, bound.locator) is Trouble.PCR_CHANGED
    signs(again, again.generate_with(**{**asked, "object_id": b"j" * 16}, pcrs="sha256:16"))


def test_many_keys_share_the_few_places_of_the_tpm(host: Start) -> None:
    device = host()
    device.wait_for_state("READY")
    keys = [device.generate(KeyAlgorithm.EC_P256) for _ in range(30)]
    wrong: list[BaseException] = []

    def sign(offset: int) -> None:
        try:
            for key in keys[offset:] + keys[:offset]:
                signs(device, key, 2)
        except BaseException as error:  # noqa: BLE001 - carried to the test's own thread
            wrong.append(error)

    threads = [threading.Thread(target=sign, args=(offset,)) for offset in (0, 7, 19)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_tcti_that_is_none_is_said(host: Start) -> None:
    device = host(tcti="no-such-tcti:at=all")
    said = device.wait_for_state("BROKEN")
    assert "tcti" in said["hint"]
    assert device.signing().sign(b"\x01a\x00", P256, [b"m"])[0].status is JobStatus.BROKEN


def test_a_challenge_for_an_ecc_endorsement_key_is_opened_by_its_tpm_and_by_no_other(host: Start, chip: Swtpm) -> None:
    device = host()
    device.wait_for_state("READY")
    who = from_json(AttesterIdentity, device.ask("attester"))
    name = structures.public(who.ak_public).name
    assert isinstance(structures.public(who.ek_public).key, ec.EllipticCurvePublicKey)
    credential, secret = make_credential(who.ek_public, name, b"the secret of the challenge")
    asked = {"credential": credential, "secret": secret}
    assert from_json(bytes, device.ask("activate", **asked)) == b"the secret of the challenge"
    other, secret = make_credential(who.ek_public, name[:-1] + b"\0", b"for another attestation key")
    with pytest.raises(InvalidArgumentError):
        device.ask("activate", credential=other, secret=secret)
    chip.wipe()
    with pytest.raises(InvalidArgumentError):
        device.ask("activate", **asked)


def test_a_simulator_that_does_not_come_up_is_started_again_when_it_can(tmp_path: Path) -> None:
    occupant = Swtpm(tmp_path / "tpm")  # one state folder serves one swtpm
    config = swtpm.config_at("", tmp_path, simulator=occupant.state)
    device = HostProcess(config, tmp_path)
    try:
        said = device.wait_for_state("TOKEN_NOT_PRESENT")
        assert "does not come up" in said["message"]
        assert "lock" in said["hint"]
        occupant.stop()
        device.wait_for_state("READY")
    finally:
        device.stop()
        occupant.stop()

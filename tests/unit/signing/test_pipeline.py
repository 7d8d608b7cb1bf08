"""The pipeline, without a server: what is checked, what reaches the device, what its failures mean."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace

import google_crc32c
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from hsmsign.audit.auditing import NoAudit
from hsmsign.keyring import Keyring
from hsmsign.keyring.approvals import Approvals
from hsmsign.model import tpm
from hsmsign.model.algorithms import InputKind, KeyAlgorithm, Scheme, SignatureFormat
from hsmsign.model.caller import Caller
from hsmsign.model.device import JobFailure, JobStatus
from hsmsign.model.errors import (
    AlgorithmMismatchError,
    BatchSizeError,
    DeadlineError,
    DigestLengthError,
    FailedPreconditionError,
    InputCorruptedError,
    KeyNotFoundError,
    MessageRequiredError,
    MessageSizeError,
    PurposeError,
    QueueFullError,
    SchemeMissingError,
    VersionStateError,
)
from hsmsign.model.purpose import Purpose, PurposeKind
from hsmsign.policy import Policy
from hsmsign.signing import Admission, Limits, SignGroup, SigningPipeline
from hsmsign.signing.failures import to_error
from hsmsign.signing.places import Places
from hsmsign.store import Store, VersionState
from tests.support import policies
from tests.support.fake_device import FakeDevice

DIGEST = hashlib.sha256(b"hello").digest()
CALLER = Caller("test")
LIMITS = Limits(max_message_bytes=100, max_batch_items=10, max_batch_bytes=500, max_in_flight=20)


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice()


@pytest.fixture
def store(tmp_path):
    opened = Store.open(f"sqlite:///{tmp_path}/store.db")
    yield opened
    opened.close()


@pytest.fixture
async def keyring(store: Store, device: FakeDevice):
    made = Keyring(store, {"soft": device}, "soft")
    for algorithm in (KeyAlgorithm.EC_P256, KeyAlgorithm.EC_P521, KeyAlgorithm.RSA_2048, KeyAlgorithm.ED25519):
        await made.create(algorithm.value, algorithm)
    return made


@pytest.fixture
def pipeline(keyring: Keyring, device: FakeDevice, store: Store) -> SigningPipeline:
    policy, admission = Policy(policies.EVERYTHING), Admission((), 1000)
    return SigningPipeline(
        keyring, Places({"soft": device}, LIMITS.max_in_flight), LIMITS, policy, admission, NoAudit(), Approvals(store)
    )


def group(*inputs: bytes, name: str = "keys/ecdsa-p256", **more) -> SignGroup:
    fields = {"scheme": None, "kind": InputKind.DIGEST, "format": SignatureFormat.DER, **more}
    return SignGroup(name, inputs=list(inputs), **fields)


def verify_p256(device: FakeDevice, signature: bytes, digest: bytes) -> None:
    public = device.things[0].private.public_key()
    public.verify(signature, digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))


async def test_good_digests_are_signed_in_their_order(pipeline: SigningPipeline, device: FakeDevice) -> None:
    digests = [hashlib.sha256(bytes([number])).digest() for number in range(5)]
    result = await pipeline.sign(CALLER, group(*digests))
    assert (result.key_version, result.scheme) == ("keys/ecdsa-p256/versions/1", Scheme.ECDSA_P256_SHA256)
    for signature, digest in zip(result.signatures, digests, strict=True):
        verify_p256(device, signature, digest)
    assert len(device.orders) == 1


@pytest.mark.parametrize("bad", [b"", DIGEST[:-1], DIGEST + b"x", DIGEST.hex().encode()])
async def test_a_digest_of_the_wrong_length_spoils_only_itself(
    pipeline: SigningPipeline, device: FakeDevice, bad: bytes
) -> None:
    result = await pipeline.sign(CALLER, group(DIGEST, bad, DIGEST))
    assert [failure.index for failure in result.failures] == [1]
    assert isinstance(result.failures[0].error, DigestLengthError)
    assert result.signatures[1] == b""
    verify_p256(device, result.signatures[0], DIGEST)
    verify_p256(device, result.signatures[2], DIGEST)
    assert [order.inputs for order in device.orders] == [[DIGEST, DIGEST]]


async def test_digests_that_are_all_of_one_wrong_length_all_fail(pipeline: SigningPipeline, device: FakeDevice) -> None:
    result = await pipeline.sign(CALLER, group(b"x" * 48, b"y" * 48))
    assert [failure.index for failure in result.failures] == [0, 1]
    assert device.orders == []


@pytest.mark.parametrize("bad", [b"", b"x" * 101])
async def test_a_message_that_is_empty_or_too_long_spoils_only_itself(
    pipeline: SigningPipeline, device: FakeDevice, bad: bytes
) -> None:
    result = await pipeline.sign(CALLER, group(bad, b"hello", kind=InputKind.MESSAGE))
    assert [(failure.index, type(failure.error)) for failure in result.failures] == [(0, MessageSizeError)]
    verify_p256(device, result.signatures[1], DIGEST)


async def test_failures_of_the_device_keep_their_places_beside_bad_inputs(
    pipeline: SigningPipeline, device: FakeDevice
) -> None:
    device.failing = JobFailure(1, JobStatus.DEVICE_ERROR, 0x30)
    result = await pipeline.sign(CALLER, group(b"bad", DIGEST, b"bad", DIGEST, DIGEST))
    assert [(failure.index, failure.error.reason) for failure in result.failures] == [
        (0, "DIGEST_LENGTH"),
        (2, "DIGEST_LENGTH"),
        (3, "DEVICE_ERROR"),
    ]
    assert [bool(signature) for signature in result.signatures] == [False, True, False, False, True]
    assert result.failures[2].error.metadata == {"backend": "soft", "ckr": "CKR_DEVICE_ERROR"}


async def test_an_ed25519_key_signs_messages_only(pipeline: SigningPipeline, device: FakeDevice) -> None:
    with pytest.raises(MessageRequiredError):
        await pipeline.sign(CALLER, group(DIGEST, name="keys/ed25519"))
    result = await pipeline.sign(CALLER, group(b"hello", name="keys/ed25519", kind=InputKind.MESSAGE))
    device.things[3].private.public_key().verify(result.signatures[0], b"hello")


async def test_a_key_with_several_schemes_must_be_told_which(pipeline: SigningPipeline) -> None:
    with pytest.raises(SchemeMissingError):
        await pipeline.sign(CALLER, group(DIGEST, name="keys/rsa-2048"))
    with pytest.raises(AlgorithmMismatchError):
        await pipeline.sign(CALLER, group(DIGEST, name="keys/rsa-2048", scheme=Scheme.ECDSA_P256_SHA256))
    with pytest.raises(AlgorithmMismatchError):
        await pipeline.sign(CALLER, group(DIGEST, scheme=Scheme.ED25519))
    result = await pipeline.sign(CALLER, group(b"x" * 64, name="keys/rsa-2048", scheme=Scheme.RSA_PSS_SHA512))
    assert len(result.signatures[0]) == 256


async def test_a_checksum_that_does_not_fit_ends_the_group_before_the_device(
    pipeline: SigningPipeline, device: FakeDevice
) -> None:
    good = google_crc32c.value(DIGEST + DIGEST)
    assert (await pipeline.sign(CALLER, group(DIGEST, DIGEST, crc32c=good))).failures == []
    with pytest.raises(InputCorruptedError):
        await pipeline.sign(CALLER, group(DIGEST, DIGEST, crc32c=good ^ 1))
    with pytest.raises(InputCorruptedError):
        await pipeline.sign(CALLER, group(DIGEST, crc32c=0))
    assert len(device.orders) == 1


async def test_a_disabled_or_destroyed_version_does_not_sign(
    pipeline: SigningPipeline, keyring: Keyring, device: FakeDevice
) -> None:
    await pipeline.sign(CALLER, group(DIGEST))
    await keyring.update_version("keys/ecdsa-p256/versions/1", VersionState.DISABLED)
    with pytest.raises(VersionStateError, match="disabled"):
        await pipeline.sign(CALLER, group(DIGEST))
    await keyring.update_version("keys/ecdsa-p256/versions/1", VersionState.ENABLED)
    await pipeline.sign(CALLER, group(DIGEST))
    await keyring.destroy("keys/ecdsa-p256/versions/1")
    with pytest.raises(VersionStateError, match="destroyed"):
        await pipeline.sign(CALLER, group(DIGEST, name="keys/ecdsa-p256/versions/1"))
    assert len(device.orders) == 2


async def test_a_deadline_that_has_passed_asks_no_device(pipeline: SigningPipeline, device: FakeDevice) -> None:
    with pytest.raises(DeadlineError):
        await pipeline.sign(CALLER, group(DIGEST), time.monotonic() - 1)
    assert device.orders == []
    deadline = time.monotonic() + 60
    await pipeline.sign(CALLER, group(DIGEST), deadline)
    assert device.orders[0].deadline == deadline


async def test_a_device_with_enough_to_do_takes_no_more(pipeline: SigningPipeline, device: FakeDevice) -> None:
    device.flying = 19
    await pipeline.sign(CALLER, group(DIGEST))
    with pytest.raises(QueueFullError) as caught:
        await pipeline.sign(CALLER, group(DIGEST, DIGEST))
    assert caught.value.retry_after


async def test_a_batch_answers_every_group_in_its_place(pipeline: SigningPipeline, device: FakeDevice) -> None:
    unread = AlgorithmMismatchError("a", "b", ())
    results = await pipeline.sign_batch(
        CALLER, [group(DIGEST), group(DIGEST, name="keys/none"), unread, group(), group(b"bad", DIGEST)]
    )
    assert isinstance(results[1], KeyNotFoundError)
    assert results[2] is unread
    assert isinstance(results[3], BatchSizeError)
    verify_p256(device, results[0].signatures[0], DIGEST)
    verify_p256(device, results[4].signatures[1], DIGEST)


@pytest.mark.parametrize(
    "groups",
    [
        [],
        [group(*[DIGEST] * 11)],
        [group(DIGEST)] * 11,
        [group(*[DIGEST] * 6), group(*[DIGEST] * 5)],
        [group(b"x" * 251, kind=InputKind.MESSAGE), group(b"x" * 250, kind=InputKind.MESSAGE)],
    ],
)
async def test_a_batch_that_is_empty_or_too_large_is_refused_as_a_whole(
    pipeline: SigningPipeline, device: FakeDevice, groups: list[SignGroup]
) -> None:
    with pytest.raises(BatchSizeError):
        await pipeline.sign_batch(CALLER, groups)
    assert device.orders == []


@pytest.mark.parametrize("inputs", [[DIGEST] * 11, [b"x" * 501]])
async def test_a_group_that_is_too_large_to_be_a_call_of_its_own_is_nobodys_signature(
    pipeline: SigningPipeline, device: FakeDevice, inputs: list[bytes]
) -> None:
    with pytest.raises(BatchSizeError):
        await pipeline.sign_message(CALLER, group(*inputs), 0.0)
    assert device.orders == []


def test_every_status_of_a_job_has_an_error_with_a_sentence() -> None:
    expected = {
        JobStatus.DEADLINE: "DEADLINE_EXCEEDED",
        JobStatus.CANCELLED: "CANCELLED",
        JobStatus.KEY_NOT_FOUND: "OBJECT_NOT_FOUND",
        JobStatus.DEVICE_ERROR: "DEVICE_ERROR",
        JobStatus.NOT_PRESENT: "TOKEN_NOT_PRESENT",
        JobStatus.PIN_REFUSED: "PIN_REFUSED",
        JobStatus.PIN_LOCKED: "PIN_LOCKED",
        JobStatus.HOST_LOST: "DEVICE_UNAVAILABLE",
        JobStatus.BAD_INPUT: "INVALID_ARGUMENT",
        JobStatus.UNSUPPORTED: "CAPABILITY_MISSING",
        JobStatus.NO_MEMORY: "RESOURCE_EXHAUSTED",
        JobStatus.BROKEN: "DEVICE_UNAVAILABLE",
        JobStatus.BUSY: "DEVICE_BUSY",
    }
    assert set(expected) == set(JobStatus) - {JobStatus.OK}
    for status, reason in expected.items():
        error = to_error(JobFailure(0, status, 0xA0), "keys/a/versions/1", "soft")
        assert (error.reason, error.metadata) == (reason, {"backend": "soft", "ckr": "CKR_PIN_INCORRECT"})
        assert error.message


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (tpm.Trouble.NONE, "DEVICE_ERROR"),
        (tpm.Trouble.PARENT_CHANGED, "PARENT_CHANGED"),
        (tpm.Trouble.BLOB_DAMAGED, "KEY_DAMAGED"),
        (tpm.Trouble.PCR_CHANGED, "PCR_CHANGED"),
        (tpm.Trouble.AUTH_REFUSED, "PIN_REFUSED"),
        (tpm.Trouble.LOCKOUT, "PIN_LOCKED"),
    ],
)
def test_what_a_tpm_answers_is_told_as_what_it_is(trouble: tpm.Trouble, reason: str) -> None:
    failure = JobFailure(0, JobStatus.DEVICE_ERROR, tpm.code(0x2DF, trouble))
    error = to_error(failure, "keys/a/versions/1", "tpm")
    assert (error.reason, error.metadata) == (reason, {"backend": "tpm", "tpm_rc": "TPM_RC_INTEGRITY"})
    assert error.message


@pytest.mark.parametrize(
    ("name", "scheme", "kind", "form"),
    [
        ("ecdsa-p256", None, InputKind.DIGEST, SignatureFormat.DER),
        ("ecdsa-p256", None, InputKind.DIGEST, SignatureFormat.RAW),
        ("ecdsa-p256", None, InputKind.MESSAGE, SignatureFormat.RAW),
        ("ecdsa-p521", None, InputKind.MESSAGE, SignatureFormat.DER),
        ("ecdsa-p521", None, InputKind.MESSAGE, SignatureFormat.RAW),
        ("rsa-2048", Scheme.RSA_PKCS1_SHA256, InputKind.DIGEST, SignatureFormat.DER),
        ("rsa-2048", Scheme.RSA_PSS_SHA256, InputKind.DIGEST, SignatureFormat.DER),
        ("rsa-2048", Scheme.RSA_PSS_SHA384, InputKind.MESSAGE, SignatureFormat.RAW),
        ("ed25519", None, InputKind.MESSAGE, SignatureFormat.DER),
    ],
)
async def test_a_signature_verifies_and_an_altered_one_does_not(
    pipeline: SigningPipeline, keyring: Keyring, name: str, scheme, kind, form
) -> None:
    data = DIGEST if kind is InputKind.DIGEST else b"hello"
    asked = group(data, name=f"keys/{name}", scheme=scheme, kind=kind, format=form)
    signature = (await pipeline.sign(CALLER, asked)).signatures[0]
    assert await pipeline.verify(CALLER, asked, signature) == (f"keys/{name}/versions/1", True)
    altered = signature[:-1] + bytes([signature[-1] ^ 1])
    for wrong in (altered, signature[:-1], signature + b"\0", b"", b"\xff" * len(signature), bytes(len(signature))):
        assert await pipeline.verify(CALLER, asked, wrong) == (f"keys/{name}/versions/1", False)
    other = replace(asked, inputs=[bytes([data[0] ^ 1]) + data[1:]])
    assert await pipeline.verify(CALLER, other, signature) == (f"keys/{name}/versions/1", False)
    await keyring.destroy(f"keys/{name}")
    asked.name += "/versions/1"
    assert await pipeline.verify(CALLER, asked, signature) == (f"keys/{name}/versions/1", True)


async def test_a_digest_of_the_wrong_length_is_not_verified(pipeline: SigningPipeline) -> None:
    with pytest.raises(DigestLengthError):
        await pipeline.verify(CALLER, group(b"x"), b"signature")


async def test_public_keys_are_those_of_the_device(keyring: Keyring, device: FakeDevice) -> None:
    found = await keyring.public_key("keys/ecdsa-p256")
    loaded = serialization.load_der_public_key(found.public_key)
    assert loaded.public_numbers() == device.things[0].private.public_key().public_numbers()


async def test_a_key_with_a_purpose_signs_messages_of_its_kind_and_says_why_not_others(
    keyring: Keyring, pipeline: SigningPipeline, device: FakeDevice
) -> None:
    await keyring.create("jwt", KeyAlgorithm.EC_P256, purpose=Purpose(PurposeKind.JWT))
    token = b"eyJhbGciOiJFUzI1NiJ9.e30"
    result = await pipeline.sign(CALLER, group(token, b"", b"x", token, name="keys/jwt", kind=InputKind.MESSAGE))
    assert [bool(one) for one in result.signatures] == [True, False, False, True]
    assert [failure.index for failure in result.failures] == [1, 2]
    assert isinstance(result.failures[0].error, MessageSizeError)
    assert isinstance(result.failures[1].error, PurposeError)
    assert [order.inputs for order in device.orders] == [[token, token]]


async def test_a_key_with_a_purpose_signs_no_digests(keyring: Keyring, pipeline: SigningPipeline) -> None:
    await keyring.create("tls", KeyAlgorithm.EC_P256, purpose=Purpose(PurposeKind.TLS_SERVER))
    with pytest.raises(PurposeError, match="no bare digests"):
        await pipeline.sign(CALLER, group(DIGEST, name="keys/tls"))


async def test_a_purpose_holds_from_the_moment_of_its_change(keyring: Keyring, pipeline: SigningPipeline) -> None:
    asked = group(DIGEST)
    await pipeline.sign(CALLER, asked)
    await keyring.update("keys/ecdsa-p256", purpose=Purpose(PurposeKind.CSR))
    with pytest.raises(PurposeError):
        await pipeline.sign(CALLER, asked)
    await keyring.update("keys/ecdsa-p256", purpose=Purpose())
    await pipeline.sign(CALLER, asked)


async def test_a_key_for_the_audit_log_stays_one(keyring: Keyring, pipeline: SigningPipeline) -> None:
    await keyring.create("log", KeyAlgorithm.EC_P256, purpose=Purpose(PurposeKind.AUDIT))
    with pytest.raises(FailedPreconditionError):
        await keyring.update("keys/log", purpose=Purpose())
    result = await pipeline.sign(CALLER, group(b"origin\n1\nabc\n", name="keys/log", kind=InputKind.MESSAGE))
    assert isinstance(result.failures[0].error, PurposeError)

"""The services over a real gRPC server: what a caller sends, and what it is told."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import uuid

import google_crc32c
import grpc
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from google.protobuf import field_mask_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from hsmsign.model.device import DeviceState, JobFailure, JobStatus
from hsmsign.model.errors import DeviceUnavailableError
from hsmsign.v1 import backends_pb2, keys_pb2, signing_pb2
from tests.support.statuses import read, refusal

DIGEST = hashlib.sha256(b"hello").digest()
P256, RSA, ED25519 = 1, 4, 7


async def make(daemon, key_id: str = "web-1", algorithm: int = P256, **more) -> keys_pb2.Key:
    return await daemon.keys.CreateKey(keys_pb2.CreateKeyRequest(key_id=key_id, algorithm=algorithm, **more))


def sign(daemon, **fields):
    return daemon.signing.Sign(signing_pb2.SignRequest(**{"name": "keys/web-1", "digest": DIGEST, **fields}))


def batch(daemon, *groups: dict):
    made = [signing_pb2.SignGroup(**{"name": "keys/web-1", "inputs": [DIGEST], **group}) for group in groups]
    return daemon.signing.SignBatch(signing_pb2.SignBatchRequest(groups=made))


async def test_a_key_goes_through_its_whole_life(daemon) -> None:
    made = await make(daemon, labels={"team": "web"}, backend="backends/soft")
    assert (made.name, made.backend, made.primary_version) == ("keys/web-1", "soft", "keys/web-1/versions/1")
    assert made.versions[0].facts.extractable is False
    assert made.versions[0].protection_level == keys_pb2.SOFTWARE
    assert made.create_time.seconds > 0
    assert await daemon.keys.GetKey(keys_pb2.GetKeyRequest(name="keys/web-1")) == made
    rotated = await daemon.keys.RotateKey(keys_pb2.RotateKeyRequest(name="keys/web-1"))
    assert [one.name for one in rotated.versions] == ["keys/web-1/versions/1", "keys/web-1/versions/2"]
    update = keys_pb2.UpdateKeyRequest(
        key=keys_pb2.Key(name="keys/web-1", primary_version="keys/web-1/versions/1", labels={"a": "b"}),
        update_mask=field_mask_pb2.FieldMask(paths=["primary_version"]),
    )
    updated = await daemon.keys.UpdateKey(update)
    assert (updated.primary_version, dict(updated.labels)) == ("keys/web-1/versions/1", {"team": "web"})
    listed = await daemon.keys.ListKeys(keys_pb2.ListKeysRequest(labels={"team": "web"}, backend="backends/soft"))
    assert [one.name for one in listed.keys[0].versions] == ["keys/web-1/versions/1"]
    gone = await daemon.keys.DestroyKey(keys_pb2.DestroyKeyRequest(name="keys/web-1"))
    assert [one.state for one in gone.versions] == [keys_pb2.KeyVersion.DESTROYED] * 2
    assert gone.primary_version == ""
    assert all(one.destroy_time.seconds for one in gone.versions)
    assert daemon.device.things == []


async def test_a_version_is_disabled_and_enabled(daemon) -> None:
    await make(daemon)

    async def put(state: int, *paths: str) -> keys_pb2.KeyVersion:
        version = keys_pb2.KeyVersion(name="keys/web-1/versions/1", state=state)
        mask = field_mask_pb2.FieldMask(paths=paths)
        return await daemon.keys.UpdateKeyVersion(
            keys_pb2.UpdateKeyVersionRequest(key_version=version, update_mask=mask)
        )

    await sign(daemon)
    assert (await put(2, "state")).state == keys_pb2.KeyVersion.DISABLED
    said = await refusal(sign(daemon))
    assert (said.code, said.reason) == ("FAILED_PRECONDITION", "VERSION_NOT_ENABLED")
    await put(1, "state")
    await sign(daemon)
    for state, paths in ((3, ["state"]), (0, ["state"]), (9, ["state"]), (1, []), (1, ["name"])):
        assert (await refusal(put(state, *paths))).code == "INVALID_ARGUMENT"


@pytest.mark.parametrize("algorithm", [1, 2, 3, 4, 5, 7])
async def test_a_public_key_comes_as_der_pem_and_jwk(daemon, algorithm: int) -> None:
    await make(daemon, algorithm=algorithm)
    answer = await daemon.keys.GetPublicKey(keys_pb2.GetPublicKeyRequest(name="keys/web-1"))
    from_der = serialization.load_der_public_key(answer.der)
    assert serialization.load_pem_public_key(answer.pem.encode()) == from_der
    assert jwt.PyJWK(json.loads(answer.jwk), algorithm={7: "EdDSA"}.get(algorithm)).key == from_der
    assert (answer.name, answer.algorithm) == ("keys/web-1/versions/1", algorithm)


async def test_the_key_id_of_a_jwk_is_the_thumbprint_of_rfc_7638(daemon) -> None:
    await make(daemon)
    answer = await daemon.keys.GetPublicKey(keys_pb2.GetPublicKeyRequest(name="keys/web-1"))
    members = json.loads(answer.jwk)
    text = '{{"crv":"{crv}","kty":"{kty}","x":"{x}","y":"{y}"}}'.format(**members)
    thumbprint = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
    assert members["kid"] == thumbprint


@pytest.mark.parametrize(
    ("request_", "code", "reason"),
    [
        ({"key_id": "A"}, "INVALID_ARGUMENT", "NAME_INVALID"),
        ({"key_id": ""}, "INVALID_ARGUMENT", "NAME_INVALID"),
        ({"algorithm": 0}, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        ({"algorithm": 99}, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        ({"backend": "none"}, "NOT_FOUND", "BACKEND_NOT_FOUND"),
        ({"labels": {"NO": ""}}, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        ({"request_id": "7"}, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        ({"adopt_uri": "nonsense"}, "INVALID_ARGUMENT", "URI_INVALID"),
        ({"adopt_uri": "pkcs11:object=x"}, "NOT_FOUND", "OBJECT_NOT_FOUND"),
    ],
)
async def test_a_bad_create_is_refused_with_its_reason(daemon, request_: dict, code: str, reason: str) -> None:
    said = await refusal(make(daemon, **{"key_id": "web-1", **request_}))
    assert (said.code, said.reason, said.domain) == (code, reason, "hsmsign")
    assert said.message


async def test_a_name_is_given_once_and_a_request_may_be_repeated(daemon) -> None:
    request = str(uuid.uuid4())
    made = await make(daemon, request_id=request)
    assert await make(daemon, request_id=request) == made
    said = await refusal(make(daemon))
    assert (said.code, said.reason) == ("ALREADY_EXISTS", "KEY_EXISTS")
    assert "hsmsign key rotate" in said.metadata["hint"]
    said = await refusal(make(daemon, "web-2", request_id=request))
    assert said.code == "FAILED_PRECONDITION"


async def test_what_does_not_exist_is_not_found(daemon) -> None:
    for call in (
        daemon.keys.GetKey(keys_pb2.GetKeyRequest(name="keys/none")),
        daemon.keys.GetPublicKey(keys_pb2.GetPublicKeyRequest(name="keys/none")),
        daemon.keys.RotateKey(keys_pb2.RotateKeyRequest(name="keys/none")),
        daemon.keys.DestroyKey(keys_pb2.DestroyKeyRequest(name="keys/none/versions/1")),
        sign(daemon, name="keys/none"),
    ):
        said = await refusal(call)
        assert (said.code, said.reason) == ("NOT_FOUND", "KEY_NOT_FOUND")


async def test_an_etag_of_before_is_refused(daemon) -> None:
    made = await make(daemon)
    await daemon.keys.RotateKey(keys_pb2.RotateKeyRequest(name="keys/web-1"))
    said = await refusal(daemon.keys.DestroyKey(keys_pb2.DestroyKeyRequest(name="keys/web-1", etag=made.etag)))
    assert (said.code, said.reason) == ("ABORTED", "ETAG_MISMATCH")


@pytest.mark.parametrize("paths", [[], ["name"], ["labels", "algorithm"]])
async def test_an_update_names_what_it_changes(daemon, paths: list[str]) -> None:
    await make(daemon)
    mask = field_mask_pb2.FieldMask(paths=paths)
    request = keys_pb2.UpdateKeyRequest(key=keys_pb2.Key(name="keys/web-1"), update_mask=mask)
    said = await refusal(daemon.keys.UpdateKey(request))
    assert (said.code, said.metadata["field"]) == ("INVALID_ARGUMENT", "update_mask")


async def test_pages_are_followed_by_their_tokens(daemon) -> None:
    for number in range(5):
        await make(daemon, f"k{number}")
    names, token = [], ""
    while token or not names:
        page = await daemon.keys.ListKeys(keys_pb2.ListKeysRequest(page_size=2, page_token=token))
        names += [key.name for key in page.keys]
        token = page.next_page_token
    assert names == [f"keys/k{number}" for number in range(5)]
    said = await refusal(daemon.keys.ListKeys(keys_pb2.ListKeysRequest(page_token="forged")))
    assert said.code == "INVALID_ARGUMENT"


async def test_a_signature_names_its_version_and_carries_its_checksum(daemon) -> None:
    await make(daemon)
    answer = await sign(daemon, input_crc32c=google_crc32c.value(DIGEST))
    assert (answer.key_version, answer.scheme) == ("keys/web-1/versions/1", signing_pb2.ECDSA_P256_SHA256)
    assert answer.signature_crc32c == google_crc32c.value(answer.signature)
    verify = signing_pb2.VerifyRequest(name="keys/web-1", message=b"hello", signature=answer.signature)
    assert (await daemon.signing.Verify(verify)).valid
    verify.message = b"hellp"
    assert not (await daemon.signing.Verify(verify)).valid


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"name": "nonsense"}, "NAME_INVALID"),
        ({"digest": DIGEST[:-1]}, "DIGEST_LENGTH"),
        ({"digest": b""}, "DIGEST_LENGTH"),
        ({"digest": None}, "MESSAGE_SIZE"),
        ({"digest": None, "message": b""}, "MESSAGE_SIZE"),
        ({"digest": None, "message": b"x" * 1001}, "MESSAGE_SIZE"),
        ({"scheme": signing_pb2.ED25519_PURE}, "ALGORITHM_MISMATCH"),
        ({"scheme": 99}, "INVALID_ARGUMENT"),
        ({"format": 7}, "INVALID_ARGUMENT"),
        ({"input_crc32c": 1}, "INPUT_CORRUPTED"),
        ({"name": "keys/rsa"}, "SCHEME_MISSING"),
        ({"name": "keys/ed"}, "MESSAGE_REQUIRED"),
    ],
)
async def test_a_bad_sign_is_refused_with_its_reason(daemon, request_: dict, reason: str) -> None:
    for key_id, algorithm in (("web-1", P256), ("rsa", RSA), ("ed", ED25519)):
        await make(daemon, key_id, algorithm)
    said = await refusal(sign(daemon, **request_))
    assert (said.code, said.reason) == ("INVALID_ARGUMENT", reason)
    assert said.metadata.get("request_id")
    assert daemon.device.orders == []


async def test_one_bad_item_does_not_spoil_a_batch(daemon) -> None:
    await make(daemon)
    answer = await batch(
        daemon,
        {"inputs": [DIGEST, b"bad", DIGEST]},
        {"name": "keys/none"},
        {"scheme": 99},
        {"inputs_crc32c": 1},
        {"inputs": []},
        {"kind": 1, "inputs": [b"hello"], "inputs_crc32c": google_crc32c.value(b"hello")},
    )
    first, unknown, unread, corrupted, empty, last = answer.groups
    assert [bool(one) for one in first.signatures] == [True, False, True]
    assert first.signatures_crc32c == google_crc32c.value(b"".join(first.signatures))
    assert [(one.index, read(one.status).reason) for one in first.failures] == [(1, "DIGEST_LENGTH")]
    reasons = [read(one.status).reason for one in (unknown, unread, corrupted, empty)]
    assert reasons == ["KEY_NOT_FOUND", "INVALID_ARGUMENT", "INPUT_CORRUPTED", "BATCH_SIZE"]
    assert not last.HasField("status")
    assert len(last.signatures) == 1


async def test_a_batch_over_the_limit_is_refused_as_a_whole(daemon) -> None:
    await make(daemon)
    said = await refusal(batch(daemon, {"inputs": [DIGEST] * 101}))
    assert (said.code, said.reason, said.metadata["max_items"]) == ("INVALID_ARGUMENT", "BATCH_SIZE", "100")
    assert len((await batch(daemon, {"inputs": [DIGEST] * 100})).groups[0].signatures) == 100


@pytest.mark.parametrize("method", ["SigningService/Sign", "KeyService/CreateKey", "SigningService/SignBatch"])
@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe"])
async def test_bytes_that_are_no_request_are_an_invalid_argument(daemon, method: str, data: bytes) -> None:
    call = daemon.channel.unary_unary(f"/hsmsign.v1.{method}")
    said = await refusal(call(data))
    assert (said.code, said.domain) == ("INVALID_ARGUMENT", "hsmsign")


async def test_a_request_larger_than_the_limit_is_refused(daemon, limits) -> None:
    await make(daemon)
    said = await refusal(batch(daemon, {"kind": 1, "inputs": [b"x" * (limits.max_request_bytes + 1)]}))
    assert said.code == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize(
    ("status", "ckr", "code", "name"),
    [
        (JobStatus.DEVICE_ERROR, 0x30, "INTERNAL", "CKR_DEVICE_ERROR"),
        (JobStatus.PIN_LOCKED, 0xA4, "FAILED_PRECONDITION", "CKR_PIN_LOCKED"),
        (JobStatus.NOT_PRESENT, 0, "UNAVAILABLE", None),
        (JobStatus.HOST_LOST, 0, "UNAVAILABLE", None),
    ],
)
async def test_what_the_device_said_reaches_the_caller(daemon, status, ckr: int, code: str, name) -> None:
    await make(daemon)
    daemon.device.failing = JobFailure(-1, status, ckr)
    said = await refusal(sign(daemon))
    assert (said.code, said.metadata.get("ckr")) == (code, name)
    assert (said.retry is not None) == (code == "UNAVAILABLE")


async def test_a_fault_inside_tells_the_caller_nothing_but_an_id(daemon, monkeypatch) -> None:
    await make(daemon)

    async def broken(order):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(daemon.device, "sign", broken)
    said = await refusal(
        daemon.signing.Sign(
            signing_pb2.SignRequest(name="keys/web-1", digest=DIGEST), metadata=(("x-request-id", "mine-1"),)
        )
    )
    assert (said.code, said.metadata["request_id"]) == ("INTERNAL", "mine-1")
    assert "secret" not in str(said)


async def test_a_device_that_is_away_while_a_key_is_made_is_unavailable_and_leaves_nothing(daemon) -> None:
    def away(call: str) -> None:
        raise DeviceUnavailableError("away", retry_after=1.0)

    daemon.device.before = away
    said = await refusal(make(daemon))
    assert (said.code, said.retry) == ("UNAVAILABLE", 1.0)
    daemon.device.before = lambda call: None
    assert (await make(daemon)).primary_version == "keys/web-1/versions/1"


async def test_a_caller_that_goes_away_takes_its_work_out_of_the_queue(daemon) -> None:
    await make(daemon)
    daemon.device.gate = asyncio.Event()
    call = batch(daemon, {"inputs": [DIGEST] * 3}, {"inputs": [DIGEST] * 4})
    waiting = asyncio.ensure_future(call)
    await reached(lambda: daemon.device.flying == 7)
    waiting.cancel()
    await reached(lambda: daemon.device.cancelled == 7)


async def test_a_deadline_travels_to_the_device_and_ends_the_work_there(daemon) -> None:
    await make(daemon)
    daemon.device.gate = asyncio.Event()
    call = daemon.signing.Sign(signing_pb2.SignRequest(name="keys/web-1", digest=DIGEST), timeout=0.3)
    assert (await refusal(call)).code == "DEADLINE_EXCEEDED"
    await reached(lambda: daemon.device.cancelled == 1)
    assert daemon.device.orders[0].deadline > 0


async def test_backends_are_shown_as_they_are(daemon) -> None:
    answer = await daemon.backends.ListBackends(backends_pb2.ListBackendsRequest())
    one = answer.backends[0]
    assert answer.daemon_version == "1.2.3"
    assert (one.name, one.kind, one.default, one.state) == ("backends/soft", "softhsm", True, "ready")
    assert (one.token_label, one.protection_level, len(one.algorithms)) == ("fake token", keys_pb2.SOFTWARE, 7)
    daemon.device.known = False
    daemon.device.become(DeviceState.PIN_REFUSED, "the token refused the PIN")
    one = (await daemon.backends.ListBackends(backends_pb2.ListBackendsRequest())).backends[0]
    assert (one.state, one.message, one.token_label) == ("pin-refused", "the token refused the PIN", "")


async def test_reflection_knows_every_service(daemon) -> None:
    def ask() -> set[str]:
        with grpc.insecure_channel(daemon.target) as channel:
            return set(ProtoReflectionDescriptorDatabase(channel).get_services())

    services = await asyncio.to_thread(ask)
    assert {"hsmsign.v1.KeyService", "hsmsign.v1.SigningService", "grpc.health.v1.Health"} <= services


async def reached(condition) -> None:
    """Wait until it is so; the test's own time limit ends what never comes."""
    while not condition():  # noqa: ASYNC110 - the other side is a fake without an event for everything
        await asyncio.sleep(0.005)

"""A small but honest daemon for the client's tests: the real protocol, keys of `cryptography` in memory."""

from __future__ import annotations

import hashlib
import json
import uuid
from concurrent import futures
from dataclasses import dataclass, field

import google_crc32c
import grpc
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from hsmsign.model import errors, names
from hsmsign.model.algorithms import Digest, Family, KeyAlgorithm, Scheme
from hsmsign.model.errors import HsmsignError
from hsmsign.v1 import backends_pb2, backends_pb2_grpc, keys_pb2, keys_pb2_grpc, signing_pb2, signing_pb2_grpc

ALGORITHMS = dict(enumerate(KeyAlgorithm, start=1))
CURVES = {256: ec.SECP256R1(), 384: ec.SECP384R1(), 521: ec.SECP521R1()}
MESSAGE_MAX = 1 << 20
BATCH_MAX = 10_000


def status_of(error: HsmsignError) -> status_pb2.Status:
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain="hsmsign", metadata=dict(error.metadata))
    if error.hint:
        info.metadata["hint"] = error.hint
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code), message=error.message)
    detail = any_pb2.Any()
    detail.Pack(info)
    status.details.append(detail)
    if error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(int(error.retry_after * 1000))
        detail = any_pb2.Any()
        detail.Pack(retry)
        status.details.append(detail)
    return status


@dataclass
class State:
    """The keys, what was asked for, and the faults to be made."""

    keys: dict[str, keys_pb2.Key] = field(default_factory=dict)
    private: dict[str, object] = field(default_factory=dict)
    requests: dict[str, str] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    corrupt_signatures: bool = False
    fail_next: list[HsmsignError] = field(default_factory=list)
    batch_sizes: list[int] = field(default_factory=list)
    batch_names: list[str] = field(default_factory=list)

    def resolve(self, text: str) -> tuple[keys_pb2.Key, keys_pb2.KeyVersion]:
        name = names.parse(text)
        key_name = str(name.key if isinstance(name, names.VersionName) else name)
        key = self.keys.get(key_name)
        if key is None:
            raise errors.KeyNotFoundError(f"key {key_name!r} does not exist")
        wanted = str(name) if isinstance(name, names.VersionName) else key.primary_version
        for version in key.versions:
            if version.name == wanted:
                return key, version
        raise errors.KeyNotFoundError(f"{wanted!r} does not exist")


def generate(algorithm: KeyAlgorithm) -> object:
    if algorithm.family is Family.EC:
        return ec.generate_private_key(CURVES[algorithm.bits])
    if algorithm.family is Family.RSA:
        return rsa.generate_private_key(65537, algorithm.bits)
    return ed25519.Ed25519PrivateKey.generate()


def sign_with(private: object, scheme: Scheme, data: bytes, is_digest: bool, raw: bool) -> bytes:
    if scheme.hash is None:
        if is_digest:
            raise errors.MessageRequiredError("ed25519 signs messages, not digests", hint="send the message")
        return private.sign(data)  # type: ignore[attr-defined]
    digest = Digest(scheme.hash, data if is_digest else hashlib.new(scheme.hash.value, data).digest()).value
    prehashed = utils.Prehashed(getattr(hashes, scheme.hash.name)())
    if scheme.family is Family.EC:
        der = private.sign(digest, ec.ECDSA(prehashed))  # type: ignore[attr-defined]
        if not raw:
            return der
        size = (private.key_size + 7) // 8  # type: ignore[attr-defined]
        return b"".join(number.to_bytes(size) for number in utils.decode_dss_signature(der))
    return private.sign(digest, padding_of(scheme), prehashed)  # type: ignore[attr-defined]


def padding_of(scheme: Scheme) -> padding.AsymmetricPadding:
    if "PSS" not in scheme.name:
        return padding.PKCS1v15()
    return padding.PSS(padding.MGF1(getattr(hashes, scheme.hash.name)()), padding.PSS.DIGEST_LENGTH)


class Answering:
    """Turns HsmsignError into a status and counts calls."""

    def __init__(self, state: State) -> None:
        self.state = state

    def __getattribute__(self, name: str):
        method = object.__getattribute__(self, name)
        if not name[:1].isupper() or name == "SignStream":
            return method

        def answer(request, context):
            self.state.calls.append(name)
            try:
                if self.state.fail_next:
                    raise self.state.fail_next.pop(0)
                return method(request, context)
            except HsmsignError as error:
                context.abort_with_status(rpc_status.to_status(status_of(error)))

        return answer


class Keys(Answering, keys_pb2_grpc.KeyServiceServicer):
    def CreateKey(self, request, context):
        if request.request_id in self.state.requests:
            return self.state.keys[self.state.requests[request.request_id]]
        uuid.UUID(request.request_id)
        name = f"keys/{request.key_id}"
        if name in self.state.keys:
            raise errors.KeyExistsError(f"{name} exists", hint="choose another name")
        key = keys_pb2.Key(name=name, algorithm=request.algorithm or 1, backend=request.backend or "soft", etag="1")
        key.labels.update(request.labels)
        key.create_time.GetCurrentTime()
        self.state.keys[name] = key
        self.state.requests[request.request_id] = name
        self._add(key, adopted=bool(request.adopt_uri))
        return key

    def _add(self, key, adopted=False):
        version = f"{key.name}/versions/{len(key.versions) + 1}"
        private = self.state.private[version] = generate(ALGORITHMS[key.algorithm])
        der = private.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        made = key.versions.add(
            name=version, state=1, protection_level=1, algorithm=key.algorithm, public_key=der, adopted=adopted
        )
        made.pkcs11_uri = "pkcs11:token=fake;id=%01"
        made.facts.sensitive, made.facts.extractable = True, False
        made.create_time.GetCurrentTime()
        key.primary_version = version
        key.etag = str(int(key.etag) + 1)

    def GetKey(self, request, context):
        return self.state.resolve(request.name)[0]

    def ListKeys(self, request, context):
        found = [
            key
            for name, key in sorted(self.state.keys.items())
            if name > request.page_token and all(key.labels.get(k) == v for k, v in request.labels.items())
        ]
        size = request.page_size or 100
        more = found[size - 1].name if len(found) > size else ""
        return keys_pb2.ListKeysResponse(keys=found[:size], next_page_token=more)

    def UpdateKey(self, request, context):
        key, _ = self.state.resolve(request.key.name)
        if request.key.etag and request.key.etag != key.etag:
            raise errors.EtagError("the key changed", hint="read it again")
        if "labels" in request.update_mask.paths:
            key.labels.clear()
            key.labels.update(request.key.labels)
        if "primary_version" in request.update_mask.paths:
            key.primary_version = self.state.resolve(request.key.primary_version)[1].name
        key.etag = str(int(key.etag) + 1)
        return key

    def UpdateKeyVersion(self, request, context):
        version = self.state.resolve(request.key_version.name)[1]
        version.state = request.key_version.state
        return version

    def RotateKey(self, request, context):
        key, _ = self.state.resolve(request.name)
        self._add(key)
        return key

    def DestroyKey(self, request, context):
        key, version = self.state.resolve(request.name)
        if version.adopted and not request.adopted_object:
            raise errors.AdoptedKeyError("adopted", hint="say --release or --destroy-object")
        target = key
        if request.validate_only:
            target = keys_pb2.Key()
            target.CopyFrom(key)
        for one in target.versions:
            if request.name in (key.name, one.name):
                one.state = 3
                if not request.validate_only:
                    self.state.private.pop(one.name, None)
        return target

    def GetPublicKey(self, request, context):
        key, version = self.state.resolve(request.name)
        pem = serialization.load_der_public_key(version.public_key).public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return keys_pb2.PublicKey(
            name=version.name,
            algorithm=key.algorithm,
            der=version.public_key,
            pem=pem.decode(),
            jwk=json.dumps({"kty": "fake", "kid": version.name}),
        )


class Signing(Answering, signing_pb2_grpc.SigningServiceServicer):
    def _one(self, name, scheme, data, is_digest, raw):
        key, version = self.state.resolve(name)
        if version.state != 1:
            raise errors.VersionStateError(f"{version.name} is not enabled", hint="enable it")
        chosen = ALGORITHMS[key.algorithm].scheme(Scheme(scheme) if scheme else None)
        if len(data) > MESSAGE_MAX or not data:
            raise errors.MessageSizeError(f"a message of {len(data)} bytes", hint="send its digest")
        return version.name, chosen, sign_with(self.state.private[version.name], chosen, data, is_digest, raw)

    def Sign(self, request, context):
        is_digest = request.WhichOneof("input") == "digest"
        data = request.digest if is_digest else request.message
        if request.HasField("input_crc32c") and google_crc32c.value(data) != request.input_crc32c:
            raise errors.InputCorruptedError("input")
        version, scheme, value = self._one(request.name, request.scheme, data, is_digest, request.format == 1)
        check = google_crc32c.value(value) ^ (1 if self.state.corrupt_signatures else 0)
        return signing_pb2.SignResponse(
            key_version=version, scheme=scheme.value, signature=value, signature_crc32c=check
        )

    def _group(self, group):
        answer = signing_pb2.SignGroupResult()
        if len(group.inputs) > BATCH_MAX:
            answer.status.CopyFrom(status_of(errors.BatchSizeError("too many", hint="send fewer")))
            return answer
        if group.inputs_crc32c != google_crc32c.value(b"".join(group.inputs)):
            answer.status.CopyFrom(status_of(errors.InputCorruptedError("inputs")))
            return answer
        try:
            key, version = self.state.resolve(group.name)
            answer.key_version = version.name
            answer.scheme = ALGORITHMS[key.algorithm].scheme(Scheme(group.scheme) if group.scheme else None).value
        except HsmsignError as error:
            answer.status.CopyFrom(status_of(error))
            return answer
        for index, data in enumerate(group.inputs):
            try:
                value = self._one(group.name, group.scheme, data, group.kind == 0, group.format == 1)[2]
            except HsmsignError as error:
                value = b""
                answer.failures.add(index=index, status=status_of(error))
            answer.signatures.append(value)
        answer.signatures_crc32c = google_crc32c.value(b"".join(answer.signatures)) ^ (
            1 if self.state.corrupt_signatures else 0
        )
        return answer

    def SignBatch(self, request, context):
        self.state.batch_sizes += [len(group.inputs) for group in request.groups]
        self.state.batch_names += [group.name for group in request.groups]
        return signing_pb2.SignBatchResponse(groups=[self._group(group) for group in request.groups])

    def SignStream(self, requests, context):
        held = []  # pairs are answered the wrong way round
        for request in requests:
            held.append(signing_pb2.SignStreamResponse(id=request.id, result=self._group(request.group)))
            if len(held) == 2:
                yield from reversed(held)
                held = []
        yield from held

    def Verify(self, request, context):
        key, version = self.state.resolve(request.name)
        scheme = ALGORITHMS[key.algorithm].scheme(Scheme(request.scheme) if request.scheme else None)
        public = serialization.load_der_public_key(version.public_key)
        is_digest = request.WhichOneof("input") == "digest"
        data = request.digest if is_digest else request.message
        signature = request.signature
        try:
            if scheme.hash is None:
                public.verify(signature, data)
            else:
                algorithm = getattr(hashes, scheme.hash.name)()
                algorithm = utils.Prehashed(algorithm) if is_digest else algorithm
                if scheme.family is Family.EC:
                    if request.format == 1:
                        half = len(signature) // 2
                        parts = (int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))
                        signature = utils.encode_dss_signature(*parts)
                    public.verify(signature, data, ec.ECDSA(algorithm))
                else:
                    public.verify(signature, data, padding_of(scheme), algorithm)
        except InvalidSignature:
            return signing_pb2.VerifyResponse(valid=False, key_version=version.name)
        return signing_pb2.VerifyResponse(valid=True, key_version=version.name)


class Backends(Answering, backends_pb2_grpc.BackendServiceServicer):
    def ListBackends(self, request, context):
        one = backends_pb2.Backend(
            name="backends/soft",
            kind="softhsm",
            default=True,
            state="ready",
            protection_level=1,
            token_label="fake",
            algorithms=[1, 2, 7],
            sessions=2,
        )
        return backends_pb2.ListBackendsResponse(backends=[one], daemon_version="9.9.9")


def serve(address: str, credentials: grpc.ServerCredentials | None = None) -> tuple[grpc.Server, State, int]:
    """A running server, its state and its port."""
    state = State()
    limits = [("grpc.max_receive_message_length", 32 << 20), ("grpc.max_send_message_length", 32 << 20)]
    server = grpc.server(futures.ThreadPoolExecutor(8), options=limits)
    keys_pb2_grpc.add_KeyServiceServicer_to_server(Keys(state), server)
    signing_pb2_grpc.add_SigningServiceServicer_to_server(Signing(state), server)
    backends_pb2_grpc.add_BackendServiceServicer_to_server(Backends(state), server)
    checks = health.HealthServicer()
    checks.set("", health_pb2.HealthCheckResponse.SERVING)
    checks.set("backends/soft", health_pb2.HealthCheckResponse.NOT_SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    return server, state, port

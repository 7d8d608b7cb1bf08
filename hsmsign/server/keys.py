"""KeyService."""

from __future__ import annotations

from hsmsign.keyring import Keyring
from hsmsign.keyring.attesting import Asked
from hsmsign.model.key_facts import KeyFacts
from hsmsign.model.names import KeyName
from hsmsign.policy import Action
from hsmsign.server import wire
from hsmsign.server.guard import Call
from hsmsign.server.numbers import ADOPTED, SETTABLE, read
from hsmsign.server.rights import Rights
from hsmsign.v1 import keys_pb2

_KEY_FIELDS = frozenset({"labels", "primary_version", "purpose", "dual_control"})
_VERSION_FIELDS = frozenset({"state"})


class KeyService:
    """Key handles."""

    def __init__(self, keyring: Keyring, rights: Rights) -> None:
        self._keyring = keyring
        self._rights = rights

    async def CreateKey(self, request: keys_pb2.CreateKeyRequest, call: Call) -> keys_pb2.Key:
        """Make a key pair, or adopt one, and name it."""
        algorithm, adopt = wire.algorithm(request.algorithm), bool(request.adopt_uri)
        purpose = wire.purpose(request.purpose)
        facts = KeyFacts.of(KeyName(request.key_id).id, request.labels, algorithm, purpose.kind)
        self._rights.to_make(call.caller, facts, adopt=adopt)
        key = await self._keyring.create(
            request.key_id,
            algorithm,
            backend=wire.backend_name(request.backend),
            labels=request.labels,
            request_id=request.request_id,
            adopt_uri=request.adopt_uri,
            pcrs=request.pcrs,
            purpose=purpose,
            control=wire.dual_control(request.dual_control),
        )
        return wire.key(key)

    async def GetKey(self, request: keys_pb2.GetKeyRequest, call: Call) -> keys_pb2.Key:
        """One key with all its versions."""
        await self._rights.to(call.caller, Action.READ, request.name)
        return wire.key(await self._keyring.get(request.name))

    async def ListKeys(self, request: keys_pb2.ListKeysRequest, call: Call) -> keys_pb2.ListKeysResponse:
        """A page of keys: those of it that the caller may see, so it may be shorter than what was asked for."""
        keys, token = await self._keyring.list(
            page_size=request.page_size,
            page_token=request.page_token,
            labels=request.labels,
            backend=wire.backend_name(request.backend),
        )
        seen = [wire.key(key) for key in keys if self._rights.sees(call.caller, key)]
        return keys_pb2.ListKeysResponse(keys=seen, next_page_token=token)

    async def UpdateKey(self, request: keys_pb2.UpdateKeyRequest, call: Call) -> keys_pb2.Key:
        """Labels, the primary version, the purpose, the dual control, or several."""
        fields = wire.mask(request.update_mask.paths, _KEY_FIELDS)
        labels = request.key.labels if "labels" in fields else None
        purpose = wire.purpose(request.key.purpose) if "purpose" in fields else None
        if labels is not None or purpose is not None:
            await self._rights.to_change(call.caller, request.key.name, labels, purpose.kind if purpose else None)
        control = wire.dual_control(request.key.dual_control) if "dual_control" in fields else None
        if control is not None:
            await self._rights.to(call.caller, Action.ADMIN, request.key.name)
        if "primary_version" in fields:
            await self._rights.to(call.caller, Action.ROTATE, request.key.name)
        key = await self._keyring.update(
            request.key.name,
            labels=labels,
            primary=request.key.primary_version if "primary_version" in fields else None,
            purpose=purpose,
            control=control,
            etag=request.key.etag,
            by=call.caller,
        )
        call.approval = key.approval
        return wire.key(key)

    async def UpdateKeyVersion(self, request: keys_pb2.UpdateKeyVersionRequest, call: Call) -> keys_pb2.KeyVersion:
        """Enable or disable."""
        await self._rights.to(call.caller, Action.ADMIN, request.key_version.name)
        wire.mask(request.update_mask.paths, _VERSION_FIELDS)
        state = read(SETTABLE, request.key_version.state, "key_version.state")
        key, version = await self._keyring.update_version(request.key_version.name, state)
        return wire.key_version(version, key.row.algorithm)

    async def RotateKey(self, request: keys_pb2.RotateKeyRequest, call: Call) -> keys_pb2.Key:
        """A new version."""
        await self._rights.to(call.caller, Action.ROTATE, request.name)
        return wire.key(await self._keyring.rotate(request.name, request_id=request.request_id))

    async def DestroyKey(self, request: keys_pb2.DestroyKeyRequest, call: Call) -> keys_pb2.Key:
        """No way back."""
        await self._rights.to(call.caller, Action.DESTROY, request.name)
        key = await self._keyring.destroy(
            request.name,
            etag=request.etag,
            adopted=read(ADOPTED, request.adopted_object, "adopted_object"),
            validate_only=request.validate_only,
            by=call.caller,
        )
        call.approval = key.approval
        return wire.key(key)

    async def GetPublicKey(self, request: keys_pb2.GetPublicKeyRequest, call: Call) -> keys_pb2.PublicKey:
        """DER, PEM and JWK."""
        await self._rights.to(call.caller, Action.READ, request.name)
        return wire.public_key(await self._keyring.public_key(request.name))

    async def AddReplica(self, request: keys_pb2.AddReplicaRequest, call: Call) -> keys_pb2.KeyVersion:
        """A further token, which may hold any object: a right as that to adopt."""
        await self._rights.to(call.caller, Action.CREATE, request.name)
        await self._rights.to(call.caller, Action.ADMIN, request.name)
        backend = wire.backend_name(request.backend)
        key, version = await self._keyring.add_replica(request.name, backend, request.object_uri)
        return wire.key_version(version, key.row.algorithm)

    async def RemoveReplica(self, request: keys_pb2.RemoveReplicaRequest, call: Call) -> keys_pb2.KeyVersion:
        """One token less."""
        await self._rights.to(call.caller, Action.ADMIN, request.name)
        backend = wire.backend_name(request.backend)
        key, version = await self._keyring.remove_replica(request.name, backend, call.caller)
        call.approval = key.approval
        return wire.key_version(version, key.row.algorithm)

    async def AttestKey(self, request: keys_pb2.AttestKeyRequest, call: Call) -> keys_pb2.KeyAttestation:
        """Where a key lives."""
        await self._rights.to(call.caller, Action.READ, request.name)
        asked = Asked(request.nonce, request.credential_blob, request.encrypted_secret)
        name = (await self._keyring.resolve(request.name)).name
        said = await self._keyring.attest(name, asked)
        return keys_pb2.KeyAttestation(
            name=name,
            statement=said.statement,
            tpm_attest=said.attest,
            tpm_signature=said.attest_signature,
            tpm_key_public=said.key_public,
            possession_signature=said.possession,
        )

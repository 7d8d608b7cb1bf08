"""The protobuf surface: every request of every service, as the daemon reads it before it asks anybody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hsmsign.keyring import checks, paging
from hsmsign.model import ca_names, names, object_uri
from hsmsign.server import guard, wire, wire_pki, wire_signing
from hsmsign.server.numbers import ADOPTED, SETTABLE, read
from hsmsign.v1 import approvals_pb2, audit_pb2, authorities_pb2, backends_pb2, keys_pb2, signing_pb2

_FILES = (keys_pb2, signing_pb2, backends_pb2, audit_pb2, approvals_pb2, authorities_pb2)
METHODS = [
    method for file in _FILES for service in file.DESCRIPTOR.services_by_name.values() for method in service.methods
]
"""The first byte of an input says which."""
_PARSERS = [guard._parser(method) for method in METHODS]


def read_request(data: bytes) -> None:
    """Parse, and turn into plain values; twice the same."""
    if not data:
        return
    at = data[0] % len(METHODS)
    request = _PARSERS[at](data[1:])
    guard._about(request)
    assert type(request).FromString(request.SerializeToString(deterministic=True)) == request
    _READERS.get(METHODS[at].name, _name)(request)


def _name(request: Any) -> None:
    if request.DESCRIPTOR.file is authorities_pb2.DESCRIPTOR:
        if "name" in request.DESCRIPTOR.fields_by_name:
            ca_names.authority(request.name)
    elif "name" in request.DESCRIPTOR.fields_by_name:
        names.parse(request.name)


def _create(request: keys_pb2.CreateKeyRequest) -> None:
    names.KeyName(request.key_id)
    wire.algorithm(request.algorithm)
    wire.purpose(request.purpose).check()
    wire.dual_control(request.dual_control).check()
    checks.labels(request.labels)
    checks.request_id(request.request_id)
    if request.adopt_uri:
        object_uri.parse(request.adopt_uri)


def _update(request: keys_pb2.UpdateKeyRequest) -> None:
    names.parse_key(request.key.name)
    wire.mask(request.update_mask.paths, frozenset({"labels", "purpose", "dual_control", "primary_version"}))
    checks.labels(request.key.labels)
    wire.purpose(request.key.purpose).check()
    wire.dual_control(request.key.dual_control).check()


def _update_version(request: keys_pb2.UpdateKeyVersionRequest) -> None:
    names.parse(request.key_version.name)
    wire.mask(request.update_mask.paths, frozenset({"state"}))
    read(SETTABLE, request.key_version.state, "state")


def _destroy(request: keys_pb2.DestroyKeyRequest) -> None:
    names.parse(request.name)
    read(ADOPTED, request.adopted_object, "adopted_object")


def _list(request: keys_pb2.ListKeysRequest) -> None:
    paging.size(request.page_size)
    paging.after(request.page_token, checks.labels(request.labels), request.backend)


def _batch(request: signing_pb2.SignBatchRequest) -> None:
    for group in request.groups:
        wire_signing.sign_group(group)


def _create_authority(request: authorities_pb2.CreateAuthorityRequest) -> None:
    wish = wire_pki.wish(request)
    assert type(wish).read(wish.plain()) == wish
    assert wish.purpose.check() == wish.purpose
    wish.kind  # noqa: B018 - raises


def _issue(request: authorities_pb2.IssueCertificateRequest) -> None:
    ca_names.authority_id(request.authority)
    wire_pki.order(request, None)


_READERS: dict[str, Callable[[Any], object]] = {
    "CreateKey": _create,
    "UpdateKey": _update,
    "UpdateKeyVersion": _update_version,
    "DestroyKey": _destroy,
    "ListKeys": _list,
    "Sign": wire_signing.sign_order,
    "SignBatch": _batch,
    "SignStream": lambda request: wire_signing.sign_group(request.group),
    "Verify": wire_signing.verify_order,
    "CreateAuthority": _create_authority,
    "IssueCertificate": _issue,
    "ListCertificates": wire_pki.wanted,
    "RevokeCertificate": lambda request: ca_names.certificate(request.name),
    "GetCertificate": lambda request: ca_names.certificate(request.name),
}

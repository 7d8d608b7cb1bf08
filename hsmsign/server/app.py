"""The gRPC server with everything on it, but no port."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection

from hsmsign.audit.auditing import Audit
from hsmsign.devices.base import Device
from hsmsign.keyring import Keyring
from hsmsign.keyring.approvals import Approvals
from hsmsign.ledger import Ledger
from hsmsign.policy import Policy
from hsmsign.server.approvals import ApprovalService
from hsmsign.server.audit import AuditService
from hsmsign.server.backends import BackendService
from hsmsign.server.guard import Guard, Identify
from hsmsign.server.health import HealthBoard
from hsmsign.server.keys import KeyService
from hsmsign.server.rights import Rights
from hsmsign.server.signing import SigningService
from hsmsign.server.tracing import Tracing
from hsmsign.signing import Limits, SigningPipeline
from hsmsign.v1 import approvals_pb2, audit_pb2, backends_pb2, keys_pb2, signing_pb2

if TYPE_CHECKING:
    from hsmsign.pki.office import Office

_LAST_WORDS = 1.0
"""Seconds for answers that are on their way out when the daemon stops."""


class Application:
    """A server that is not started and has no port yet: that is for who made it."""

    def __init__(self, server: grpc.aio.Server, guard: Guard, health: HealthBoard) -> None:
        self.server = server
        self._guard = guard
        self._health = health

    def active(self) -> int:
        """Calls that are under way."""
        return self._guard.active()

    def look(self) -> None:
        """To be called about once a second."""
        self._guard.look()

    def set_serving(self, serving: bool) -> None:
        """What the health service says of the daemon as a whole."""
        self._health.set_serving(serving)

    async def settle(self) -> None:
        """A last moment for calls whose changes are done by now: they are recorded yet."""
        await self._guard.drain(_LAST_WORDS)

    async def stop(self, grace_seconds: float) -> None:
        """Say so, take no new calls, let those under way end (at most so many seconds), then close."""
        end = time.monotonic() + grace_seconds
        await self._health.close()
        await self._guard.drain(grace_seconds)
        await self.server.stop(max(0.0, min(_LAST_WORDS, end - time.monotonic())))


def build(
    *,
    keyring: Keyring,
    pipeline: SigningPipeline,
    policy: Policy,
    devices: Mapping[str, Device],
    default_backend: str,
    limits: Limits,
    version: str,
    identify: Identify,
    audit: Audit,
    approvals: Approvals,
    audit_log: tuple[Path | None, str],
    office: Office | None = None,
    tracing: Tracing | None = None,
    ledger: Ledger | None = None,
    generation: int = 0,
) -> Application:
    """Put all services on a server. Needs a running event loop. `audit_log` is the log's folder (None: there is none),
    and the id of the key that signs its checkpoints; `office` is the certificate authority, where there is one;
    `ledger` is where all workers count, `generation` tells which of them take calls together."""
    server = grpc.aio.server(options=_options(limits))
    guard = Guard(identify, limits, audit, tracing, ledger, generation)
    rights = Rights(policy, keyring)
    services: dict[ServiceDescriptor, object] = {
        keys_pb2.DESCRIPTOR.services_by_name["KeyService"]: KeyService(keyring, rights),
        signing_pb2.DESCRIPTOR.services_by_name["SigningService"]: SigningService(pipeline, limits),
        backends_pb2.DESCRIPTOR.services_by_name["BackendService"]: BackendService(
            devices, default_backend, version, rights
        ),
        approvals_pb2.DESCRIPTOR.services_by_name["ApprovalService"]: ApprovalService(approvals, rights),
        audit_pb2.DESCRIPTOR.services_by_name["AuditService"]: AuditService(*audit_log, keyring, rights),
    }
    if office is not None:
        from hsmsign.server.authorities import CertificateAuthorityService  # not small, and not everybody has a CA
        from hsmsign.v1 import authorities_pb2

        service = authorities_pb2.DESCRIPTOR.services_by_name["CertificateAuthorityService"]
        services[service] = CertificateAuthorityService(office, keyring, rights)
    server.add_generic_rpc_handlers([guard.handlers(service, servicer) for service, servicer in services.items()])
    names = [service.full_name for service in services]
    health = HealthBoard(names, devices.values())
    health.add_to(server)
    standard = [health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME]
    reflection.enable_server_reflection([*names, *standard], server)
    return Application(server, guard, health)


def _options(limits: Limits) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", limits.max_request_bytes),
        # what is sent is bounded by what may be asked for
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", 16 << 10),
        ("grpc.absolute_max_metadata_size", 32 << 10),
        ("grpc.max_concurrent_streams", 1024),
        ("grpc.so_reuseport", 1),
        # a caller may ask every 20 seconds whether we live, also when nothing is under way
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 20_000),
        ("grpc.http2.max_ping_strikes", 3),
        ("grpc.server_handshake_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # whoever calls nothing for so long connects anew at his next call: gRPC's clients do so by themselves
        ("grpc.max_connection_idle_ms", 120_000),
        # and is asked by us, so that connections to machines that went away are closed
        ("grpc.keepalive_time_ms", 120_000),
        ("grpc.keepalive_timeout_ms", 20_000),
    ]

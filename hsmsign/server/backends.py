"""BackendService."""

from __future__ import annotations

from collections.abc import Mapping

from hsmsign.devices.base import Device
from hsmsign.server import wire
from hsmsign.server.guard import Call
from hsmsign.server.rights import Rights
from hsmsign.v1 import backends_pb2


class BackendService:
    """The devices, and how they are."""

    def __init__(self, devices: Mapping[str, Device], default_backend: str, version: str, rights: Rights) -> None:
        self._devices = devices
        self._default = default_backend
        self._version = version
        self._rights = rights

    async def ListBackends(
        self, _request: backends_pb2.ListBackendsRequest, call: Call
    ) -> backends_pb2.ListBackendsResponse:
        """All of them, by name."""
        self._rights.to_anything(call.caller)
        backends = [wire.backend(self._devices[name], default=name == self._default) for name in sorted(self._devices)]
        return backends_pb2.ListBackendsResponse(backends=backends, daemon_version=self._version)

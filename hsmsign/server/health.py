"""grpc.health.v1: the daemon as a whole, its services, and every backend by name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Protocol, runtime_checkable

from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from hsmsign.devices.base import Device
from hsmsign.model.device import DeviceHealth, DeviceState

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@runtime_checkable
class TellsHealth(Protocol):
    """A device that says when its health changes."""

    def on_health(self, callback: Callable[[DeviceHealth], None]) -> Any:
        """Have `callback` called, on the event loop, after every change."""
        ...


class HealthBoard:
    """Puts up for others how everything is. Belongs to one event loop."""

    def __init__(self, services: Iterable[str], devices: Iterable[Device]) -> None:
        self._servicer = health.aio.HealthServicer()
        self._services = ("", *services)
        self._tasks: set[asyncio.Task[None]] = set()
        self.set_serving(False)
        for device in devices:
            self._follow(device)

    def add_to(self, server: Any) -> None:
        """Let a gRPC server answer with it."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def set_serving(self, serving: bool) -> None:
        """The daemon and its services take calls, or do not."""
        for service in self._services:
            self._put(service, serving)

    async def close(self) -> None:
        """NOT_SERVING, for good."""
        await self._servicer.enter_graceful_shutdown()

    def _follow(self, device: Device) -> None:
        name = f"backends/{device.name}"
        self._put(name, device.health().state is DeviceState.READY)
        if isinstance(device, TellsHealth):
            device.on_health(lambda now: self._put(name, now.state is DeviceState.READY))

    def _put(self, service: str, serving: bool) -> None:
        change = self._servicer.set(service, _SERVING if serving else _NOT_SERVING)
        task = asyncio.get_running_loop().create_task(change)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

"""Puts a worker's metrics and its health on the HTTP port."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version

from cryptography import x509

from hsmsign.audit import segments
from hsmsign.audit.auditing import Audit
from hsmsign.daemon.worker_config import WorkerConfig
from hsmsign.devices.base import Device
from hsmsign.model.device import DeviceState
from hsmsign.model.errors import AuditUnavailableError
from hsmsign.signing.places import Places
from hsmsign.web import monitoring
from hsmsign.web.metrics import Certificates, Devices, Metered, Metrics, Process
from hsmsign.web.server import WebServer


def open_web(
    sock: socket.socket,
    config: WorkerConfig,
    *,
    audit: Audit,
    devices: Mapping[str, Device],
    active: Callable[[], int],
    waiting: Callable[[], int],
    stopping: Callable[[], bool],
    places: Places,
) -> tuple[Audit, WebServer]:
    """The audit whose records are counted, and the server."""

    def note() -> bytes | None:
        return segments.newest(config.audit.folder) if config.audit_socket is not None else None

    def failing() -> dict[str, str]:
        wrong = {"daemon": "it is stopping"} if stopping() else {}
        try:
            audit.ready()
        except AuditUnavailableError as error:
            wrong["audit"] = error.message
        health = devices[config.default_backend].health()
        if health.state is not DeviceState.READY:
            wrong[f"backends/{config.default_backend}"] = health.message or health.state.value
        elif places.broken_off(config.default_backend):
            wrong[f"backends/{config.default_backend}"] = "it keeps failing"
        return wrong

    metrics = Metrics()
    metrics.add(Devices(devices, places.broken_off, places.moved))
    metrics.add(Process(version("hsmsign"), active, waiting, note))
    metrics.add(Certificates(lambda: _certificates(config)))
    return Metered(audit, metrics), WebServer(sock, monitoring.monitoring(metrics, failing), monitoring.CONNECTIONS)


def _certificates(config: WorkerConfig) -> Iterator[tuple[str, x509.Certificate]]:
    """The server's own, and the first of those that sign callers'."""
    if config.tls is None or not config.listen:
        return
    for name, path in (("server", config.tls.certificate), ("client_ca", config.tls.client_ca)):
        try:
            yield name, x509.load_pem_x509_certificate(path.read_bytes())
        except (OSError, ValueError):  # it is being written: the log says what is wrong with it if it stays so
            continue

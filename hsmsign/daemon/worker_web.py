"""Puts a worker's metrics and its health on the HTTP port."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509

from hsmsign.audit import segments
from hsmsign.audit.auditing import Audit
from hsmsign.daemon.worker_config import WorkerConfig
from hsmsign.devices.base import Device
from hsmsign.model.device import DeviceState
from hsmsign.model.errors import AuditUnavailableError
from hsmsign.signing.places import Places
from hsmsign.web import monitoring
from hsmsign.web.metrics import Certificates, Crls, Devices, Metered, Metrics, Process
from hsmsign.web.server import WebServer
from hsmsign.web.siblings import Siblings

if TYPE_CHECKING:
    from hsmsign.pki.office import Office


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
    office: Callable[[], Office | None],
    private: Path,
) -> tuple[Audit, WebServer, Siblings]:
    """The audit whose records are counted, the server, and the way to the other workers' metrics, which goes over
    sockets in the folder `private`."""

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

    metrics = Metrics(str(config.number) if config.workers > 1 else "")
    metrics.add(Devices(devices, places.broken_off, places.moved))
    metrics.add(Process(version("hsmsign"), active, waiting, note))
    metrics.add(Certificates(lambda: (*_certificates(config), *_authorities(office()))))
    metrics.add(Crls(lambda: found.publisher.next_updates if (found := office()) is not None else {}))
    siblings = Siblings(private, config.number, config.workers, metrics.text)
    server = WebServer(sock, monitoring.monitoring(siblings.text, failing), monitoring.CONNECTIONS)
    return Metered(audit, metrics), server, siblings


def _authorities(office: Office | None) -> Iterator[tuple[str, x509.Certificate]]:
    """Those of the certificate authorities, by their versions' names."""
    for one in office.directory.known() if office is not None else ():
        if one.maybe_certificate is not None:
            yield one.name, one.maybe_certificate


def _certificates(config: WorkerConfig) -> Iterator[tuple[str, x509.Certificate]]:
    """The server's own, and the first of those that sign callers'."""
    if config.tls is None or not config.listen:
        return
    for name, path in (("server", config.tls.certificate), ("client_ca", config.tls.client_ca)):
        try:
            yield name, x509.load_pem_x509_certificate(path.read_bytes())
        except (OSError, ValueError):  # it is being written: the log says what is wrong with it if it stays so
            continue

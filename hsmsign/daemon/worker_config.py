"""What a front worker is told: a plain value, so that it needs no configuration library and sees no PIN source."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hsmsign.model.limits import Limits
from hsmsign.model.tls import TlsPaths
from hsmsign.policy import RuleSet


@dataclass(frozen=True, slots=True)
class HostAddress:
    """Where a backend's device host listens."""

    name: str
    kind: str
    socket: Path


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """Everything a worker is made from; paths are absolute."""

    store_url: str
    run_dir: Path
    hosts: tuple[HostAddress, ...]
    default_backend: str
    listen: str
    """"host:port" with the real port, or empty: no TCP."""
    tls: TlsPaths | None
    policy: RuleSet
    limits: Limits = field(default_factory=Limits)
    drain_seconds: float = 10.0
    max_unix_connections: int = 1024
    mend: bool = True
    """Whether what an earlier crash left half made is mended; not while another worker is still making keys."""
    log_level: str = "info"
    log_format: str = "auto"

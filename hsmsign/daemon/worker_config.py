"""What a front worker is told: a plain value, so that it needs no configuration library and sees no PIN source."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path

from hsmsign.model.limits import Limits
from hsmsign.model.tls import TlsPaths
from hsmsign.pki.settings import PkiConfig
from hsmsign.policy import RuleSet


@dataclass(frozen=True, slots=True)
class HostAddress:
    """Where a backend's device host listens."""

    name: str
    kind: str
    socket: Path


class Durability(enum.Enum):
    """When an answer leaves. The value is the word in hsmsign.toml."""

    STRICT = "strict"
    """When its record is on the disk."""
    RELAXED = "relaxed"
    """At once: the record is on the disk about a second later."""
    OFF = "off"
    """Nothing is recorded."""


@dataclass(frozen=True, slots=True)
class AuditConfig:
    """The audit log."""

    folder: Path
    origin: str
    """Its name, in checkpoints."""
    durability: Durability
    checkpoint_seconds: float
    """0: no checkpoints."""
    key: str
    """The id of the key that signs them."""


@dataclass(frozen=True, slots=True)
class TracingConfig:
    """Where traces go."""

    endpoint: str
    """http:// or https://, host and port, of an OpenTelemetry collector (OTLP over gRPC)."""
    sample: float
    """The part of the calls that is traced, of those that belong to no trace of their caller's."""
    ca: Path | None = None
    """What an https:// endpoint is checked with; None: the roots that gRPC brings."""


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
    audit: AuditConfig
    audit_socket: Path | None = None
    """Where the auditor listens."""
    limits: Limits = field(default_factory=Limits)
    drain_seconds: float = 10.0
    max_unix_connections: int = 1024
    workers: int = 1
    """How many there are of this configuration."""
    number: int = 0
    """Which of them this is. The first does what is to be done once."""
    generation: int = 0
    """Those of one configuration have the same, and later ones a higher one."""
    tracing: TracingConfig | None = None
    pki: PkiConfig | None = None
    """None: there is no certificate authority."""
    enroll_tls: TlsPaths | None = None
    """The daemon's certificate, for who gets one over HTTPS."""
    log_level: str = "info"
    log_format: str = "auto"

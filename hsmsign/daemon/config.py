"""The configuration as plain values. What reads and checks hsmsign.toml is hsmsign.daemon.read_config."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from hsmsign.backends.base import BackendConfig
from hsmsign.daemon.worker_config import AuditConfig, HostAddress, TracingConfig, WorkerConfig
from hsmsign.model.errors import ConfigurationError
from hsmsign.model.hostwire import error_from_json, from_json
from hsmsign.model.limits import Limits
from hsmsign.model.tls import TlsPaths
from hsmsign.pki.settings import PkiConfig
from hsmsign.policy import RuleSet


@dataclass(frozen=True, slots=True)
class Config:
    """A checked configuration."""

    listen: tuple[str, int] | None
    metrics: tuple[str, int] | None
    """Where metrics and health are told over HTTP."""
    web: tuple[str, int] | None
    """Where relying parties find CRLs, OCSP and the authorities' certificates."""
    enroll: tuple[str, int] | None
    """Where who has an identity token gets a certificate over HTTPS."""
    pki: PkiConfig | None
    unix_socket: Path | None
    unix_group: str
    tls: TlsPaths
    workers: int
    """Front workers."""
    policy: RuleSet
    limits: Limits
    audit: AuditConfig
    tracing: TracingConfig | None
    store_url: str
    state_dir: Path
    run_dir: Path
    drain_seconds: float
    heartbeat_seconds: float
    log_level: str
    log_format: str
    backends: tuple[BackendConfig, ...]
    default_backend: str

    def for_worker(self, endpoint: str, hosts: tuple[HostAddress, ...], audit_socket: Path | None) -> WorkerConfig:
        """What a worker is told: nothing of PINs and modules."""
        return WorkerConfig(
            store_url=self.store_url,
            run_dir=self.run_dir,
            hosts=hosts,
            default_backend=self.default_backend,
            listen=endpoint,
            tls=self.tls if self.listen is not None else None,
            policy=self.policy,
            audit=self.audit,
            audit_socket=audit_socket,
            limits=replace(self.limits, max_in_flight=self.limits.max_in_flight // self.workers),
            workers=self.workers,
            drain_seconds=self.drain_seconds,
            tracing=self.tracing,
            pki=self.pki,
            enroll_tls=self.tls if self.enroll is not None else None,
            log_level=self.log_level,
            log_format=self.log_format,
        )


def load(path: Path) -> Config:
    """Read a configuration file, in a process of its own: what it takes to check a file (pydantic) would stay in the
    memory of a supervisor that needs it for a moment.

    Raises ConfigurationError with everything that is wrong with the file.
    """
    done = subprocess.run(
        [sys.executable, "-P", "-m", "hsmsign.daemon.read_config", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise ConfigurationError(f"cannot check {path}: {done.stderr.strip()[-500:]}") from None
    if "error" in answer:
        raise error_from_json(answer["error"])
    config: Config = from_json(Config, answer["ok"])
    return config


def restart_needed(what: str) -> ConfigurationError:
    """The error of a reload that changes what only a restart can."""
    return ConfigurationError(f"{what} changed, which a reload cannot do", hint="restart the daemon")

"""The files that a front worker needs. It runs as the user who may read the PIN, and must not be able to."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hsmsign
from hsmsign.daemon.worker_config import WorkerConfig

_SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc", "/proc", "/sys", "/dev", "/run/systemd", "/nix/store")
_SQLITE = "sqlite:///"


def readable(config: WorkerConfig) -> Iterator[Path]:
    """Python, its libraries, the system's, and the certificates."""
    yield from map(Path, _SYSTEM)
    yield from (Path(prefix) for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix))
    yield from (Path(entry) for entry in sys.path if entry)
    yield Path(hsmsign.__file__).parent
    for tls in (config.tls, config.enroll_tls):
        if tls is None:
            continue
        # their folders: what is renewed is another file
        yield from (path.parent for path in (tls.certificate, tls.key, tls.client_ca, tls.client_crl) if path)
    if config.tracing is not None and config.tracing.ca is not None:
        yield config.tracing.ca.parent
    for issuer in config.pki.identity if config.pki is not None else ():
        yield from (path.parent for path in (issuer.jwks_file, issuer.jwks_ca) if path)
    yield config.audit.folder  # to read: the auditor alone writes it
    if not config.store_url.startswith(_SQLITE):
        yield from _of_postgresql()


def writable(config: WorkerConfig) -> Iterator[Path]:
    """The database and the sockets."""
    yield config.run_dir
    yield Path("/dev/null")
    if config.store_url.startswith(_SQLITE):
        yield Path(config.store_url.removeprefix(_SQLITE)).parent


def _of_postgresql() -> Iterator[Path]:
    """Where libpq looks for passwords and certificates; others are best put below /etc."""
    home = Path.home()
    yield from (home / ".postgresql", home / ".pgpass", home / ".pg_service.conf")
    for name in ("PGPASSFILE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY", "PGSERVICEFILE"):
        if name in os.environ:
            yield Path(os.environ[name])

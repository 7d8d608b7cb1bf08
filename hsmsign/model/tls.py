"""Where the daemon's side of mutual TLS is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TlsPaths:
    """PEM files of the daemon's side of mutual TLS."""

    certificate: Path
    key: Path
    client_ca: Path
    client_crl: Path | None = None
    """CRLs of the client CAs; None: certificates are not checked for revocation."""
    tls12: bool = False
    """Whether TLS 1.2 will do."""

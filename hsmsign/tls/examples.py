"""What to put where, for programs that use keys on devices: `hsmsign provider conf`."""

from __future__ import annotations

from pathlib import Path

from hsmsign.tls import module


def text(program: str) -> str:
    """The example for "openssl", "nginx", "haproxy" or "curl", with this machine's files. Raises
    CapabilityMissingError where there is no module, ConfigurationError where there is no openssl."""
    template = Path(__file__).with_name(f"{program}.in").read_text(encoding="utf-8")
    system = module.home() / "openssl.cnf"
    include = f".include {system}" if system.is_file() else "# .include /etc/ssl/openssl.cnf"
    return template.replace("@MODULE@", str(module.in_use())).replace("@INCLUDE@", include)

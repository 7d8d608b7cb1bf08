"""What `hsmsign doctor` looks at. Each finding says how it is and, where it is not well, what to do."""

from __future__ import annotations

import datetime as dt
import importlib.util
import json
import os
import platform
import shutil
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cryptography import x509

from hsmsign.backends.base import BackendConfig
from hsmsign.backends.pin import read_pin
from hsmsign.client.client import Client
from hsmsign.daemon.config import Config
from hsmsign.daemon.read_config import read
from hsmsign.model.errors import HsmsignError

_PACKAGES = ("grpcio", "cryptography", "python-pkcs11", "SQLAlchemy", "protobuf")
_EPOCH = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
_SOON = dt.timedelta(days=30)
_LOOK_AT_TOKEN = """
import json, sys
from pathlib import Path
import pkcs11
from hsmsign.backends import native
module, conf = sys.argv[1], sys.argv[2]
native.open_module(Path(module))
library = pkcs11.lib(native.module_path())
tokens = []
for slot in library.get_slots(token_present=True):
    try:
        token = slot.get_token()
        flags = [flag.name for flag in pkcs11.TokenFlag if flag in token.flags]
        tokens.append({"label": token.label, "serial": token.serial.decode("ascii", "replace"), "flags": flags})
    except pkcs11.PKCS11Error:
        continue
print(json.dumps({"library": f"{library.manufacturer_id} {library.library_description}".strip(), "tokens": tokens}))
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at; `level` is "ok", "warn" or "fail"."""

    level: str
    subject: str
    said: str
    advice: str = ""


def check_machine() -> list[Finding]:
    """Versions and the clock."""
    versions = [f"Python {platform.python_version()}", ssl.OPENSSL_VERSION]
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"{package} is not installed")
    now = dt.datetime.now(dt.UTC)
    if now < _EPOCH:
        clock = Finding("fail", "clock", f"it says {now:%Y-%m-%d}", "set it: certificates seem not yet valid")
    else:
        clock = Finding("ok", "clock", f"{now:%Y-%m-%d %H:%M:%S} UTC")
    return [Finding("ok", "versions", ", ".join(versions)), clock]


def check_setup(path: Path) -> list[Finding]:
    """A configuration and all that it names."""
    try:
        config = read(path)
    except HsmsignError as error:
        return [Finding("fail", "configuration", error.message, error.hint)]
    findings = [Finding("ok", "configuration", f"{path} is in order")]
    findings += _permissions(path, config)
    findings += _certificates(config)
    for backend in config.backends:
        findings += _tpm(backend) if backend.tpm is not None else _module_and_token(backend)
        findings += _secrets(backend)
    return findings


def _permissions(path: Path, config: Config) -> list[Finding]:
    findings = []
    for what, secret in ((path.absolute().parent, False), (config.state_dir, False), (config.tls.key, True)):
        try:
            mode = what.stat().st_mode
        except FileNotFoundError:
            if secret and config.listen is not None:
                findings.append(Finding("fail", str(what), "is not there", "run hsmsign init, or see [server.tls]"))
            continue
        wrong = mode & (stat.S_IRWXG | stat.S_IRWXO if secret else stat.S_IWGRP | stat.S_IWOTH)
        said = f"mode {stat.S_IMODE(mode):04o}"
        advice = f"chmod {'600' if secret else 'go-w'} {what}" if wrong else ""
        findings.append(Finding("fail" if wrong else "ok", str(what), said, advice))
    return findings


def _certificates(config: Config) -> list[Finding]:
    if config.listen is None:
        return []
    findings = []
    now = dt.datetime.now(dt.UTC)
    for path in (config.tls.certificate, config.tls.client_ca):
        try:
            end = min(one.not_valid_after_utc for one in x509.load_pem_x509_certificates(path.read_bytes()))
        except (OSError, ValueError) as error:
            findings.append(Finding("fail", str(path), f"cannot be read: {error}", "see [server.tls]"))
            continue
        level = "fail" if end < now else "warn" if end < now + _SOON else "ok"
        advice = "" if level == "ok" else "issue a new one, put it in its place, and reload the daemon (SIGHUP)"
        findings.append(Finding(level, str(path), f"valid until {end:%Y-%m-%d}", advice))
    return findings


def _module_and_token(backend: BackendConfig) -> list[Finding]:
    """In a process of its own: a vendor's library may crash, and has no business in this one."""
    subject = f"backend {backend.name}"
    if not backend.module.exists():
        return [
            Finding("fail", subject, f"no module {backend.module}", "correct module =, or install it (softhsm2, …)")
        ]
    code = _LOOK_AT_TOKEN
    if backend.kind == "softhsm" and backend.token_dir is not None:
        if not backend.token_dir.is_dir():
            return [Finding("fail", subject, f"no token folder {backend.token_dir}", "run hsmsign init")]
        conf = "from hsmsign.backends.softhsm import Shelf\nShelf(Path(sys.argv[2])).prepare()\n"
        code = code.replace("native.open_module", conf + "native.open_module")
    command = [sys.executable, "-c", code, str(backend.module), str(backend.token_dir or "")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except subprocess.TimeoutExpired:
        return [Finding("fail", subject, "the module hangs", "see its vendor's documentation")]
    if done.returncode != 0:
        last = done.stderr.strip().rpartition("\n")[2] or f"it ended with {done.returncode}"
        return [Finding("fail", subject, f"{backend.module} cannot be used: {last}", "is it a PKCS #11 module?")]
    seen = json.loads(done.stdout)
    findings = [Finding("ok", subject, f"module {backend.module} loads ({seen['library']})")]
    mine = [
        token
        for token in seen["tokens"]
        if backend.token_label in (None, token["label"]) and backend.token_serial in (None, token["serial"])
    ]
    if len(mine) != 1:
        labels = ", ".join(repr(token["label"]) for token in seen["tokens"]) or "none"
        said = f"{len(mine)} tokens fit token_label and token_serial; there are: {labels}"
        return [*findings, Finding("fail", subject, said, "is it plugged in? correct token_label, token_serial")]
    flags = {"USER_PIN_LOCKED", "USER_PIN_FINAL_TRY", "USER_PIN_COUNT_LOW"} & set(mine[0]["flags"])
    advice = "unlock it with the SO PIN, or log in with the right PIN by the vendor's tool" if flags else ""
    said = f"token {mine[0]['label']!r} (serial {mine[0]['serial']}) {' '.join(sorted(flags)) or 'is there'}"
    return [*findings, Finding("fail" if flags else "ok", subject, said, advice)]


def _tpm(backend: BackendConfig) -> list[Finding]:
    """Not opened: a TPM without a resource manager has one user at a time, which may be the daemon."""
    subject = f"backend {backend.name}"
    assert backend.tpm is not None  # noqa: S101 - said by the caller
    if importlib.util.find_spec("tpm2_pytss") is None:
        advice = "apt-get install libtss2-dev, then pip install 'hsmsign[server,tpm]'"
        return [Finding("fail", subject, "the TPM software (tpm2-pytss) is not installed", advice)]
    if backend.tpm.simulator is not None:
        if shutil.which("swtpm") is None or not backend.tpm.simulator.is_dir():
            said = f"no swtpm, or no state folder {backend.tpm.simulator}"
            return [Finding("fail", subject, said, "apt-get install swtpm swtpm-tools; hsmsign init --simulator")]
        return [Finding("warn", subject, "the TPM is simulated: its keys are as safe as a file", "not for production")]
    kind, _, where = backend.tpm.tcti.partition(":")
    if kind == "device" and where and not os.access(where, os.R_OK | os.W_OK):
        advice = "load the kernel's driver; add the daemon's user to the device's group (tss)"
        return [Finding("fail", subject, f"{where} cannot be used", advice)]
    return [Finding("ok", subject, f"TPM through {backend.tpm.tcti} (it was not opened)")]


def _secrets(backend: BackendConfig) -> list[Finding]:
    findings = []
    for source in backend.secrets:
        what = f"{'secret' if backend.tpm is not None else 'PIN'} of {backend.name}"
        try:
            read_pin(source)
        except HsmsignError as error:
            findings.append(Finding("fail", what, error.message, error.hint))
        else:
            findings.append(Finding("ok", what, "its source can be read (it was not tried)"))
    return findings


def check_daemon(client: Callable[[], Client]) -> list[Finding]:
    """The daemon that client.toml names, and its backends."""
    try:
        backends = client().backends()
    except HsmsignError as error:
        return [Finding("warn", "daemon", error.message, error.hint)]
    findings = [Finding("ok", "daemon", "it answers")]
    for backend in backends:
        level = "ok" if backend.state == "ready" else "fail"
        findings.append(Finding(level, f"daemon's {backend.name}", backend.message or backend.state, backend.hint))
    return findings

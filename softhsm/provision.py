"""Provisions a SoftHSM token in a folder of its own, in a second, with PINs that nobody has to invent.

folder/            0700
  tokens/          0700   SoftHSM's files
  softhsm2.conf    0600   from softhsm2.conf.in
  pin, so-pin      0600   random
  hsmsign-token    0600   the mark: this folder was made here; label and serial
"""

from __future__ import annotations

import json
import os
import secrets
import string
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsmsign.model.errors import ConfigurationError, DeviceError

_PLACES = (
    "/usr/lib/softhsm/libsofthsm2.so",  # Debian, Ubuntu
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",  # Fedora, RHEL
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib64/libsofthsm2.so",
    "/usr/lib/pkcs11/libsofthsm2.so",  # Arch
    "/usr/local/lib/softhsm/libsofthsm2.so",  # built from source
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)
_MARK = "hsmsign-token"
_PIN_LENGTH = 24
_ALPHABET = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class Provisioned:
    """A token that is there and can be used. The PINs are in the files, not here."""

    conf: Path
    token_dir: Path
    label: str
    serial: str
    pin_file: Path
    so_pin_file: Path
    created: bool
    """False where it had been made before."""


def find_module() -> Path:
    """Where SoftHSM's PKCS #11 module is on this machine. Raises ConfigurationError where it is not."""
    for place in _PLACES:
        path = Path(place)
        if path.exists():
            return path
    raise ConfigurationError(
        "SoftHSM's module libsofthsm2.so is in none of the usual places",
        hint="apt-get install softhsm2 (Debian, Ubuntu) or dnf install softhsm (Fedora); or name it: module = /path",
    )


def provision(folder: Path, label: str, module: Path) -> Provisioned:
    """Make sure that `folder` holds a token with this label; making it again changes nothing.

    Raises ConfigurationError where the folder holds something that was not made here: it is not touched.
    """
    folder = folder.absolute()
    _check_label(label)
    result = _layout(folder, label)
    mark = _read_mark(folder / _MARK)
    if mark is None:
        _refuse_foreign(folder, result.token_dir)
        _prepare(folder, result)
    elif mark["label"] != label:
        raise ConfigurationError(
            f"{folder} holds the token {mark['label']!r}, not {label!r}",
            hint="take another folder, or the label that is there",
        )
    _write(result.conf, conf_text(result.token_dir))
    answer = _initialise(result, module)
    if mark is not None and mark["serial"] not in ("", answer["serial"]):
        raise ConfigurationError(
            f"the token {label!r} in {folder} is not the one that was made there (serial {answer['serial']})",
            hint="somebody replaced it; move the folder away and provision anew, or name it as a foreign token",
        )
    _write(folder / _MARK, json.dumps({"label": label, "serial": answer["serial"]}) + "\n")
    return Provisioned(
        conf=result.conf,
        token_dir=result.token_dir,
        label=label,
        serial=answer["serial"],
        pin_file=result.pin_file,
        so_pin_file=result.so_pin_file,
        created=answer["created"],
    )


def conf_text(token_dir: Path) -> str:
    """The configuration of SoftHSM for `token_dir`, from softhsm2.conf.in."""
    if "\n" in str(token_dir):
        raise ConfigurationError("the token folder's path has a line break, which softhsm2.conf cannot hold")
    template = Path(__file__).with_name("softhsm2.conf.in").read_text(encoding="utf-8")
    return template.replace("@TOKEN_DIR@", str(token_dir))


def _layout(folder: Path, label: str) -> Provisioned:
    return Provisioned(
        conf=folder / "softhsm2.conf",
        token_dir=folder / "tokens",
        label=label,
        serial="",
        pin_file=folder / "pin",
        so_pin_file=folder / "so-pin",
        created=False,
    )


def _check_label(label: str) -> None:
    if not label or label != label.strip() or len(label.encode()) > 32 or not label.isprintable():
        raise ConfigurationError(
            f"{label!r} is no token label", hint="1 to 32 bytes of UTF-8, printable, no space at either end"
        )


def _read_mark(path: Path) -> dict[str, str] | None:
    try:
        mark = json.loads(path.read_text(encoding="utf-8"))
        return {"label": str(mark["label"]), "serial": str(mark["serial"])}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise ConfigurationError(f"{path} is not what was written there", hint="move the folder away") from None


def _refuse_foreign(folder: Path, token_dir: Path) -> None:
    if folder.is_dir() and ((token_dir.is_dir() and any(token_dir.iterdir())) or (folder / "softhsm2.conf").exists()):
        raise ConfigurationError(
            f"{folder} holds a token or a SoftHSM configuration that was not made here; nothing was changed",
            hint="take an empty folder; or use the token that is there: token_dir, token_label and a pin",
        )


def _prepare(folder: Path, result: Provisioned) -> None:
    """The folder, the PINs, then the mark; so that whoever is interrupted can go on where it was."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    result.token_dir.mkdir(mode=0o700, exist_ok=True)
    for secret in (result.pin_file, result.so_pin_file):
        if not secret.exists():
            _write(secret, "".join(secrets.choice(_ALPHABET) for _ in range(_PIN_LENGTH)) + "\n")
    _write(folder / _MARK, json.dumps({"label": result.label, "serial": ""}) + "\n")


def _initialise(result: Provisioned, module: Path) -> dict[str, Any]:
    """Run initialise.py in a process of its own, the PINs over its stdin."""
    request = {
        "module": str(module),
        "label": result.label,
        "pin": _secret(result.pin_file),
        "so_pin": _secret(result.so_pin_file),
    }
    child = subprocess.run(
        [sys.executable, "-I", str(Path(__file__).with_name("initialise.py"))],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        env={"SOFTHSM2_CONF": str(result.conf), "LC_ALL": "C.UTF-8"},
        timeout=60,
        check=False,
    )
    try:
        answer: dict[str, Any] = json.loads(child.stdout)
    except ValueError:
        answer = {"error": f"its process ended with {child.returncode}: {child.stderr.strip()[-200:]}", "ckr": 0}
    if "error" in answer:
        ckr = f"0x{answer['ckr']:x}" if answer.get("ckr") else ""
        raise DeviceError(
            f"the token {result.label!r} cannot be made with {module}: {answer['error']} {ckr}".rstrip(),
            hint=f"is {module} SoftHSM's module, and may uid {os.geteuid()} write to {result.token_dir}?",
            metadata={"ckr": ckr} if ckr else {},
        )
    return answer


def _secret(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").removesuffix("\n")
    except FileNotFoundError:
        raise ConfigurationError(f"{path} is gone: the token's PIN with it", hint="move the folder away") from None


def _write(path: Path, text: str) -> None:
    """Write a file of mode 0600 in one step: it is there whole, or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - opened above, with its mode
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)

"""`hsmsign init`: a folder with everything that a daemon needs. What is there already is left as it is."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hsmsign.daemon import bootstrap_tls, simulated_tpm
from hsmsign.model.errors import ConfigurationError
from hsmsign.softhsm.provision import find_module, provision


@dataclass(frozen=True, slots=True)
class Plan:
    """What to set up."""

    folder: Path
    kind: str = "softhsm"
    listen: str = "127.0.0.1:7443"
    module: Path | None = None
    token_label: str | None = None
    pin_file: Path | None = None
    tcti: str | None = None
    simulator: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """What is there now: the files by what they are for, and which of them are new."""

    config: Path
    client: Path
    made: tuple[str, ...]
    kept: tuple[str, ...]


def initialise(plan: Plan) -> Done:
    """Set up a folder. Raises ConfigurationError; then nothing is half made."""
    folder = plan.folder.absolute()
    _check(plan)
    _prepare(folder)
    made: list[str] = []
    kept: list[str] = []

    def note(what: str, new: bool) -> None:
        (made if new else kept).append(what)

    backend = _tpm(plan, folder, note) if plan.kind == "tpm2" else _token(plan, folder, note)
    note("tls/: a bootstrap CA, a server certificate, a client certificate", _certificates(plan, folder))
    note("policy.toml: you may do everything, nobody else anything", _write_new(folder / "policy.toml", _policy_text()))
    note("ca.toml: no authority yet, and no names for certificates", _write_new(folder / "ca.toml", _ca_text()))
    note("hsmsign.toml", _write_new(folder / "hsmsign.toml", _config_text(plan, backend)))
    note("client.toml", _write_new(folder / "client.toml", _client_text(plan, folder)))
    return Done(folder / "hsmsign.toml", folder / "client.toml", tuple(made), tuple(kept))


def _check(plan: Plan) -> None:
    host, colon, port = plan.listen.rpartition(":")
    if not host or not colon or not port.isdigit() or int(port) > 65535:
        raise ConfigurationError(f"{plan.listen!r} is no address to listen on", hint="say HOST:PORT")
    if plan.kind == "pkcs11" and None in (plan.module, plan.token_label, plan.pin_file):
        raise ConfigurationError(
            "a token that is there needs its module, its label and its PIN's file",
            hint="--backend pkcs11 --module /path/module.so --token-label LABEL --pin-file FILE",
        )
    if plan.kind == "tpm2" and (plan.tcti is None) != plan.simulator:
        raise ConfigurationError(
            "say which TPM: one that is there, or a simulated one",
            hint="--backend tpm2 --tcti device:/dev/tpmrm0, or --backend tpm2 --simulator",
        )


def _prepare(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = folder.stat().st_mode
    except OSError as error:
        raise ConfigurationError(f"cannot make the folder {folder}: {error.strerror}") from error
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(
            f"others may write to {folder}: they could swap its keys and configuration",
            hint=f"chmod go-w {folder}, or choose another folder",
        )


_TIMES = (
    "hang_after = 10                     # seconds in one signature after which the device host is replaced\n"
    "manage_timeout = 120                # the same for making and destroying keys"
)


def _token(plan: Plan, folder: Path, note: Callable[[str, bool], None]) -> str:
    """The backend's table for a PKCS #11 token, which is made where it is SoftHSM's."""
    if plan.kind == "pkcs11":
        module, pin_file = Path(plan.module or "").absolute(), str(Path(plan.pin_file or "").absolute())
        lines = f"token_label = {_quoted(plan.token_label)}"
    else:
        module = plan.module.absolute() if plan.module is not None else find_module()
        result = provision(folder / "softhsm", "hsmsign", module)
        note(f"softhsm/: a token with random PINs (serial {result.serial})", result.created)
        lines = f'token_label = "{result.label}"\ntoken_serial = "{result.serial}"\ntoken_dir = "softhsm/tokens"'
        pin_file = "softhsm/pin"
    return (
        f'[backends.{plan.kind}]\nkind = "{plan.kind}"\nmodule = {_quoted(module)}\n{lines}\n'
        f'pin = {{ file = {_quoted(pin_file)} }}   # or {{ env = "NAME" }} or {{ credential = "systemd-credential" }}\n'
        "sessions = 0                        # threads that sign, each with a session; 0: as many as processors\n"
        + _TIMES
    )


def _tpm(plan: Plan, folder: Path, note: Callable[[str, bool], None]) -> str:
    """The backend's table for a TPM, which is made where it is simulated."""
    where = f"tcti = {_quoted(plan.tcti)}"
    (folder / "tpm").mkdir(mode=0o700, exist_ok=True)
    if plan.simulator:
        where = 'simulator = "tpm/state"             # the device host starts swtpm on this folder'
        note("tpm/: a simulated TPM with an endorsement key and its certificate", simulated_tpm.make(folder / "tpm"))
    new = _write_new(folder / "tpm" / "key-auth", secrets.token_urlsafe(32) + "\n")
    note("tpm/key-auth: the secret behind the keys' authorizations", new)
    return (
        f'[backends.tpm]\nkind = "tpm2"\n{where}\n'
        'key_auth = { file = "tpm/key-auth" }  # keep it: without it no key of this TPM signs\n'
        '# owner_auth = { file = "…" }        # where the owner hierarchy has an authorization\n'
        'authorization = "hmac"              # or "password": faster, for a TPM that nobody listens to on its way\n'
        + _TIMES
    )


def _certificates(plan: Plan, folder: Path) -> bool:
    if (folder / "tls").exists():
        return False
    # made aside and put in place with one step: a crash leaves all of them or none
    aside = Path(tempfile.mkdtemp(prefix=".tls-", dir=folder))
    try:
        bootstrap_tls.make(aside, plan.listen.rpartition(":")[0].strip("[]"))
        aside.rename(folder / "tls")
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return True


def _write_new(path: Path, text: str) -> bool:
    if path.exists():
        return False
    handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(aside).rename(path)
    return True


def _config_text(plan: Plan, backend: str) -> str:
    text = Path(__file__).with_name("hsmsign.toml.in").read_text(encoding="utf-8")
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname()) or "localhost"
    origin = f"{host}/hsmsign-{secrets.token_hex(4)}"  # a name that no other log has
    return text.replace("@LISTEN@", plan.listen).replace("@ORIGIN@", origin).replace("@BACKEND@", backend)


def _policy_text() -> str:
    text = Path(__file__).with_name("policy.toml.in").read_text(encoding="utf-8")
    return text.replace("@CLIENT@", bootstrap_tls.client_id()).replace("@UID@", f"unix:{os.getuid()}")


def _ca_text() -> str:
    return Path(__file__).with_name("ca.toml.in").read_text(encoding="utf-8")


def _quoted(value: object) -> str:
    """A TOML basic string, which is written as a JSON string."""
    return json.dumps(str(value))


def _client_text(plan: Plan, folder: Path) -> str:
    host, _, port = plan.listen.rpartition(":")
    if port == "0":
        return f'# The port is chosen when the daemon starts; this socket stays.\nendpoint = "unix://{folder}/run/hsmsign.sock"\n'
    name = "localhost" if host in ("127.0.0.1", "0.0.0.0", "[::1]", "[::]") else host  # noqa: S104 - a name, not a bind
    return (
        "# How to reach the daemon; copy it and the files that it names to where callers are.\n"
        f'endpoint = "dns:///{name}:{port}"\n'
        'ca = "tls/ca.pem"\n'
        'certificate = "tls/client.pem"\n'
        'key = "tls/client-key.pem"\n'
    )

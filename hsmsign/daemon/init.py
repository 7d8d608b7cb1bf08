"""`hsmsign init`: a folder with everything that a daemon needs. What is there already is left as it is."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hsmsign.daemon import bootstrap_tls
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

    token = _token(plan, folder, note)
    note("tls/: a bootstrap CA, a server certificate, a client certificate", _certificates(plan, folder))
    note("hsmsign.toml", _write_new(folder / "hsmsign.toml", _config_text(plan, token)))
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


@dataclass(frozen=True, slots=True)
class _Token:
    module: Path
    lines: str
    pin_file: str


def _token(plan: Plan, folder: Path, note: object) -> _Token:
    if plan.kind == "pkcs11":
        label = json.dumps(plan.token_label)  # a TOML basic string is written as a JSON string
        module, pin_file = Path(plan.module or "").absolute(), Path(plan.pin_file or "").absolute()
        return _Token(module, f"token_label = {label}", str(pin_file))
    module = plan.module.absolute() if plan.module is not None else find_module()
    result = provision(folder / "softhsm", "hsmsign", module)
    note(f"softhsm/: a token with random PINs (serial {result.serial})", result.created)  # type: ignore[operator]
    lines = f'token_label = "{result.label}"\ntoken_serial = "{result.serial}"\ntoken_dir = "softhsm/tokens"'
    return _Token(module, lines, "softhsm/pin")


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


def _config_text(plan: Plan, token: _Token) -> str:
    text = Path(__file__).with_name("hsmsign.toml.in").read_text(encoding="utf-8")
    for mark, value in {
        "@LISTEN@": plan.listen,
        "@NAME@": plan.kind,
        "@KIND@": plan.kind,
        "@MODULE@": _inside_string(token.module),
        "@TOKEN@": token.lines,
        "@PIN_FILE@": _inside_string(token.pin_file),
    }.items():
        text = text.replace(mark, value)
    return text


def _inside_string(value: object) -> str:
    """Text as it stands between the quotes of a TOML basic string, which are those of JSON."""
    return json.dumps(str(value))[1:-1]


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

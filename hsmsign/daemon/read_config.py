"""Reads hsmsign.toml, checks it whole, and turns it into plain values with absolute paths.

    python -m hsmsign.daemon.read_config FILE

prints {"ok": Config} or {"error": ...} as JSON.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
import os
import sys
import tomllib
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from hsmsign.backends.base import BackendConfig, PinSource, Quirks, TpmConfig
from hsmsign.daemon import schema
from hsmsign.daemon.config import Config
from hsmsign.daemon.worker_config import AuditConfig, TracingConfig
from hsmsign.model.errors import ConfigurationError
from hsmsign.model.hostwire import error_to_json, to_json
from hsmsign.model.limits import Limits
from hsmsign.model.tls import TlsPaths
from hsmsign.pki.settings import PkiConfig
from hsmsign.policy import reading

_SQLITE = "sqlite:///"
_AUTO_MOST = 8
"""Workers that "auto" makes at most: each costs memory, also where nobody calls."""
_KINDS = frozenset({"softhsm", "pkcs11", "tpm2"})


def read(path: Path) -> Config:
    """Read a configuration file. Raises ConfigurationError with everything that is wrong with it."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {path}: {error.strerror}", hint="make one with: hsmsign init DIR"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from error
    try:
        file = schema.File.model_validate(values)
    except ValidationError as error:
        problems = [_explain(problem) for problem in error.errors()]
        raise ConfigurationError(f"{path}: " + "; ".join(problems), hint="see docs/configuration.md") from None
    return _resolve(file, path.absolute().parent)


def _explain(problem: Any) -> str:
    """One problem in words, with the nearest known name for a key that is unknown."""
    # pydantic puts the kind that decides between tables into the place, where the file has no such level
    location = tuple(part for at, part in enumerate(problem["loc"]) if not (at == 2 and part in _KINDS))
    place = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        known = _known_keys(location[:-1], next((part for part in problem["loc"] if part in _KINDS), ""))
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        return f"unknown key {place!r}" + (f" (did you mean {near[0]!r}?)" if near else "")
    message = str(problem["msg"]).removeprefix("Value error, ")
    # the value itself is not shown: it may be a PIN in the wrong place
    return f"{place}: {message}" if place else message


def _known_keys(location: tuple[int | str, ...], kind: str) -> list[str]:
    table: type[BaseModel] = schema.File
    for part in location:
        if table is schema.File and part == "backends":
            table = schema.Tpm2Table if kind == "tpm2" else schema.BackendTable
        elif str(part) in table.model_fields:
            annotation = table.model_fields[str(part)].annotation
            candidates = [annotation, *get_args(annotation)]
            table = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), table)
    return list(table.model_fields)


def _resolve(file: schema.File, base: Path) -> Config:
    server = file.server
    listen = _address(server.listen, "server.listen")
    if listen is None and not server.unix_socket:
        raise ConfigurationError("the daemon listens nowhere", hint="set server.listen, server.unix_socket or both")
    backends = tuple(_backend(name, table, base) for name, table in file.backends.items())
    chosen = [name for name, table in file.backends.items() if table.default] or [backends[0].name]
    return Config(
        listen=listen,
        metrics=_address(file.metrics.listen, "metrics.listen"),
        web=_of_ca(file, file.web.listen, "web.listen"),
        enroll=_of_ca(file, file.enroll.listen, "enroll.listen"),
        pki=_pki(file, base),
        unix_socket=base / server.unix_socket if server.unix_socket else None,
        unix_group=server.unix_group,
        tls=_tls(server.tls, base),
        workers=_workers(file),
        policy=reading.read(base / file.policy.file),
        limits=Limits(**server.limits.model_dump()),
        audit=_audit(file, base),
        tracing=_tracing(file.tracing, base),
        store_url=_store_url(file.store.url, base),
        state_dir=base / file.daemon.state_dir,
        run_dir=base / file.daemon.run_dir,
        drain_seconds=file.daemon.drain_seconds,
        heartbeat_seconds=file.daemon.heartbeat_seconds,
        log_level=file.log.level,
        log_format=file.log.format,
        backends=backends,
        default_backend=chosen[0],
    )


def _workers(file: schema.File) -> int:
    """How many. "auto" leaves processors to others: SoftHSM and a simulated TPM sign with ours, which takes as long as
    what a worker does for it; other devices want a little of one."""
    said = file.server.workers
    workers = _as_fit(file) if said == "auto" else said
    if file.server.limits.max_in_flight < workers:
        raise ConfigurationError(
            f"server.limits.max_in_flight is {file.server.limits.max_in_flight}, too little for {workers} workers",
            hint="each of them gets its part of it: say at least as many as server.workers",
        )
    return workers


def _as_fit(file: schema.File) -> int:
    cores = len(os.sched_getaffinity(0))
    computing = any(one.kind == "softhsm" or _is_simulated(one) for one in file.backends.values())
    return max(1, min(_AUTO_MOST, cores // 2 if computing else cores - 1))


def _is_simulated(backend: schema.AnyBackend) -> bool:
    return isinstance(backend, schema.Tpm2Table) and backend.simulator is not None


def _address(text: str, key: str) -> tuple[str, int] | None:
    """Host and port, or None for nothing."""
    if not text:
        return None
    host, _, port = text.rpartition(":")
    if int(port) > 65535:
        raise ConfigurationError(f"{key}: there is no port {port}", hint="at most 65535")
    return host.strip("[]"), int(port)


def _pki(file: schema.File, base: Path) -> PkiConfig | None:
    if not file.ca.file:
        return None
    from hsmsign.pki import reading as pki  # not small, and not everybody has a CA

    return pki.read(base / file.ca.file)


def _of_ca(file: schema.File, text: str, key: str) -> tuple[str, int] | None:
    """An address that makes sense only where there is a certificate authority."""
    if text and not file.ca.file:
        raise ConfigurationError(f"{key} is for a certificate authority, and there is none", hint="say ca.file")
    return _address(text, key)


def _audit(file: schema.File, base: Path) -> AuditConfig:
    """The log lies where a worker cannot write: not where the sockets and the database are."""
    folder = (base / file.audit.folder).resolve()
    store = _store_url(file.store.url, base)
    workers = [base / file.daemon.run_dir]
    if store.startswith(_SQLITE):
        workers.append(Path(store.removeprefix(_SQLITE)).parent)
    for place in workers:
        if folder.is_relative_to(place.resolve()):
            raise ConfigurationError(
                f"audit.folder lies in {place}, where workers write: one that was taken over could change the log",
                hint="give it a folder of its own",
            )
    return AuditConfig(**{**file.audit.model_dump(), "folder": base / file.audit.folder})


def _tracing(tracing: schema.TracingTable, base: Path) -> TracingConfig | None:
    if not tracing.endpoint:
        return None
    try:
        found = importlib.util.find_spec("opentelemetry.exporter.otlp.proto.grpc")
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise ConfigurationError(
            "tracing.endpoint is set, and what sends traces is not installed", hint="pip install 'hsmsign[tracing]'"
        )
    return TracingConfig(tracing.endpoint, tracing.sample, base / tracing.ca if tracing.ca is not None else None)


def _tls(tls: schema.Tls, base: Path) -> TlsPaths:
    return TlsPaths(
        certificate=base / tls.certificate,
        key=base / tls.key,
        client_ca=base / tls.client_ca,
        client_crl=base / tls.client_crl if tls.client_crl is not None else None,
        tls12=tls.min_version == "1.2",
    )


def _store_url(url: str, base: Path) -> str:
    path = url.removeprefix(_SQLITE)
    if path == url or path.startswith("/"):
        return url
    return f"{_SQLITE}{base / path}"


def _source(pin: schema.Pin, base: Path) -> PinSource:
    return PinSource(base / pin.file if pin.file is not None else None, pin.env, pin.credential)


def _tpm(name: str, table: schema.Tpm2Table, base: Path) -> BackendConfig:
    tpm = TpmConfig(
        key_auth=_source(table.key_auth, base),
        tcti=table.tcti,
        simulator=base / table.simulator if table.simulator is not None else None,
        owner_auth=_source(table.owner_auth, base) if table.owner_auth is not None else None,
        storage_key=table.storage_key,
        authorization=table.authorization,
    )
    return BackendConfig(
        name=name, kind=table.kind, hang_after=table.hang_after, manage_timeout=table.manage_timeout, tpm=tpm
    )


def _backend(name: str, table: schema.BackendTable | schema.Tpm2Table, base: Path) -> BackendConfig:
    if isinstance(table, schema.Tpm2Table):
        return _tpm(name, table, base)
    source = _source(table.pin, base) if table.pin is not None else None
    return BackendConfig(
        name=name,
        kind=table.kind,
        module=base / table.module,
        token_label=table.token_label,
        token_serial=table.token_serial,
        pin=source,
        sessions=table.sessions,
        hang_after=table.hang_after,
        manage_timeout=table.manage_timeout,
        quirks=Quirks(**table.quirks.model_dump()),
        token_dir=base / table.token_dir if table.token_dir is not None else None,
    )


if __name__ == "__main__":
    try:
        print(json.dumps({"ok": to_json(read(Path(sys.argv[1])))}))
    except ConfigurationError as error:
        print(json.dumps({"error": error_to_json(error)}))

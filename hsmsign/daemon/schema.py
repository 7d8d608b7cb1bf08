"""The form of hsmsign.toml, for pydantic to check. What comes out of it is hsmsign.daemon.config.Config."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from hsmsign.daemon.worker_config import Durability

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Bytes = Annotated[int, Field(ge=1, le=64 << 20)]
MOST_WORKERS = 16
Address = Annotated[str, StringConstraints(pattern=r"^$|^.+:[0-9]{1,5}$")]
"""HOST:PORT, or nothing."""
BackendName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$")]


class Table(BaseModel):
    """A table of the file: what it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Tls(Table):
    """[server.tls]"""

    certificate: Path = Path("tls/server.pem")
    key: Path = Path("tls/server-key.pem")
    client_ca: Path = Path("tls/client-ca.pem")
    client_crl: Path | None = None
    min_version: Literal["1.2", "1.3"] = "1.3"


class LimitsTable(Table):
    """[server.limits]"""

    max_message_bytes: Bytes = 1 << 20
    max_batch_items: Annotated[int, Field(ge=1, le=65_536)] = 10_000
    max_batch_bytes: Bytes = 16 << 20
    max_request_bytes: Bytes = 20 << 20
    stream_window: Count = 1024
    max_in_flight: Count = 65_536
    max_in_flight_per_caller: Count = 32_768
    max_calls_per_caller: Count = 1024
    max_connections_per_caller: Count = 512


class Server(Table):
    """[server]"""

    listen: Address = "127.0.0.1:7443"
    unix_socket: str = "run/hsmsign.sock"
    unix_group: str = ""
    workers: Annotated[int, Field(ge=1, le=MOST_WORKERS)] | Literal["auto"] = 1
    tls: Tls = Tls()
    limits: LimitsTable = LimitsTable()


class StoreTable(Table):
    """[store]"""

    url: str = "sqlite:///state/hsmsign.db"


class PolicyTable(Table):
    """[policy]"""

    file: Path = Path("policy.toml")


class CaTable(Table):
    """[ca]"""

    file: str = ""


class EnrollTable(Table):
    """[enroll]"""

    listen: Address = ""


class WebTable(Table):
    """[web]"""

    listen: Address = ""


class Daemon(Table):
    """[daemon]"""

    state_dir: Path = Path("state")
    run_dir: Path = Path("run")
    drain_seconds: Seconds = 10.0
    heartbeat_seconds: Annotated[float, Field(ge=1.5, le=3600)] = 5.0


class Audit(Table):
    """[audit]"""

    folder: Path = Path("audit")
    origin: Annotated[str, StringConstraints(pattern=r"^[!-*,-~]{1,200}$")] = "hsmsign"
    durability: Durability = Durability.STRICT
    checkpoint_seconds: Annotated[float, Field(ge=0, le=86_400)] = 60.0
    key: Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?$")] = "audit-log"


class MetricsTable(Table):
    """[metrics]"""

    listen: Address = ""


class TracingTable(Table):
    """[tracing]"""

    endpoint: Annotated[str, StringConstraints(pattern=r"^$|^https?://[^/\s]+$")] = ""
    sample: Annotated[float, Field(ge=0, le=1)] = 1.0
    ca: Path | None = None

    @model_validator(mode="after")
    def _sensible(self) -> TracingTable:
        if self.ca is not None and not self.endpoint.startswith("https:"):
            raise ValueError("ca is for an endpoint that begins with https:")
        return self


class Log(Table):
    """[log]"""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Pin(Table):
    """pin = { file = … } or { env = … } or { credential = … }"""

    file: Path | None = None
    env: str | None = None
    credential: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Pin:
        if sum(source is not None for source in (self.file, self.env, self.credential)) != 1:
            raise ValueError("say exactly one of file, env, credential")
        return self


class QuirksTable(Table):
    """[backends.NAME.quirks]"""

    exclusive_management: Literal["nothing", "lookups", "all"] = "nothing"
    unusable_mechanisms: tuple[str, ...] = ()
    eddsa_curve_as_name: bool = False
    login_as: Literal["user", "none"] = "user"


class Tpm2Table(Table):
    """[backends.NAME] with kind = "tpm2" """

    kind: Literal["tpm2"]
    tcti: str = ""
    simulator: Path | None = None
    key_auth: Pin
    owner_auth: Pin | None = None
    storage_key: Annotated[int, Field(ge=0x81000000, le=0x81FFFFFF)] = 0x81000001
    authorization: Literal["hmac", "password"] = "hmac"
    hang_after: Seconds = 10.0
    manage_timeout: Seconds = 120.0
    default: bool = False

    @model_validator(mode="after")
    def _one_way(self) -> Tpm2Table:
        if bool(self.tcti) == (self.simulator is not None):
            raise ValueError('say how the TPM is reached: tcti = "device:/dev/tpmrm0", or simulator = "FOLDER"')
        return self


class BackendTable(Table):
    """[backends.NAME]"""

    kind: Literal["softhsm", "pkcs11"]
    module: Path
    token_label: str | None = None
    token_serial: str | None = None
    pin: Pin | None = None
    sessions: Annotated[int, Field(ge=0, le=1024)] = 0
    hang_after: Seconds = 10.0
    manage_timeout: Seconds = 120.0
    default: bool = False
    token_dir: Path | None = None
    quirks: QuirksTable = QuirksTable()

    @model_validator(mode="after")
    def _complete(self) -> BackendTable:
        if self.token_label is None and self.token_serial is None:
            raise ValueError("say which token: token_label, token_serial or both")
        if self.pin is None and self.quirks.login_as == "user":
            raise ValueError("say where the PIN comes from: pin = { file = … }, { env = … } or { credential = … }")
        return self


AnyBackend = Annotated[BackendTable | Tpm2Table, Field(discriminator="kind")]


class File(Table):
    """hsmsign.toml"""

    server: Server = Server()
    policy: PolicyTable = PolicyTable()
    store: StoreTable = StoreTable()
    daemon: Daemon = Daemon()
    audit: Audit = Audit()
    metrics: MetricsTable = MetricsTable()
    ca: CaTable = CaTable()
    web: WebTable = WebTable()
    enroll: EnrollTable = EnrollTable()
    tracing: TracingTable = TracingTable()
    log: Log = Log()
    backends: Annotated[dict[BackendName, AnyBackend], Field(min_length=1)]

    @model_validator(mode="after")
    def _one_default(self) -> File:
        chosen = [name for name, backend in self.backends.items() if backend.default]
        if len(chosen) > 1:
            raise ValueError(f"more than one backend is the default: {', '.join(chosen)}")
        if not chosen and len(self.backends) > 1:
            raise ValueError("say which backend takes new keys: default = true in one of them")
        return self

"""What the commands share: the session, options that may stand anywhere, output."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import enum
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import click

from hsmsign.model import names

if TYPE_CHECKING:
    from hsmsign.client import Client

F = TypeVar("F", bound=Callable[..., Any])


class Session:
    """One run of the command: its global options, and the client once a command wants it."""

    def __init__(self) -> None:
        self.client_file: Path | None = None
        self.as_json = False
        self.timeout = 30.0
        self.key = ""
        """The key that the command is about, for the words of an error."""
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """The client; connected at its first call."""
        if self._client is None:
            os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its own log lines say less than our errors
            from hsmsign.client import connect  # gRPC takes a quarter of a second to load

            self._client = connect(client_file=self.client_file, deadline=self.timeout)
        return self._client

    @property
    def connected(self) -> bool:
        """Whether a command asked for the client."""
        return self._client is not None

    def close(self) -> None:
        """Let go of the connection."""
        if self._client is not None:
            self._client.close()

    def name(self, text: str) -> str:
        """The full name of what a person typed: `web-1` means `keys/web-1`. Raises ResourceNameError."""
        self.key = str(names.parse(names.expand(text)))
        return self.key

    def show(self, value: object, lines: Callable[[], Iterable[str]]) -> None:
        """Print an answer: as JSON, or as the lines for a person."""
        if self.as_json:
            click.echo(json.dumps(plain(value), indent=2))
            return
        for line in lines():
            click.echo(line)


class Hex(click.ParamType[bytes]):
    """Bytes in hexadecimal."""

    name = "hex"

    def convert(self, value: str | bytes, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        """From text."""
        if isinstance(value, bytes):
            return value
        try:
            return bytes.fromhex(value)
        except ValueError:
            self.fail(f"{value!r} is not hexadecimal", param, ctx)


class Length(click.ParamType[dt.timedelta]):
    """How long: 90d, 12h, 5m, 30s, 1y (365 days)."""

    name = "time"
    _UNITS: ClassVar = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "y": 365 * 86_400}

    def convert(
        self, value: str | dt.timedelta, param: click.Parameter | None, ctx: click.Context | None
    ) -> dt.timedelta:
        """From text."""
        if isinstance(value, dt.timedelta):
            return value
        number, unit = value[:-1], value[-1:]
        if unit not in self._UNITS or not number.isdecimal() or len(number) > 9:
            self.fail(f"{value!r} is no length of time: say 90d, 12h, 5m, 30s or 1y", param, ctx)
        return dt.timedelta(seconds=int(number) * self._UNITS[unit])


READABLE = click.Path(exists=True, dir_okay=False, path_type=Path)
"""A file to read."""


class CannotWriteError(click.ClickException):
    """An output file that cannot be made."""

    exit_code = 73  # EX_CANTCREAT

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"cannot write {path}: {error.strerror}")


pass_session = click.make_pass_decorator(Session, ensure=True)


def _set(attribute: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def store(context: click.Context, _: click.Parameter, value: Any) -> None:
        if value is not None and value is not False:
            setattr(context.ensure_object(Session), attribute, value)

    return store


def shared(function: F) -> F:
    """The global options, which a person may also write after the subcommand."""
    options = (
        click.option(
            "--client",
            type=click.Path(path_type=Path),
            metavar="FILE",
            expose_value=False,
            callback=_set("client_file"),
            help="Client file; else $HSMSIGN_CLIENT, else the user's own.",
        ),
        click.option("--json", is_flag=True, expose_value=False, callback=_set("as_json"), help="Answer as JSON."),
        click.option(
            "--timeout",
            type=click.FloatRange(min=0, min_open=True),
            metavar="SECONDS",
            expose_value=False,
            callback=_set("timeout"),
            help="Deadline of each call (30).",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def plain(value: object) -> Any:
    """A value as JSON has it; bytes as base64, times as RFC 3339."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value if isinstance(value.value, str) else value.name
    if isinstance(value, bytes):
        import base64

        return base64.b64encode(value).decode("ascii")
    if isinstance(value, dt.datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def table(columns: list[str], rows: list[list[str]]) -> list[str]:
    """Rows under headings, for a person."""
    widths = [max(len(row[n]) for row in [columns, *rows]) for n in range(len(columns))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [columns, *rows]
    ]


def write_out(path: Path | None, content: bytes, *, mode: int = 0o644) -> None:
    """Write a whole file or none, over what was there; to stdout for None or `-`."""
    if path is None or str(path) == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        return
    if path.exists() and not path.is_file():  # /dev/stdout and friends cannot be replaced
        try:
            path.write_bytes(content)
        except OSError as error:
            raise CannotWriteError(path, error) from error
        return
    target = path.resolve()
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise CannotWriteError(path, error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise


def when(moment: dt.datetime | None) -> str:
    """A moment for a person."""
    return moment.strftime("%Y-%m-%d %H:%M:%SZ") if moment else "-"

"""hsmsign bench: what your daemon does with your key, measured from here."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hsmsign.cli.common import F, Hex, Session, pass_session, shared, table
from hsmsign.cli.signing import SCHEMES
from hsmsign.measuring.plan import Load, LoadKind, Subject, duration, lines_of
from hsmsign.model.algorithms import InputKind
from hsmsign.model.errors import HsmsignError
from hsmsign.model.names import VersionName, parse

if TYPE_CHECKING:
    from hsmsign.cli.bench_device import DeviceOptions
    from hsmsign.client import KeyInfo, PublicKeyInfo
    from hsmsign.measuring.device import BareDevice, Where
    from hsmsign.measuring.running import Measured

KINDS = [kind.value for kind in LoadKind]
_BATCH_MOST = 4096
_CALLERS_MOST = 1024
_YARDSTICK = "python-pkcs11"


class Several(click.ParamType[tuple[Any, ...]]):
    """Values with commas between them, each once."""

    name = "values"

    def __init__(self, one: Callable[[str], Any]) -> None:
        self._one = one

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        """From text."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(dict.fromkeys(self._one(part.strip()) for part in value.split(",")))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _several(option: str, one: Callable[[str], Any], default: str, metavar: str, words: str) -> Callable[[F], F]:
    return click.option(option, type=Several(one), default=default, show_default=True, metavar=metavar, help=words)


def _number(most: int) -> Callable[[str], int]:
    def one(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= most:
            raise ValueError(f"{text!r} is no number from 1 to {most}; several have commas between them: 1,16")
        return int(text)

    return one


def _kind(text: str) -> LoadKind:
    if text not in KINDS:
        raise ValueError(f"{text!r} is no load; there are {', '.join(KINDS)}")
    return LoadKind(text)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is going to be done, and with what."""

    subject: Subject
    public: PublicKeyInfo
    loads: tuple[Load, ...]
    seconds: float
    where: Where | None

    @property
    def lasts(self) -> float:
        """Seconds."""
        return duration(len(self.loads), self.seconds, with_device=self.where is not None)

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        where = self.where
        return {
            "key_version": self.subject.key_version,
            "scheme": self.subject.scheme.name,
            "input": self.subject.kind.name.lower(),
            "seconds": self.seconds,
            "device": None if where is None else {"yardstick": _YARDSTICK, "threads": where.threads},
        }

    def lines(self) -> list[str]:
        """For a person, who may still say no."""
        what, version = ("digests" if self.subject.kind is InputKind.DIGEST else "messages"), self.subject.key_version
        return [
            f"This makes real signatures of random {what} with {version} ({self.subject.scheme.name}),",
            f"as many as come out in {self.seconds:g} s for each load, about {self.lasts:.0f} s in all:",
            *(f"  {load.words}" for load in self.loads),
            "Each is recorded in the audit log, limits hold, and others who use the device wait the longer for it.",
            *(
                ()
                if self.where is None
                else [f"Before and after each load, {_device(self.where.threads)} signs with the same key, unrecorded."]
            ),
        ]


def _device(threads: int) -> str:
    return f"{_YARDSTICK} with {threads} thread{'' if threads == 1 else 's'}"


_FILE = click.Path(path_type=Path, dir_okay=False)
_DEVICE_OPTIONS = (
    click.option("--config", type=_FILE, metavar="FILE", help="hsmsign.toml: measure the bare device beside it."),
    click.option("--backend", metavar="NAME", help="The backend in it; else the key's."),
    click.option("--module", type=_FILE, metavar="PATH", help="The same, with a PKCS #11 module instead of --config."),
    click.option("--token-label", metavar="LABEL", help="The token, with --module."),
    click.option("--pin-file", type=_FILE, metavar="FILE", help="Where its PIN is, with --module."),
    click.option("--key-id", type=Hex(), metavar="HEX", help="CKA_ID on the device, if the daemon's is not right."),
    click.option("--key-label", metavar="LABEL", help="CKA_LABEL on the device, likewise."),
    click.option(
        "--device-threads", type=click.IntRange(1, 256), metavar="N", help="Sessions; as many as the daemon's."
    ),
)


def _device_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the options that say where the bare device is; it gets `device`."""

    @functools.wraps(command)
    def wrapped(*args: Any, **given: Any) -> Any:
        from hsmsign.cli.bench_device import DeviceOptions, names

        device = DeviceOptions(**{name: given.pop(name) for name in names()})
        device.check()
        return command(*args, device=device, **given)

    for option in reversed(_DEVICE_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


@click.command()
@click.argument("key")
@click.option("--seconds", type=click.FloatRange(0.05, 300), default=5.0, show_default=True, help="For each load.")
@_several("--loads", _kind, ",".join(KINDS), "LOAD,…", "Which.")
@_several("--callers", _number(_CALLERS_MOST), "1,16,64", "N,…", "Tasks that share a client.")
@_several("--batch", _number(_BATCH_MOST), "1,256", "N,…", "Signatures of a SignBatch.")
@click.option("--scheme", type=click.Choice(list(SCHEMES)), help="For RSA; else the key's first.")
@click.option("--messages", is_flag=True, help="Sign messages of 32 bytes, not digests.")
@_device_options
@click.option("--dry-run", is_flag=True, help="Say what would be done; sign nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@shared
@pass_session
def bench(
    session: Session,
    key: str,
    seconds: float,
    loads: tuple[LoadKind, ...],
    callers: tuple[int, ...],
    batch: tuple[int, ...],
    scheme: str | None,
    messages: bool,
    device: DeviceOptions,
    dry_run: bool,
    yes: bool,
) -> None:
    """Measure signatures of KEY: rates, latencies, and what the bare device does beside. The signatures are real."""
    from hsmsign.measuring.refusals import explained

    chosen = lines_of(loads, batch, callers)
    try:
        plan = _plan(session, key, chosen, seconds, scheme, messages, device)
        if dry_run:
            wanted = [load.words for load in chosen]
            session.show({**plan.plain(), "loads": wanted, "lasts_seconds": plan.lasts, "dry_run": True}, plan.lines)
            return
        if not yes and not (session.as_json and not sys.stdin.isatty()):
            click.echo("\n".join(plan.lines()), err=True)
            click.confirm("Begin?", abort=True, err=True)
        _run(session, plan)
    except HsmsignError as error:
        raise explained(error, digests=not messages) from error


def _plan(
    session: Session,
    key: str,
    chosen: tuple[Load, ...],
    seconds: float,
    scheme: str | None,
    messages: bool,
    device: DeviceOptions,
) -> Plan:
    """Ask the daemon about the key. Raises HsmsignError, also for a key that cannot be measured."""
    from hsmsign.measuring.refusals import check

    client, full = session.client, session.name(key)
    name = parse(full)
    info: KeyInfo = client.get_key(str(name.key if isinstance(name, VersionName) else name))
    check(info)
    public = client.public_key_info(full)
    wanted = public.algorithm.scheme(SCHEMES[scheme] if scheme else public.algorithm.schemes[0])
    kind = InputKind.MESSAGE if messages or wanted.hash is None else InputKind.DIGEST
    where = device.where(client, info, public.key_version)
    return Plan(Subject(public.key_version, wanted, kind), public, chosen, seconds, where)


def _run(session: Session, plan: Plan) -> None:
    """Measure and show. What was measured is shown whatever comes in between."""
    from hsmsign.measuring.device import BareDevice
    from hsmsign.measuring.running import measure

    done: list[Measured] = []
    complete = False
    try:
        with ExitStack() as stack:
            device: BareDevice | None = None
            say = stack.enter_context(_progress(session.as_json, plan))
            if plan.where is not None:
                device = stack.enter_context(BareDevice(plan.where, plan.subject, plan.public))
            for one in measure(session.client, plan.subject, plan.loads, plan.seconds, device, say):
                done.append(one)  # what is there counts, whatever becomes of the next one
        complete = True
    finally:
        if done or complete:
            rows = {"complete": complete, "loads": [_row(one) for one in done]}
            session.show({**plan.plain(), **rows}, lambda: _lines(plan, done))


def _progress(quiet: bool, plan: Plan) -> AbstractContextManager[Callable[[str], object]]:
    """Says what is being measured, where a person looks."""
    if quiet:
        return nullcontext(lambda _: None)
    from hsmsign.cli.bench_device import Progress

    return Progress(2 * len(plan.loads) + 1 if plan.where is not None else len(plan.loads))


def _row(one: Measured) -> dict[str, Any]:
    figures = one.figures
    return {
        "load": one.load.kind.value,
        "count": one.load.count,
        "signatures": figures.signatures,
        "signatures_per_second": round(figures.rate, 1),
        "p50_ms": round(figures.p50 * 1000, 3),
        "p99_ms": round(figures.p99 * 1000, 3),
        "device_per_second": None if one.device_rate is None else round(one.device_rate, 1),
        "ratio": None if one.ratio is None else round(one.ratio, 3),
        "complete": one.complete,
    }


def _lines(plan: Plan, done: list[Measured]) -> Iterable[str]:
    yield f"{plan.subject.key_version}, {plan.subject.scheme.name}, {plan.seconds:g} s for each load"
    heads = ["LOAD", "SIGNATURES/S", "P50 MS", "P99 MS"]
    rows = []
    for one in done:
        figures = one.figures
        words = one.load.words + ("" if one.complete else " (interrupted)")
        cells = [words, f"{figures.rate:,.0f}", f"{figures.p50 * 1000:.2f}", f"{figures.p99 * 1000:.2f}"]
        rows.append(cells if plan.where is None else [*cells, "-" if one.ratio is None else f"{one.ratio:.2f}"])
    yield from table(heads if plan.where is None else [*heads, "OF THE DEVICE"], rows)
    rates = [one.device_rate for one in done if one.device_rate is not None]
    if plan.where is not None and rates:
        span = f"{min(rates):,.0f} to {max(rates):,.0f} a second"
        yield f"The device alone: {span}, by {_device(plan.where.threads)} on this machine."
        yield "That is Python's yardstick, what a program in Python makes of the device; a loop in C would make more."

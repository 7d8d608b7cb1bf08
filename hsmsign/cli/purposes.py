"""What a key is for, as options and in words."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable
from typing import Any

import click

from hsmsign.model.dual_control import DualControl
from hsmsign.model.purpose import Purpose, PurposeKind

KINDS = [kind.value for kind in PurposeKind if kind is not PurposeKind.AUDIT]


def purpose_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say what a key is for; it gets `purpose`, None where none is said."""

    @click.option("--purpose", "kind", type=click.Choice(KINDS), help="Sign only what is of that kind.")
    @click.option("--issuer", default="", metavar="NAME", help="ca: in whose name it signs: 'CN=Root,O=Example'.")
    @click.option(
        "--path-length", default=0, metavar="N", type=click.IntRange(min=0), help="ca: CAs below it; 0: none."
    )
    @click.option("--max-days", default=0, metavar="N", type=click.IntRange(min=0), help="ca: longest validity.")
    @click.option("--permit", multiple=True, metavar="TREE", help="ca: dns:example.org, ip:10.0.0.0/8 …; repeatable.")
    @click.option("--jwt-issuer", multiple=True, metavar="ISS", help="jwt: an iss it may have; repeatable.")
    @click.option("--jwt-audience", multiple=True, metavar="AUD", help="jwt: an aud it may have; repeatable.")
    @functools.wraps(command)
    def wrapped(
        *args: Any,
        kind: str | None,
        issuer: str,
        path_length: int,
        max_days: int,
        permit: tuple[str, ...],
        jwt_issuer: tuple[str, ...],
        jwt_audience: tuple[str, ...],
        **rest: Any,
    ) -> Any:
        limits = (issuer, path_length, max_days, permit, jwt_issuer, jwt_audience)
        if kind is None and any(limits):
            raise click.UsageError("these are limits of a purpose: say --purpose ca or --purpose jwt")
        purpose = None if kind is None else Purpose(PurposeKind(kind), *limits).check()
        return command(*args, purpose=purpose, **rest)

    return wrapped


_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def control_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say who has to approve; it gets `control`, None where nothing is said."""

    @click.option("--approvals", type=click.IntRange(min=0), metavar="N", help="So many others must approve it.")
    @click.option(
        "--approve-signing/--no-approve-signing",
        "signing",
        default=None,
        help="Every signature, too: by default of a CA that certifies CAs.",
    )
    @click.option("--approve-within", "within", default="24h", metavar="TIME", help="30m, 24h (the default), 7d.")
    @functools.wraps(command)
    def wrapped(*args: Any, approvals: int | None, signing: bool | None, within: str, **rest: Any) -> Any:
        if approvals is None:
            if signing is not None:
                raise click.UsageError("say how many others must approve: --approvals N")
            return command(*args, control=None, **rest)
        purpose: Purpose | None = rest.get("purpose")
        if signing is None:
            signing = approvals > 0 and purpose is not None and purpose.path_length > 0
        return command(*args, control=DualControl(approvals, signing, _time(within)).check(), **rest)

    return wrapped


def _time(text: str) -> int:
    number, unit = text[:-1], text[-1:]
    if unit not in _SECONDS or not number.isdecimal():
        raise click.BadParameter(f"{text!r} is no time: say 30m, 24h or 7d", param_hint="--approve-within")
    return int(number) * _SECONDS[unit]


def control_in_words(control: DualControl) -> str:
    """One line."""
    what = "destroying, changes and signatures" if control.signing else "destroying and changes"
    return f"{control.approvals} others, for {what}, within {dt.timedelta(seconds=control.within)}"


def in_words(purpose: Purpose) -> str:
    """One line: the kind, and what it is limited to."""
    said = [purpose.kind.value]
    if purpose.kind is PurposeKind.CA:
        below = f"{purpose.path_length} CAs below it" if purpose.path_length else "no CAs below it"
        said += [f"as {purpose.issuer}", below]
    if purpose.max_validity_days:
        said.append(f"at most {purpose.max_validity_days} days")
    if purpose.permitted_names:
        said.append(f"names in {' '.join(purpose.permitted_names)}")
    if purpose.jwt_issuers:
        said.append(f"iss {' '.join(purpose.jwt_issuers)}")
    if purpose.jwt_audiences:
        said.append(f"aud {' '.join(purpose.jwt_audiences)}")
    return ", ".join(said)

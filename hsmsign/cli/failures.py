"""Errors as a person and a script see them: words on stderr, sysexits codes."""

from __future__ import annotations

import difflib
import json
import os
import sys
import traceback
from typing import TYPE_CHECKING

import click

from hsmsign.model import errors
from hsmsign.model.errors import HsmsignError

if TYPE_CHECKING:
    from hsmsign.cli.common import Session

EX_NO = 1
EX_USAGE = 64
EX_DATAERR = 65
EX_NOINPUT = 66
EX_UNAVAILABLE = 69
EX_SOFTWARE = 70
EX_CANTCREAT = 73
EX_TEMPFAIL = 75
EX_NOPERM = 77
EX_CONFIG = 78
EX_INTERRUPTED = 130
EX_PIPE = 141

_BY_CODE = {
    "INVALID_ARGUMENT": EX_DATAERR,
    "NOT_FOUND": EX_DATAERR,
    "ALREADY_EXISTS": EX_DATAERR,
    "FAILED_PRECONDITION": EX_DATAERR,
    "UNAUTHENTICATED": EX_NOPERM,
    "PERMISSION_DENIED": EX_NOPERM,
    "RESOURCE_EXHAUSTED": EX_TEMPFAIL,
    "UNAVAILABLE": EX_TEMPFAIL,
    "ABORTED": EX_TEMPFAIL,
    "DEADLINE_EXCEEDED": EX_TEMPFAIL,
    "CANCELLED": EX_TEMPFAIL,
}


def exit_code(error: HsmsignError) -> int:
    """The sysexits code of an error (docs/cli.md)."""
    if isinstance(error, errors.ConfigurationError):
        return EX_CONFIG
    if isinstance(error, errors.AttestationError | errors.AuditError):
        return EX_NO
    if isinstance(error, errors.PinRefusedError | errors.PinLockedError):
        return EX_UNAVAILABLE
    if type(error) is errors.UnavailableError and "endpoint" in error.metadata:  # nobody is there
        return EX_UNAVAILABLE
    if isinstance(error, errors.ApprovalRequiredError):
        return EX_TEMPFAIL
    return _BY_CODE.get(error.code, EX_SOFTWARE)


def report(error: BaseException, session: Session | None) -> int:
    """Say what happened, on stderr; the exit code."""
    if os.environ.get("HSMSIGN_DEBUG") == "1":
        traceback.print_exception(error)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return EX_USAGE
    if isinstance(error, click.Abort | KeyboardInterrupt):
        click.echo("aborted", err=True)
        return EX_INTERRUPTED
    message, hint, code, fields = _describe(error, session)
    if session is not None and session.as_json:
        body = {"message": message, "hint": hint, "exit_code": code, **fields}
        click.echo(json.dumps({"error": body}), err=True)
        return code
    click.echo(click.style("error:", fg="red", bold=True) + f" {message}", err=True)
    for line in hint.splitlines():
        click.echo(f"  {line}", err=True)
    return code


def _describe(error: BaseException, session: Session | None) -> tuple[str, str, int, dict[str, object]]:
    if isinstance(error, HsmsignError):
        hint = "\n".join(filter(None, (error.hint, _neighbours(error, session))))
        return error.message, hint, exit_code(error), {"reason": error.reason, "metadata": error.metadata}
    if isinstance(error, click.FileError):
        return error.format_message(), "", EX_NOINPUT, {"reason": "FILE"}
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        hint = f"see: {context.command_path} --help" if context else ""
        code = EX_USAGE if isinstance(error, click.UsageError) else error.exit_code
        return error.format_message(), hint, code, {"reason": "USAGE"}
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}", "", EX_NOINPUT, {"reason": "FILE"}
    return (
        f"{type(error).__name__}: {error}",
        "this should not happen; HSMSIGN_DEBUG=1 shows where it did",
        EX_SOFTWARE,
        {"reason": "INTERNAL"},
    )


def _neighbours(error: HsmsignError, session: Session | None) -> str:
    """For a key that is not there: those with names like it, and how to make it."""
    if not isinstance(error, errors.KeyNotFoundError) or session is None or not session.connected or not session.key:
        return ""
    from itertools import islice

    try:
        there = [key.name for key in islice(session.client.list_keys(page_size=1000, deadline=3), 5000)]
    except HsmsignError:
        return ""  # who may not list keys is told no more than the daemon told
    near = difflib.get_close_matches(session.key, there, n=1)
    counted = f"There {'is 1 key' if len(there) == 1 else f'are {len(there)} keys'} that you may list"
    lines = [counted + (f", and {near[0]!r} is near." if near else ".")]
    if "/versions/" not in session.key:
        short = session.key.removeprefix("keys/")
        lines.append(f"Create it:  hsmsign key create {short} --algorithm ecdsa-p256")
    return "\n".join(lines)


def silence_stdout() -> None:
    """After a broken pipe: let nothing more be written, also not when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

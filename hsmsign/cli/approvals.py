"""hsmsign approvals …: what waits for others, and waiting for it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from hsmsign.cli.common import Session, pass_session, shared, table, when, write_out
from hsmsign.model.dual_control import ApprovalState
from hsmsign.model.errors import ApprovalRequiredError

if TYPE_CHECKING:
    from hsmsign.client import ApprovalInfo

T = TypeVar("T")
_LOOK_EVERY = 1.0


class Approved(Protocol):
    """Does something that others may have to approve."""

    def __call__(self, work: Callable[[], T]) -> T:
        """What `work` answers, after it was approved where that is wanted."""
        ...


def waiting(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--wait`; it gets `approved`."""

    @click.option("--wait", is_flag=True, help="Where others must approve it: wait until they did, then go on.")
    @functools.wraps(command)
    def wrapped(session: Session, *args: Any, wait: bool, **rest: Any) -> Any:
        return command(session, *args, approved=_waits(session) if wait else _at_once, **rest)

    return wrapped


def _at_once(work: Callable[[], T]) -> T:
    return work()


def _waits(session: Session) -> Approved:
    def approved(work: Callable[[], T]) -> T:
        try:
            return work()
        except ApprovalRequiredError as error:
            name = error.metadata["approval"]
            click.echo(f"waiting: {error.message}\n  hsmsign approvals grant {_id(name)}", err=True)
        while session.client.approval(name).state is ApprovalState.PENDING:
            time.sleep(_LOOK_EVERY)
        return work()  # granted; or it says what came in between

    return approved


@click.group()
def approvals() -> None:
    """What waits for the approval of others, of keys under dual control."""


@approvals.command("list")
@click.option("--key", metavar="NAME", help="Only about this key.")
@click.option("--all", "everything", is_flag=True, help="Also what was used, denied or expired.")
@shared
@pass_session
def list_(session: Session, key: str | None, everything: bool) -> None:
    """What waits: what you asked for, and what you may decide."""
    found = list(session.client.approvals(key=session.name(key) if key else None, everything=everything))
    rows = [[_id(one.name), one.state.value, _count(one), one.requester, one.summary] for one in found]
    session.show(
        found, lambda: table(["ID", "STATE", "GIVEN", "ASKED BY", "WHAT"], rows) if rows else ["nothing waits"]
    )


@approvals.command()
@click.argument("id")
@click.option("--message", type=click.Path(path_type=Path), metavar="FILE", help="Write what is to be signed.")
@shared
@pass_session
def show(session: Session, id: str, message: Path | None) -> None:
    """One request, with all that was said of it."""
    found = session.client.approval(id)
    if message is not None:
        write_out(message, found.message)
    session.show(found, lambda: _lines(found))


@approvals.command()
@click.argument("id")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@shared
@pass_session
def grant(session: Session, id: str, yes: bool) -> None:
    """Approve it. Nobody approves what they asked for themselves."""
    found = session.client.approval(id)
    if not yes:
        click.echo("\n".join(_lines(found)), err=True)
        click.confirm("Approve it?", abort=True, err=True)
    decided = session.client.grant_approval(id)
    session.show(decided, lambda: [f"{decided.name} is {decided.state.value}: {_count(decided)}"])


@approvals.command()
@click.argument("id")
@shared
@pass_session
def deny(session: Session, id: str) -> None:
    """Say no. Whoever asked for it withdraws it so."""
    decided = session.client.deny_approval(id)
    session.show(decided, lambda: [f"{decided.name} is {decided.state.value}"])


def _id(name: str) -> str:
    return name.removeprefix("approvals/")


def _count(one: ApprovalInfo) -> str:
    return f"{sum(said.granted for said in one.decisions)} of {one.required}"


def _lines(one: ApprovalInfo) -> list[str]:
    lines = [
        one.name,
        f"  {one.summary}",
        f"  asked by   {one.requester}",
        f"  state      {one.state.value}, {_count(one)}",
        f"  created    {when(one.created)}",
        f"  expires    {when(one.expires)}",
    ]
    said = [
        f"  {'granted' if said.granted else 'denied':9}  {said.principal}  {when(said.time)}" for said in one.decisions
    ]
    return lines + said

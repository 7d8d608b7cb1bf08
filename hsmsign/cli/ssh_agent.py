"""`hsmsign ssh-agent`: device keys for ssh, git and ssh-keygen."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hsmsign.cli.common import READABLE, Session, pass_session, shared
from hsmsign.cli.keys import parse_labels

if TYPE_CHECKING:
    from hsmsign.ssh.agent import Agent

_ANSWER_SECONDS = 10.0


@click.command("ssh-agent")
@click.option(
    "--socket", "path", required=True, type=click.Path(path_type=Path), metavar="PATH", help="Where it listens."
)
@click.option("--key", "-k", "names", multiple=True, metavar="NAME", help="Offer this key; may be repeated.")
@click.option(
    "--label", "-l", "labels", multiple=True, metavar="NAME=VALUE", callback=parse_labels, help="Offer keys with it."
)
@click.option(
    "--certificate", "certificates", multiple=True, type=READABLE, metavar="FILE-cert.pub", help="Offer it, too."
)
@click.option("-s", "shell", flag_value="sh", default="sh", help="Print for sh. The default.")
@click.option("-c", "shell", flag_value="csh", help="Print for csh.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@shared
@pass_session
def ssh_agent(
    session: Session,
    path: Path,
    names: tuple[str, ...],
    labels: dict[str, str],
    certificates: tuple[Path, ...],
    shell: str,
    command: tuple[str, ...],
) -> int:
    """Be an ssh-agent in the foreground, whose keys are on a device. It signs, and does nothing else.

    Without --key and --label it offers every key that you may list. With `-- COMMAND` it runs that and ends with it.
    """
    if names and labels:
        raise click.UsageError("--key and --label exclude each other")
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("hsmsign.ssh").setLevel(logging.INFO)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    full = tuple(session.name(name) for name in names)
    return asyncio.run(_run(session, path.absolute(), full, labels, certificates, shell, command))


async def _run(
    session: Session,
    path: Path,
    names: tuple[str, ...],
    labels: dict[str, str],
    certificates: tuple[Path, ...],
    shell: str,
    command: tuple[str, ...],
) -> int:
    from hsmsign.client.asynchronous import connect
    from hsmsign.ssh.agent import Agent, Door

    seconds = min(session.timeout, _ANSWER_SECONDS)
    async with connect(client_file=session.client_file, deadline=seconds) as client:
        agent = Agent(client, names=names, labels=labels, certificates=certificates, deadline=seconds)
        await _look(agent, bool(certificates))
        async with Door(agent).listening(path):
            if command:
                return await _with_agent(path, command)
            click.echo(_words(path, shell))
            sys.stdout.flush()
            await _told_to_end()
    return 0


async def _look(agent: Agent, strict: bool) -> None:
    """A wrong name or certificate is said before anybody waits; a daemon that is not there yet may come."""
    from hsmsign.model.errors import UnavailableError

    try:
        await agent.identities()
    except UnavailableError as error:
        if strict:
            raise
        logging.getLogger("hsmsign.ssh").warning("%s; going on without", error.message)


def _words(path: Path, shell: str) -> str:
    quoted = shlex.quote(str(path))
    return f"setenv SSH_AUTH_SOCK {quoted};" if shell == "csh" else f"SSH_AUTH_SOCK={quoted}; export SSH_AUTH_SOCK;"


async def _told_to_end() -> None:
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, ended.set)
    await ended.wait()


async def _with_agent(path: Path, command: tuple[str, ...]) -> int:
    """The command's exit code; what would end us is passed on to it."""
    try:
        process = await asyncio.create_subprocess_exec(*command, env={**os.environ, "SSH_AUTH_SOCK": str(path)})
    except OSError as error:
        raise click.ClickException(f"cannot run {command[0]}: {error.strerror}") from error
    loop = asyncio.get_running_loop()

    def pass_on(number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, pass_on, number)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # a terminal sends it to the command, too
    code = await process.wait()
    return code if code >= 0 else 128 - code

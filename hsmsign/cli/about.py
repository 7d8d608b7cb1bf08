"""hsmsign version, hsmsign completion"""

from __future__ import annotations

import importlib.metadata
import platform

import click

from hsmsign.cli.common import Session, pass_session, shared


def installed() -> str:
    """The version of the installed package."""
    try:
        return importlib.metadata.version("hsmsign")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"  # run from a source tree that was never installed


@click.command()
@shared
@pass_session
def version(session: Session) -> None:
    """Print the version."""
    ours = installed()
    session.show({"hsmsign": ours, "python": platform.python_version()}, lambda: [f"hsmsign {ours}"])


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a completion script. bash: eval "$(hsmsign completion bash)" in ~/.bashrc."""
    from click.shell_completion import get_completion_class

    from hsmsign.cli.main import cli

    kind = get_completion_class(shell)
    if kind is None:
        raise click.ClickException(f"click has no completion for {shell}")
    click.echo(kind(cli, {}, "hsmsign", "_HSMSIGN_COMPLETE").source())

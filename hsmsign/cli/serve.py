"""`hsmsign serve`: the daemon."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from hsmsign.cli.common import shared
from hsmsign.daemon import config
from hsmsign.daemon.lean import import_structlog

import_structlog()  # also what an installation of the client alone lacks: so that is said before anything is done


@click.command()
@click.option(
    "--config",
    "config_path",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="hsmsign.toml.",
)
@click.option("--check-config", is_flag=True, help="Check the configuration and end.")
@shared
def serve(config_path: Path, check_config: bool) -> None:
    """Run the daemon in the foreground.

    SIGTERM finishes what is under way and ends it; SIGHUP reloads the configuration.
    """
    if check_config:
        checked = config.load(config_path)
        click.echo(
            f"{config_path} is in order: {len(checked.backends)} backend(s), {checked.default_backend} by default"
        )
        return
    from hsmsign.daemon import supervisor  # only now: what it imports imports structlog

    sys.exit(supervisor.run(config_path))

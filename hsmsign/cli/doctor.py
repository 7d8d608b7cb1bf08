"""`hsmsign doctor`: what is wrong here, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from hsmsign.cli.common import Session, pass_session, shared
from hsmsign.daemon.checkup import Finding, check_daemon, check_machine, check_setup

_MARKS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


@click.command()
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="hsmsign.toml; without it only the way to the daemon is looked at.",
)
@shared
@pass_session
@click.pass_context
def doctor(context: click.Context, session: Session, config_path: Path | None) -> None:
    """Look at modules, tokens, PIN sources, permissions, certificates, the clock, versions, the daemon.

    No PIN is tried. Exit code 0 where nothing failed, else 1.
    """
    findings: list[Finding] = check_machine()
    if config_path is not None:
        findings += check_setup(config_path)
    findings += check_daemon(lambda: session.client)

    def lines() -> Iterable[str]:
        for finding in findings:
            yield f"{_MARKS[finding.level]}  {finding.subject}: {finding.said}"
            if finding.advice:
                yield f"      {finding.advice}"

    session.show({"findings": findings}, lines)
    if any(finding.level == "fail" for finding in findings):
        context.exit(1)

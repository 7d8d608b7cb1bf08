"""hsmsign backend …"""

from __future__ import annotations

import click

from hsmsign.cli.common import Session, pass_session, shared, table


@click.group()
def backend() -> None:
    """Show the devices behind the daemon."""


@backend.command("list")
@shared
@pass_session
def list_(session: Session) -> None:
    """The devices, and how they are."""
    backends = session.client.backends()

    def lines() -> list[str]:
        rows = [
            [
                one.name.removeprefix("backends/") + (" *" if one.default else ""),
                one.kind,
                one.state,
                one.token_label or "-",
                one.protection.name.lower() if one.protection else "-",
                " ".join(algorithm.value for algorithm in one.algorithms),
            ]
            for one in backends
        ]
        text = table(["NAME", "KIND", "STATE", "TOKEN", "PROTECTION", "ALGORITHMS"], rows)
        for one in backends:
            if one.message:
                text += [f"{one.name}: {one.message}", *([f"  {one.hint}"] if one.hint else [])]
        return text

    session.show(backends, lines)

"""hsmsign crl …"""

from __future__ import annotations

from pathlib import Path

import click

from hsmsign.cli.common import Session, pass_session, shared, table, when, write_out


@click.group()
def crl() -> None:
    """Certificate revocation lists."""


@crl.command()
@click.argument("authority")
@shared
@pass_session
def publish(session: Session, authority: str) -> None:
    """Make the CRLs of an authority now; it makes them by itself, too."""
    made = session.client.ca.publish_crls(authority)
    rows = [
        [str(one.number), "delta" if one.delta else "full", str(one.shard), when(one.next_update), str(one.size)]
        for one in made
    ]
    session.show(made, lambda: table(["NUMBER", "KIND", "SHARD", "UNTIL", "BYTES"], rows))


@crl.command()
@click.argument("authority")
@click.option("--shard", default=0, type=click.IntRange(min=0), metavar="N", help="Which part, of one that is split.")
@click.option("--delta", is_flag=True, help="The delta.")
@click.option("--out", "-o", type=click.Path(path_type=Path), metavar="FILE", help="Else to stdout. DER.")
@shared
@pass_session
def get(session: Session, authority: str, shard: int, delta: bool, out: Path | None) -> None:
    """The newest CRL of (a version of) an authority, DER."""
    write_out(out, b"".join(session.client.ca.crl(authority, shard=shard, delta=delta)))

"""hsmsign provider …: OpenSSL's provider for programs that are not Python."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from hsmsign.cli.common import READABLE, Session, pass_session, shared

PROGRAMS = ("openssl", "nginx", "haproxy", "curl")


@click.group()
def provider() -> None:
    """Keys on devices for nginx, HAProxy, curl, openssl: all that use OpenSSL 3 and read keys from PEM files."""


@provider.command()
@shared
@pass_session
def path(session: Session) -> None:
    """Print where hsmsign.so is: the one in OpenSSL's folder of modules, else the one in this package."""
    from hsmsign.tls import module

    found = module.in_use()
    session.show({"module": str(found)}, lambda: [str(found)])


@provider.command()
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Else where OpenSSL looks: openssl version -m.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, change nothing.")
@shared
@pass_session
def install(session: Session, to: Path | None, dry_run: bool) -> None:
    """Copy hsmsign.so to where OpenSSL looks for modules, over an older one. Wants root, mostly.

    Programs that run keep the one that they have loaded until they are started again.
    """
    from hsmsign.tls import module

    done = module.install(to, dry_run=dry_run)

    def lines() -> Iterable[str]:
        if not done.changes:
            yield f"{done.target} is there already"
        else:
            yield f"{'would copy' if dry_run else 'copied'} {done.source} to {done.target}"

    answer = {"source": str(done.source), "target": str(done.target), "changed": done.changes and not dry_run}
    session.show(answer | {"would_change": done.changes}, lines)


@provider.command()
@click.argument("program", type=click.Choice(PROGRAMS))
@shared
@pass_session
def conf(session: Session, program: str) -> None:
    """Print what to put where, with comments: 'conf openssl' is a whole openssl.cnf, the others need it, too."""
    from hsmsign.tls import examples

    text = examples.text(program)
    session.show({"program": program, "text": text}, lambda: [text.rstrip("\n")])


@provider.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--cert", "certificate", type=READABLE, metavar="FILE", help="The certificate that goes with it, PEM.")
@click.option("--conf", "configuration", type=READABLE, metavar="FILE", help="The openssl.cnf of the program.")
@click.option("--tls-client", is_flag=True, help="A key for TLS clients (purpose tls-client).")
@shared
@pass_session
def check(session: Session, file: Path, certificate: Path | None, configuration: Path | None, tls_client: bool) -> None:
    """Try a reference: load FILE with openssl and hsmsign.so, have one signature made, and verify it.

    What is signed looks like a TLS 1.3 handshake, so that keys for TLS servers sign it. Run it as the user that the
    program has: sudo -u www-data hsmsign provider check FILE.
    """
    from hsmsign.tls import trial

    done = trial.run(file, certificate, configuration=configuration, client=tls_client, seconds=session.timeout)
    words = f"{file}: good; {done.openssl} with {done.module} had a signature made, and verified it"
    answer = {"reference": str(file), "module": str(done.module), "openssl": done.openssl}
    session.show({**answer, "public_key": done.public_key.decode()}, lambda: [words])

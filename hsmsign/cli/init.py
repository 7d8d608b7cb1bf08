"""`hsmsign init`: set up a daemon's folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from hsmsign.cli.common import Session, pass_session, shared
from hsmsign.daemon.init import Plan, initialise


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR")
@click.option(
    "--backend", "kind", type=click.Choice(["softhsm", "pkcs11", "tpm2"]), default="softhsm", show_default=True
)
@click.option("--module", type=click.Path(path_type=Path, dir_okay=False), help="The PKCS #11 module.")
@click.option("--token-label", help="The token's label (pkcs11).")
@click.option("--pin-file", type=click.Path(path_type=Path, dir_okay=False), help="The file with the PIN (pkcs11).")
@click.option("--tcti", metavar="TCTI", help="How the TPM is reached (tpm2): device:/dev/tpmrm0.")
@click.option("--simulator", is_flag=True, help="A simulated TPM (tpm2): swtpm, started by the daemon.")
@click.option("--listen", default="127.0.0.1:7443", show_default=True, metavar="HOST:PORT")
@shared
@pass_session
def init(
    session: Session,
    folder: Path,
    kind: str,
    module: Path | None,
    token_label: str | None,
    pin_file: Path | None,
    tcti: str | None,
    simulator: bool,
    listen: str,
) -> None:
    """Set up DIR: configuration, a SoftHSM token or a TPM, certificates for mutual TLS, client.toml.

    What is there already stays as it is, so that it can be run again.
    """
    done = initialise(Plan(folder, kind, listen, module, token_label, pin_file, tcti, simulator))

    def lines() -> Iterable[str]:
        for what in done.made:
            yield f"made  {what}"
        for what in done.kept:
            yield f"kept  {what}"
        yield ""
        yield f"Start the daemon:  hsmsign serve --config {done.config}"
        yield f"Then, elsewhere:   export HSMSIGN_CLIENT={done.client}"
        yield "                   hsmsign key create web-1 --algorithm ecdsa-p256"

    session.show(done, lines)

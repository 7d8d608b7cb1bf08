"""hsmsign key reference: what stands in a file where a private key would, for OpenSSL's provider."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hsmsign.cli.common import Session, pass_session, shared, write_out

if TYPE_CHECKING:
    from hsmsign.client.configuration import Endpoint


@click.command()
@click.argument("name")
@click.option("--out", "-o", type=click.Path(path_type=Path), metavar="FILE", help="Else to stdout.")
@click.option(
    "--deadline", type=float, default=5.0, show_default=True, metavar="SECONDS", help="For one signature, at most."
)
@click.option("--verify", is_flag=True, help="The program checks each signature before it uses it.")
@click.option("--endpoint", metavar="TARGET", help="Where the program finds the daemon, if not where you do.")
@click.option("--endpoint-ca", "ca", metavar="FILE", help="For a dns:/// endpoint: the CA of the daemon's certificate,")
@click.option("--endpoint-certificate", "certificate", metavar="FILE", help="the program's own certificate for it,")
@click.option("--endpoint-key", "key", metavar="FILE", help="and the key of that, a plain one.")
@click.option("--endpoint-server-name", "server_name", metavar="NAME", help="Checked instead of the endpoint's host.")
@shared
@pass_session
def reference(
    session: Session,
    name: str,
    out: Path | None,
    deadline: float,
    verify: bool,
    endpoint: str | None,
    ca: str | None,
    certificate: str | None,
    key: str | None,
    server_name: str | None,
) -> None:
    """Write a reference to a key: a PEM file that nginx, HAProxy, curl and openssl take for a private key.

    It holds no secret, and its mode is 0644: it says which key, its public half, and how the daemon is reached: as
    you reach it yourself, if nothing else is said. Whoever uses it proves to the daemon who it is: by its user on a
    Unix socket, else by a client certificate, whose files are named in the reference.

    It is for one version of the key, the primary one if NAME does not say which, as a certificate is: after
    'key rotate' get a certificate for the new version, and write the reference again. See also: hsmsign provider.
    """
    from hsmsign.tls.reference import KeyReference

    where = _endpoint(session, endpoint, (ca, certificate, key), server_name)
    public = session.client.public_key_info(session.name(name))
    made = KeyReference.at(where, public.key_version, public.der, deadline=deadline, verify=verify)
    write_out(out, made.to_pem())
    if session.as_json and out is not None and str(out) != "-":
        said = {"key_version": made.name, "endpoint": made.endpoint, "file": str(out)}
        session.show({**said, "deadline": made.deadline, "verify": made.verify}, list)


def _endpoint(session: Session, target: str | None, files: tuple[str | None, ...], server_name: str | None) -> Endpoint:
    """How the program reaches the daemon; without options, as the client does."""
    from hsmsign.client.configuration import Endpoint, TlsFiles

    own = session.client.endpoint
    given = [os.path.abspath(path) for path in files if path is not None]  # noqa: PTH100 - symlinks stay
    if given and len(given) < len(files):
        raise click.UsageError("--endpoint-ca, --endpoint-certificate and --endpoint-key are said together")
    if not given and server_name is not None:
        raise click.UsageError("--endpoint-server-name goes with --endpoint-ca, --endpoint-certificate, --endpoint-key")
    tls = own.tls
    if given:
        ca, certificate, key = given  # absolute: the program has another working directory
        tls = TlsFiles(ca, certificate, key, server_name)
    elif target is not None and target.startswith("unix:"):
        tls = None
    return Endpoint(target or own.target, tls)

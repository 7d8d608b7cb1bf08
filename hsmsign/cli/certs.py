"""hsmsign cert …: certificates that the daemon's authorities issue."""

from __future__ import annotations

import datetime as dt
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hsmsign.cli.approvals import Approved, waiting
from hsmsign.cli.common import READABLE, Length, Session, pass_session, shared, table, when, write_out
from hsmsign.cli.renewing import renew

if TYPE_CHECKING:
    from hsmsign.client import CertificateInfo

_FILE = click.Path(path_type=Path)
_REASONS = (
    "unspecified",
    "keyCompromise",
    "cACompromise",
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    "privilegeWithdrawn",
    "aACompromise",
)


@click.group()
def cert() -> None:
    """Certificates: issue, renew, revoke, list."""


cert.add_command(renew)


@cert.command()
@click.argument("authority")
@click.option("--profile", "-p", required=True, metavar="NAME", help="What kind; see: hsmsign ca profiles.")
@click.option("--csr", type=READABLE, metavar="FILE", help="A request (PKCS #10), DER or PEM.")
@click.option("--key", metavar="KEY", help="Instead: a key of this daemon with which you may sign.")
@click.option("--subject", default="", metavar="DN", help="With --key: RFC 4514.")
@click.option("--name", "names", multiple=True, metavar="NAME", help="With --key: dns:…, ip:…, uri:…; repeatable.")
@click.option("--validity", type=Length(), metavar="TIME", help="90d, 12h …; what the profile says by default.")
@click.option("--token-file", type=READABLE, metavar="FILE", help="An identity token that vouches for it.")
@click.option(
    "--out", "-o", type=_FILE, metavar="FILE", help="The certificate and those above it, PEM; else to stdout."
)
@click.option("--dry-run", is_flag=True, help="Check everything and say what it would be; issue nothing.")
@shared
@pass_session
@waiting
def issue(
    session: Session,
    authority: str,
    profile: str,
    csr: Path | None,
    key: str | None,
    subject: str,
    names: tuple[str, ...],
    validity: dt.timedelta | None,
    token_file: Path | None,
    out: Path | None,
    dry_run: bool,
    approved: Approved,
) -> None:
    """Have AUTHORITY issue a certificate, for a request or for a key of the daemon."""
    if (csr is None) == (key is None):
        raise click.UsageError("say what it is for: --csr FILE, or --key KEY with --subject, --name or both")
    request = csr.read_bytes() if csr is not None else None
    token = token_file.read_text().strip() if token_file is not None else None
    again = str(uuid.uuid4())  # with --wait it is sent again, for the same certificate
    made = approved(
        lambda: session.client.ca.issue(
            authority,
            request,
            profile=profile,
            key=key,
            subject=subject,
            names=names,
            validity=validity,
            identity_token=token,
            request_id=again,
            validate_only=dry_run,
        )
    )
    if dry_run or session.as_json:
        if out is not None and not dry_run:
            write_out(out, made.chain.encode())
        session.show(made, lambda: ["it would say:", *_lines(made)[1:]])
        return
    write_out(out, made.chain.encode())
    if out is not None:
        click.echo(f"{made.name}, until {when(made.not_after)}")


@cert.command()
@click.argument("certificate")
@click.option("--reason", type=click.Choice(_REASONS, case_sensitive=False), default="unspecified", help="Why.")
@click.option("--since", type=click.DateTime(), metavar="TIME", help="Since when it is not to be trusted; UTC.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@shared
@pass_session
def revoke(session: Session, certificate: str, reason: str, since: dt.datetime | None, yes: bool) -> None:
    """Revoke a certificate for good: CERTIFICATE is a serial number or a file."""
    serial = serial_of(certificate)
    found = session.client.ca.certificate(serial)
    if not yes:
        click.echo("\n".join(_lines(found)), err=True)
        click.confirm("Revoke it? There is no way back.", abort=True, err=True)
    moment = since.replace(tzinfo=dt.UTC) if since is not None else None
    done = session.client.ca.revoke(serial, reason=reason, invalidity=moment)
    session.show(done, lambda: [f"{done.name} is revoked ({done.reason}) since {when(done.revoked)}"])


@cert.command()
@click.argument("certificate")
@click.option("--out", "-o", type=_FILE, metavar="FILE", help="Write it and those above it, PEM.")
@shared
@pass_session
def show(session: Session, certificate: str, out: Path | None) -> None:
    """What is known of a certificate: CERTIFICATE is a serial number or a file."""
    found = session.client.ca.certificate(serial_of(certificate))
    if out is not None:
        write_out(out, found.chain.encode())
    session.show(found, lambda: _lines(found))


@cert.command("list")
@click.option("--authority", metavar="CA", help="Only of this one.")
@click.option("--state", type=click.Choice(["pending", "issued", "revoked"]), help="Only those.")
@click.option("--profile", metavar="NAME", help="Only of this kind.")
@click.option("--text", metavar="TEXT", help="Only with this in the subject or a name.")
@click.option("--ends-within", type=Length(), metavar="TIME", help="Only those that end so soon.")
@click.option("--limit", default=100, type=click.IntRange(min=1), metavar="N", help="At most so many (100).")
@shared
@pass_session
def list_(
    session: Session,
    authority: str | None,
    state: str | None,
    profile: str | None,
    text: str | None,
    ends_within: dt.timedelta | None,
    limit: int,
) -> None:
    """Certificates, the newest first."""
    from itertools import islice

    from hsmsign.client.ca_values import CertificateState

    found = list(
        islice(
            session.client.ca.certificates(
                authority=authority,
                state=CertificateState[state.upper()] if state else None,
                profile=profile,
                text=text,
                ends_before=dt.datetime.now(dt.UTC) + ends_within if ends_within is not None else None,
            ),
            limit,
        )
    )
    rows = [
        [one.serial, one.state.name.lower(), one.profile, when(one.not_after), one.subject or " ".join(one.names)]
        for one in found
    ]
    columns = ["SERIAL", "STATE", "PROFILE", "ENDS", "WHO"]
    session.show(found, lambda: table(columns, rows) if rows else ["none"])


def serial_of(text: str) -> str:
    """The serial number of a certificate in a file, or the text itself where there is no such file."""
    path = Path(text)
    if not path.is_file():
        return text
    from hsmsign.cli.renewing import read_certificate

    return f"{read_certificate(path).serial_number:x}"


def _lines(one: CertificateInfo) -> list[str]:
    lines = [
        f"{one.name}  {one.state.name.lower()}",
        f"  subject    {one.subject or '-'}",
        *(f"  name       {name}" for name in one.names),
        f"  profile    {one.profile}",
        f"  issuer     {one.authority_version}",
        f"  valid      {when(one.not_before)} to {when(one.not_after)}",
        f"  asked by   {one.requester}" + (f", vouched for by {one.identity}" if one.identity else ""),
    ]
    if one.revoked is not None:
        lines.append(f"  revoked    {when(one.revoked)}, {one.reason}")
    if one.invalidity is not None:
        lines.append(f"  bad since  {when(one.invalidity)}")
    return lines

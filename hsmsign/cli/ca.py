"""hsmsign ca …: certificate authorities."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hsmsign.cli.approvals import Approved, waiting
from hsmsign.cli.common import READABLE, Length, Session, pass_session, shared, table, when, write_out
from hsmsign.cli.keys import ALGORITHMS

if TYPE_CHECKING:
    import datetime as dt

    from hsmsign.client.ca_values import AuthorityInfo, AuthorityVersionInfo, TrustBundle

_FILE = click.Path(path_type=Path)


@click.group()
def ca() -> None:
    """Certificate authorities. A bare NAME means cas/NAME."""


@ca.command()
@click.argument("name")
@click.option("--subject", required=True, metavar="DN", help="RFC 4514: 'CN=Example Root,O=Example'.")
@click.option("--parent", metavar="CA", help="The authority that signs it; else it signs itself.")
@click.option("--external", is_flag=True, help="A CA outside signs it: make a request (see --csr, import-chain).")
@click.option("--key", metavar="KEY", help="Its key; keys/NAME by default. Made where it is not there.")
@click.option("--algorithm", "-a", type=click.Choice(ALGORITHMS), help="Of a new key.")
@click.option("--pss", is_flag=True, help="RSA: sign with PSS instead of PKCS #1 v1.5.")
@click.option(
    "--path-len",
    "--path-length",
    "path_len",
    default=0,
    metavar="N",
    type=click.IntRange(min=0),
    help="CAs below it; 0: none.",
)
@click.option("--validity", type=Length(), metavar="TIME", help="5y, 90d …; by default 20y for a root, 5y below one.")
@click.option("--permit", multiple=True, metavar="TREE", help="Names it may certify: dns:example.org …; repeatable.")
@click.option("--exclude", multiple=True, metavar="TREE", help="Names it may not certify; repeatable.")
@click.option("--policy", "policies", multiple=True, metavar="OID", help="A certificate policy; repeatable.")
@click.option("--crl-shards", default=1, metavar="N", type=click.IntRange(1, 256), help="Split its CRLs in so many.")
@click.option("--backend", "-b", metavar="BACKEND", help="Where a new key is made.")
@click.option("--csr", "request", type=_FILE, metavar="FILE", help="With --external: write the request there.")
@click.option("--dry-run", is_flag=True, help="Check everything, make nothing.")
@shared
@pass_session
@waiting
def init(
    session: Session,
    name: str,
    subject: str,
    parent: str | None,
    external: bool,
    key: str | None,
    algorithm: str | None,
    pss: bool,
    path_len: int,
    validity: dt.timedelta | None,
    permit: tuple[str, ...],
    exclude: tuple[str, ...],
    policies: tuple[str, ...],
    crl_shards: int,
    backend: str | None,
    request: Path | None,
    dry_run: bool,
    approved: Approved,
) -> None:
    """Make an authority with a key of its own, which signs for this authority alone. Repeated, it goes on."""
    made = approved(
        lambda: session.client.ca.create(
            name,
            subject=subject,
            parent=parent,
            external=external,
            key=key,
            algorithm=algorithm,
            pss=pss,
            path_length=path_len,
            validity=validity,
            permitted_names=permit,
            excluded_names=exclude,
            policies=policies,
            shards=crl_shards,
            backend=backend,
            validate_only=dry_run,
        )
    )
    if request is not None and made.versions[-1].csr:
        write_out(request, made.versions[-1].csr.encode())
    session.show(made, lambda: [f"would make {made.name}"] if dry_run else _lines(made))


@ca.command("list")
@shared
@pass_session
def list_(session: Session) -> None:
    """Those whose keys you may read."""
    found = session.client.ca.everything()
    rows = [
        [
            one.name,
            one.primary_version.rsplit("/", 1)[-1] or "-",
            str(len(one.versions)),
            when(one.primary.not_after if one.primary else None),
            one.versions[-1].subject,
        ]
        for one in found
    ]
    columns = ["NAME", "ISSUES", "VERSIONS", "ENDS", "SUBJECT"]
    session.show(found, lambda: table(columns, rows) if rows else ["no authorities; make one: hsmsign ca init"])


@ca.command()
@click.argument("name")
@click.option("--cert", type=_FILE, metavar="FILE", help="Write its certificate, PEM.")
@click.option("--chain", type=_FILE, metavar="FILE", help="Write its certificate and those above it, PEM.")
@click.option("--csr", type=_FILE, metavar="FILE", help="Write its request, while it waits for a certificate.")
@shared
@pass_session
def show(session: Session, name: str, cert: Path | None, chain: Path | None, csr: Path | None) -> None:
    """An authority with its versions and CRLs."""
    found = session.client.ca.get(name.partition("/versions/")[0])
    chosen = _chosen(found, name)
    for path, text, what in (
        (cert, chosen.certificate, "certificate"),
        (chain, chosen.certificate + chosen.chain if chosen.certificate else "", "certificate"),
        (csr, chosen.csr, "request"),
    ):
        if path is not None:
            if not text:
                raise click.ClickException(f"{chosen.name} has no {what}")
            write_out(path, text.encode())
    if cert is chain is csr is None:
        session.show(found, lambda: _lines(found))


@ca.command("import-chain")
@click.argument("name")
@click.argument("file", type=READABLE)
@shared
@pass_session
def import_chain(session: Session, name: str, file: Path) -> None:
    """Give it the certificate that an outside CA made of its request: PEM, with those above it."""
    made = session.client.ca.import_chain(name, file.read_text())
    session.show(made, lambda: _lines(made))


@ca.command()
@click.argument("name")
@click.option("--validity", type=Length(), metavar="TIME", help="As the one before by default.")
@click.option("--staged", is_flag=True, help="Let it issue only when 'ca update --primary' says so.")
@shared
@pass_session
@waiting
def rotate(session: Session, name: str, validity: dt.timedelta | None, staged: bool, approved: Approved) -> None:
    """Make a new version, with a new key, beside those that are there."""
    made = approved(lambda: session.client.ca.rotate(name, validity=validity, staged=staged))
    session.show(made, lambda: _lines(made))


@ca.command("cross-sign")
@click.argument("name")
@click.option("--issuer", required=True, metavar="CA", help="Who signs: an authority, or a version of one.")
@click.option("--validity", type=Length(), metavar="TIME", help="As long as NAME's own by default.")
@shared
@pass_session
@waiting
def cross_sign(session: Session, name: str, issuer: str, validity: dt.timedelta | None, approved: Approved) -> None:
    """Have the key of one authority (or version) certified by another, too."""
    made = approved(lambda: session.client.ca.cross_sign(name, issuer, validity=validity))
    session.show(made, lambda: _lines(made))


@ca.command()
@click.argument("name")
@click.option("--primary", type=click.IntRange(min=1), metavar="N", help="The version that issues from now on.")
@click.option("--retire", type=click.IntRange(min=1), metavar="N", help="Issues nothing more; CRLs and OCSP go on.")
@shared
@pass_session
def update(session: Session, name: str, primary: int | None, retire: int | None) -> None:
    """Choose the version that issues, or retire one."""
    made = session.client.ca.update(name, primary=primary, retire=retire)
    session.show(made, lambda: _lines(made))


@ca.command()
@shared
@pass_session
def profiles(session: Session) -> None:
    """The kinds of certificates that you may ask for."""
    found = session.client.ca.profiles()
    rows = [
        [one.name, str(one.default_validity), str(one.max_validity), ", ".join(one.identity) or "-", one.summary]
        for one in found
    ]
    columns = ["NAME", "VALID", "AT MOST", "TOKENS", "WHAT"]
    session.show(found, lambda: table(columns, rows) if rows else ["none; see ca.toml of the daemon"])


@ca.command()
@click.option("--out", "-o", type=_FILE, metavar="FILE", help="The roots, PEM; else to stdout.")
@click.option("--follow", is_flag=True, help="Write the file anew whenever the bundle changes.")
@shared
@pass_session
def bundle(session: Session, out: Path | None, follow: bool) -> None:
    """The certificates to trust."""
    if follow and out is None:
        raise click.UsageError("--follow wants a file: --out FILE")
    for one in session.client.ca.watch_trust_bundle() if follow else [session.client.ca.trust_bundle()]:
        _keep(session, one, out)


def _keep(session: Session, one: TrustBundle, out: Path | None) -> None:
    if out is not None or not session.as_json:
        write_out(out, one.roots.encode())
    if session.as_json:
        session.show(one, list)
    elif out is not None:
        click.echo(f"{out}: trust bundle number {one.sequence}", err=True)


def _chosen(found: AuthorityInfo, name: str) -> AuthorityVersionInfo:
    wanted = name if "/versions/" in name else found.primary_version
    full = wanted if wanted.startswith("cas/") or not wanted else f"cas/{wanted}"
    return next((one for one in found.versions if one.name == full), found.versions[-1])


def _lines(found: AuthorityInfo) -> list[str]:
    lines = [found.name, f"  issues     {found.primary_version or 'nothing yet'}"]
    for version in found.versions:
        lines += [
            f"  {version.name}  {version.state.name.lower()}",
            f"    subject  {version.subject}",
            f"    key      {version.key_version}",
        ]
        if version.csr:
            lines.append("    waits for the certificate of an outside CA: --csr FILE, then hsmsign ca import-chain")
        else:
            lines.append(f"    valid    {when(version.not_before)} to {when(version.not_after)}")
        lines += [
            f"    {'delta' if crl.delta else 'crl':8} number {crl.number}, {when(crl.this_update)}"
            f" to {when(crl.next_update)}" + (f", shard {crl.shard}" if version.shards > 1 else "")
            for crl in version.crls
        ]
    return lines

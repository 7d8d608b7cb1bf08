"""hsmsign key …"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hsmsign.cli.approvals import Approved, waiting
from hsmsign.cli.common import READABLE, Hex, Session, pass_session, shared, table, when, write_out
from hsmsign.cli.purposes import control_in_words, control_options, in_words, purpose_options
from hsmsign.cli.references import reference
from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.names import parse_key

if TYPE_CHECKING:
    from hsmsign.client import KeyInfo, VersionInfo
    from hsmsign.model.dual_control import DualControl
    from hsmsign.model.purpose import Purpose

ALGORITHMS = [algorithm.value for algorithm in KeyAlgorithm]


@click.group()
def key() -> None:
    """Make, show, rotate and destroy keys."""


key.add_command(reference)


def parse_labels(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """What --label was given."""
    labels = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{one!r} is not NAME=VALUE")
        labels[name] = value
    return labels


@key.command()
@click.argument("name")
@click.option("--algorithm", "-a", type=click.Choice(ALGORITHMS), help="What kind of key to make.")
@click.option("--backend", "-b", metavar="BACKEND", help="The device; else the daemon's default.")
@click.option(
    "--label", "-l", "labels", multiple=True, metavar="NAME=VALUE", callback=parse_labels, help="May be repeated."
)
@click.option("--adopt", metavar="URI", help="Name an object that is there (pkcs11:…, tpm2:…) instead of making one.")
@click.option("--pcr", "pcrs", metavar="BANK:N,N", help="Bind it to a TPM's registers as they are now: sha256:0,7.")
@purpose_options
@control_options
@shared
@pass_session
def create(
    session: Session,
    name: str,
    algorithm: str | None,
    backend: str | None,
    labels: dict[str, str],
    adopt: str | None,
    pcrs: str | None,
    purpose: Purpose | None,
    control: DualControl | None,
) -> None:
    """Make a key on a device."""
    if algorithm is None and adopt is None:
        raise click.UsageError(f"say which kind of key: --algorithm {'|'.join(ALGORITHMS)}")
    name = session.name(name)
    made = session.client.create_key(
        name,
        algorithm,
        backend=backend,
        labels=labels,
        adopt=adopt,
        pcrs=pcrs,
        purpose=purpose,
        dual_control=control,
    )
    session.show(made, lambda: [f"{made.primary_version}  {made.algorithm.value}  on {made.backend}"])


@key.command("list")
@click.option(
    "--label", "-l", "labels", multiple=True, metavar="NAME=VALUE", callback=parse_labels, help="Only with it."
)
@click.option("--backend", "-b", metavar="BACKEND", help="Only of this backend.")
@shared
@pass_session
def list_(session: Session, labels: dict[str, str], backend: str | None) -> None:
    """Keys by name."""
    keys = list(session.client.list_keys(labels=labels, backend=backend))
    rows = [
        [
            one.name,
            one.algorithm.value,
            one.backend,
            one.primary_version.rsplit("/", 1)[-1],
            one.primary.state.name.lower() if one.primary else "-",
            " ".join(f"{name}={value}" for name, value in sorted(one.labels.items())),
        ]
        for one in keys
    ]
    columns = ["NAME", "ALGORITHM", "BACKEND", "VERSION", "STATE", "LABELS"]
    session.show(keys, lambda: table(columns, rows) if rows else ["no keys"])


@key.command()
@click.argument("name")
@shared
@pass_session
def show(session: Session, name: str) -> None:
    """A key with all its versions, and what the device says of them."""
    full = session.name(name)
    info = session.client.get_key(full.partition("/versions/")[0])
    session.show(info, lambda: _lines(info))


def _lines(info: KeyInfo) -> list[str]:
    lines = [
        info.name,
        f"  algorithm  {info.algorithm.value}",
        f"  backend    {info.backend}",
        f"  primary    {info.primary_version}",
        f"  created    {when(info.created)}",
        f"  for        {in_words(info.purpose)}",
    ]
    if info.dual_control.approvals:
        lines.append(f"  approvals  {control_in_words(info.dual_control)}")
    lines += [f"  label      {name}={value}" for name, value in sorted(info.labels.items())]
    for version in info.versions:
        lines += _version_lines(version)
    return lines


def _version_lines(version: VersionInfo) -> list[str]:
    facts = version.facts
    said = {
        "sensitive": facts.sensitive,
        "extractable": facts.extractable,
        "local": facts.local,
        "always sensitive": facts.always_sensitive,
        "never extractable": facts.never_extractable,
    }
    words = [name if value else f"not {name}" for name, value in said.items() if value is not None]
    protection = version.protection.name.lower() if version.protection else "unknown"
    lines = [
        f"  {version.name}",
        f"    {version.state.name.lower()}, {protection}{', adopted' if version.adopted else ''}",
        f"    created {when(version.created)}",
    ]
    if version.destroyed:
        lines.append(f"    destroyed {when(version.destroyed)}")
    if words:
        lines.append(f"    the device says: {', '.join(words)}")
    if facts.pcrs:
        lines.append(f"    bound to the platform registers {facts.pcrs}")
    if version.pkcs11_uri:
        lines.append(f"    {version.pkcs11_uri}")
    lines += [f"    replica on {one.backend} since {when(one.created)}" for one in version.replicas]
    return lines


@key.command()
@click.argument("name")
@click.option("--format", "form", type=click.Choice(["pem", "der", "jwk", "ssh"]), default="pem", show_default=True)
@click.option("--out", "-o", type=click.Path(path_type=Path), metavar="FILE", help="Else to stdout.")
@shared
@pass_session
def public(session: Session, name: str, form: str, out: Path | None) -> None:
    """The public key."""
    info = session.client.public_key_info(session.name(name))
    if session.as_json and out is None:
        session.show(info, list)
        return
    if form == "ssh":
        from hsmsign.ssh.keys import line

        content = f"{line(info)} {info.key_version}\n".encode()
    else:
        content = {"pem": info.pem.encode(), "der": info.der, "jwk": info.jwk.encode() + b"\n"}[form]
    write_out(out, content)
    if session.as_json:
        session.show({"key_version": info.key_version, "file": str(out)}, list)


@key.command()
@click.argument("name")
@click.option("--nonce", type=Hex(), required=True, metavar="HEX", help="The verifier's: 8 to 64 bytes at random.")
@click.option("--challenge", type=READABLE, metavar="FILE", help="Of 'hsmsign attest challenge'; for a TPM.")
@click.option("--out", "-o", type=click.Path(path_type=Path), metavar="FILE", help="Else to stdout.")
@shared
@pass_session
def attest(session: Session, name: str, nonce: bytes, challenge: Path | None, out: Path | None) -> None:
    """Have it said where a key lives; 'hsmsign attest verify' checks it."""
    from hsmsign.model.attestation import Challenge

    question = Challenge.decode(challenge.read_bytes()) if challenge else None
    write_out(out, session.client.attest_key(session.name(name), nonce, challenge=question))


@key.command()
@click.argument("name")
@click.option(
    "--label", "-l", "labels", multiple=True, metavar="NAME=VALUE", callback=parse_labels, help="Set a label."
)
@click.option("--remove-label", "removed", multiple=True, metavar="NAME", help="Take a label away.")
@click.option("--primary", type=click.IntRange(min=1), metavar="N", help="The version that signs by default.")
@purpose_options
@control_options
@shared
@pass_session
@waiting
def update(
    session: Session,
    name: str,
    labels: dict[str, str],
    removed: tuple[str, ...],
    primary: int | None,
    purpose: Purpose | None,
    control: DualControl | None,
    approved: Approved,
) -> None:
    """Change labels, the primary version, what the key is for, or who has to approve what is done with it."""
    if not labels and not removed and (primary, purpose, control) == (None, None, None):
        raise click.UsageError("nothing to change: say --label, --remove-label, --primary, --purpose or --approvals")
    name = session.name(name)
    parse_key(name)
    info = session.client.get_key(name)
    if labels or removed:
        kept = {label: value for label, value in info.labels.items() if label not in removed}
        info = session.client.update_labels(name, kept | labels, etag=info.etag)
    if primary is not None:
        info = session.client.set_primary(name, primary, etag=info.etag)
    if purpose is not None:
        info = approved(lambda: session.client.set_purpose(name, purpose))
    if control is not None:
        info = approved(lambda: session.client.set_dual_control(name, control))
    session.show(info, lambda: _lines(info))


@key.command()
@click.argument("version")
@shared
@pass_session
def enable(session: Session, version: str) -> None:
    """Let a disabled version (NAME/versions/N) sign again."""
    info = session.client.enable_version(session.name(version))
    session.show(info, lambda: [f"{info.name} is {info.state.name.lower()}"])


@key.command()
@click.argument("version")
@shared
@pass_session
def disable(session: Session, version: str) -> None:
    """Keep a version (NAME/versions/N) from signing."""
    info = session.client.disable_version(session.name(version))
    session.show(info, lambda: [f"{info.name} is {info.state.name.lower()}"])


@key.command()
@click.argument("name")
@shared
@pass_session
def rotate(session: Session, name: str) -> None:
    """Make a new version, which becomes the primary one."""
    info = session.client.rotate_key(session.name(name))
    session.show(info, lambda: [f"{info.primary_version} is the primary version now"])


@key.command()
@click.argument("name")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Check everything, change nothing.")
@click.option("--release", is_flag=True, help="Adopted key: the handle goes, the object on the device stays.")
@click.option("--destroy-object", is_flag=True, help="Adopted key: the object on the device goes too.")
@shared
@pass_session
@waiting
def destroy(
    session: Session, name: str, yes: bool, dry_run: bool, release: bool, destroy_object: bool, approved: Approved
) -> None:
    """Destroy a key with all its versions, or one version. It cannot be undone."""
    if release and destroy_object:
        raise click.UsageError("--release and --destroy-object exclude each other")
    name = session.name(name)
    from hsmsign.client import AdoptedObject

    adopted = AdoptedObject.RELEASE if release else AdoptedObject.DESTROY if destroy_object else None
    checked = session.client.destroy_key(name, adopted=adopted, validate_only=True)
    gone = [one.name for one in checked.versions if name in (checked.name, one.name)]
    if dry_run:
        wanted = checked.dual_control.approvals if gone else 0
        after = [f"after {wanted} others have approved it"] if wanted else []
        answer = {"would_destroy": gone, "approvals": wanted}
        session.show(answer, lambda: [*(f"would destroy {one}" for one in gone), *after])
        return
    if not yes:
        words = "Release" if release else "Destroy the private key of"
        click.confirm(f"{words} {', '.join(gone)} on {checked.backend}? This cannot be undone", abort=True, err=True)
    info = approved(lambda: session.client.destroy_key(name, adopted=adopted))
    session.show(info, lambda: [f"{'released' if release else 'destroyed'} {one}" for one in gone])

"""hsmsign cert renew: a certificate in a file stays fresh."""

from __future__ import annotations

import datetime as dt
import os
import random
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hsmsign.cli.common import READABLE, Session, pass_session, shared, when, write_out
from hsmsign.model.errors import HsmsignError

if TYPE_CHECKING:
    from cryptography import x509

    from hsmsign.client import CertificateInfo

_FIRST_PAUSE, _LONGEST_PAUSE = 10.0, 3600.0
_LOOK_EVERY = 60.0
_PART = 3
"""It is renewed when a third of its life is left."""


@dataclass(frozen=True, slots=True)
class Renewal:
    """What is renewed, and how."""

    file: Path
    authority: str
    profile: str
    key: str | None
    """A key of the daemon."""
    key_file: Path | None
    """Or a private key in a file, PEM."""
    hook: str | None


@click.command()
@click.argument("file", type=READABLE)
@click.option("--authority", required=True, metavar="CA", help="Who issues it.")
@click.option("--profile", "-p", required=True, metavar="NAME", help="What kind.")
@click.option("--key", metavar="KEY", help="Its key, of this daemon.")
@click.option(
    "--key-file", type=READABLE, metavar="FILE", help="Or its private key in a file, PEM (where that must be)."
)
@click.option("--now", is_flag=True, help="Renew it, however long it still lives.")
@click.option("--follow", is_flag=True, help="Go on: renew it whenever a third of its life is left.")
@click.option("--hook", metavar="COMMAND", help="Run after each renewal, by sh, with HSMSIGN_CERTIFICATE=FILE.")
@shared
@pass_session
def renew(
    session: Session,
    file: Path,
    authority: str,
    profile: str,
    key: str | None,
    key_file: Path | None,
    now: bool,
    follow: bool,
    hook: str | None,
) -> None:
    """Renew the certificate in FILE, with the same key, subject and names. FILE is replaced in one step."""
    if (key is None) == (key_file is None):
        raise click.UsageError("say its key: --key KEY of the daemon, or --key-file FILE")
    renewal = Renewal(file, authority, profile, key, key_file, hook)
    if now or _left(file) <= 0:
        _renew(session, renewal)
    elif not follow:
        click.echo(f"{file}: not yet, {dt.timedelta(seconds=int(_left(file)))} to go", err=True)
    pause = _FIRST_PAUSE
    while follow:
        # a suspended machine and a file that somebody replaced: look again, do not trust a long sleep
        time.sleep(min(max(_left(file), 0.0), _LOOK_EVERY))
        if _left(file) > 0:
            continue
        try:
            _renew(session, renewal)
            pause = _FIRST_PAUSE
        except HsmsignError as error:
            click.echo(f"{file}: not renewed, again in {pause:.0f} s: {error.message}", err=True)
            time.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - so that not all ask at once
            pause = min(pause * 2, _LONGEST_PAUSE)


def read_certificate(path: Path) -> x509.Certificate:
    """The first certificate in a PEM file, or the one in a DER file."""
    from cryptography import x509

    content = path.read_bytes()
    try:
        if b"-----BEGIN" in content:
            return x509.load_pem_x509_certificates(content)[0]
        return x509.load_der_x509_certificate(content)
    except ValueError as error:
        raise click.ClickException(f"{path} holds no certificate: {error}") from None


def _left(file: Path) -> float:
    """Seconds until it is time."""
    found = read_certificate(file)
    begins, ends = found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()
    return ends - (ends - begins) / _PART - time.time()


def _renew(session: Session, renewal: Renewal) -> None:
    before = read_certificate(renewal.file)
    made = _issue(session, renewal, before)
    write_out(renewal.file, made.chain.encode(), mode=renewal.file.stat().st_mode & 0o777)
    session.show(made, lambda: [f"{renewal.file}: {made.name}, until {when(made.not_after)}"])
    if renewal.hook is not None:
        environment = {**os.environ, "HSMSIGN_CERTIFICATE": str(renewal.file)}
        done = subprocess.run(["sh", "-c", renewal.hook], env=environment, check=False)
        if done.returncode:
            raise click.ClickException(f"{renewal.file} is renewed, and the hook failed with {done.returncode}")


def _issue(session: Session, renewal: Renewal, before: x509.Certificate) -> CertificateInfo:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    ca = session.client.ca
    try:
        names = list(before.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        names = []
    if renewal.key is not None:
        subject = before.subject.rfc4514_string()
        said = [_text(one) for one in names]
        return ca.issue(renewal.authority, profile=renewal.profile, key=renewal.key, subject=subject, names=said)
    builder = x509.CertificateSigningRequestBuilder().subject_name(before.subject)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    key: Any = load_pem_private_key((renewal.key_file or Path()).read_bytes(), None)
    return ca.issue(renewal.authority, builder.sign(key, _hash(key)), profile=renewal.profile)


def _hash(key: Any) -> Any:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ed25519

    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def _text(name: x509.GeneralName) -> str:
    from cryptography import x509

    kinds = {
        x509.DNSName: "dns",
        x509.IPAddress: "ip",
        x509.RFC822Name: "email",
        x509.UniformResourceIdentifier: "uri",
    }
    return f"{kinds.get(type(name), 'other')}:{name.value}"

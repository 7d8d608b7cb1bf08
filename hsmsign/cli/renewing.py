"""hsmsign cert renew: a certificate in a file stays fresh; and how a command goes on for ever that keeps a file so."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from hsmsign.cli.common import READABLE, Session, pass_session, shared, when, write_out
from hsmsign.model.errors import HsmsignError
from hsmsign.model.pause import Pause

if TYPE_CHECKING:
    from cryptography import x509

    from hsmsign.client import CertificateInfo

_LOOK_EVERY = 60.0
_LEAST = 10.0
"""Seconds between two renewals."""
_PART = 3
"""It is renewed when a third of its life is left."""
_FAILURES = (HsmsignError, click.ClickException, OSError)


def keep_fresh(file: Path, work: Callable[[], tuple[bool, float]], hook: Callable[[], None]) -> NoReturn:
    """Keep a file fresh, for ever. `work` does what is due, and gives whether it wrote the file and in how many seconds
    something is due; it is called every minute at least. `hook` is run whenever the file was written. What fails
    (HsmsignError, ClickException, OSError) is told on stderr and done again after a pause; so is the hook, for itself,
    until it succeeds. Raises BrokenPipeError when nobody reads what is told."""
    working, hooking = Pause(), Pause()
    owed = False
    while True:
        if not working.left:
            try:
                written, seconds = work()
                # a suspended machine and a file that somebody replaced: look again, do not trust a long sleep
                working.done(min(max(seconds, 0.0), _LOOK_EVERY))
                if written:
                    owed, hooking = True, Pause()
            except BrokenPipeError:
                raise
            except _FAILURES as error:
                click.echo(f"{file}: not renewed, again in {working.failed():.0f} s: {_words(error)}", err=True)
        if owed and not hooking.left:
            try:
                hook()
                owed = False
            except _FAILURES as error:
                click.echo(f"{_words(error)}; again in {hooking.failed():.0f} s", err=True)
        time.sleep(min(working.left, hooking.left) if owed else working.left)


def run_hook(command: str | None, file: Path, environment: Mapping[str, str] | None = None) -> None:
    """Run it by sh, where there is one. Raises ClickException where it fails."""
    if command is None:
        return
    done = subprocess.run(["sh", "-c", command], env={**os.environ, **(environment or {})}, check=False)
    if done.returncode:
        raise click.ClickException(f"{file} is renewed, and the hook failed with {done.returncode}")


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
    if follow:
        _follow(session, renewal, now=now)
    if now or _left(file) <= 0:
        _renew(session, renewal)
        _run_hook(renewal)
    else:
        click.echo(f"{file}: not yet, {dt.timedelta(seconds=int(_left(file)))} to go", err=True)


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


def _follow(session: Session, renewal: Renewal, *, now: bool) -> NoReturn:
    at_once = now

    def work() -> tuple[bool, float]:
        nonlocal at_once
        left = 0.0 if at_once else _left(renewal.file)
        if left > 0:
            return False, left
        _renew(session, renewal)
        at_once = False
        return True, _LEAST  # one that is old when it comes is not asked for without end

    keep_fresh(renewal.file, work, lambda: _run_hook(renewal))


def _renew(session: Session, renewal: Renewal) -> None:
    before = read_certificate(renewal.file)
    made = _issue(session, renewal, before)
    write_out(renewal.file, made.chain.encode(), mode=renewal.file.stat().st_mode & 0o777)
    session.show(made, lambda: [f"{renewal.file}: {made.name}, until {when(made.not_after)}"])


def _run_hook(renewal: Renewal) -> None:
    run_hook(renewal.hook, renewal.file, {"HSMSIGN_CERTIFICATE": str(renewal.file)})


def _issue(session: Session, renewal: Renewal, before: x509.Certificate) -> CertificateInfo:
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
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
    path = renewal.key_file or Path()
    try:
        key: Any = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise click.ClickException(f"{path} holds no private key (PEM, without a passphrase)") from None
    return ca.issue(renewal.authority, builder.sign(key, _hash(key)), profile=renewal.profile)


def _words(error: Exception) -> str:
    return error.message if isinstance(error, HsmsignError | click.ClickException) else str(error)


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

"""hsmsign ocsp …: status of a certificate, and files for servers that staple."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hsmsign.cli.common import READABLE, Session, pass_session, shared, when, write_out
from hsmsign.cli.renewing import keep_fresh, run_hook
from hsmsign.model.errors import HsmsignError

if TYPE_CHECKING:
    import datetime as dt

    from cryptography import x509
    from cryptography.x509 import ocsp as x509_ocsp

_PAUSE = 30.0


@dataclass(frozen=True, slots=True)
class Status:
    """What an answer says."""

    status: str
    """"good", "revoked" or "unknown"."""
    revoked: dt.datetime | None
    this_update: dt.datetime
    next_update: dt.datetime | None


@click.group()
def ocsp() -> None:
    """OCSP: how a certificate does."""


@ocsp.command()
@click.argument("certificate", type=READABLE)
@shared
@pass_session
def check(session: Session, certificate: Path) -> int:
    """Ask how the certificate in a PEM file does, its issuer behind it. Exit code 0: good, 1: not."""
    answer, _ = _ask(session, certificate)
    found = Status(
        answer.certificate_status.name.lower(),
        answer.revocation_time_utc,
        answer.this_update_utc,
        answer.next_update_utc,
    )
    since = f" since {when(found.revoked)}" if found.revoked else ""
    session.show(found, lambda: [f"{found.status}{since}, as of {when(found.this_update)}"])
    return 0 if found.status == "good" else 1


@ocsp.command()
@click.argument("certificate", type=READABLE)
@click.option("--out", "-o", required=True, type=click.Path(path_type=Path), metavar="FILE", help="The answer, DER.")
@click.option("--follow", is_flag=True, help="Go on: write it anew after half of its life.")
@click.option("--hook", metavar="COMMAND", help="Run after each, by sh: 'nginx -s reload'.")
@shared
@pass_session
def staple(session: Session, certificate: Path, out: Path, follow: bool, hook: str | None) -> None:
    """Keep the OCSP answer for a certificate in a file, for ssl_stapling_file of nginx or CERT.ocsp of HAProxy."""
    due = 0.0

    def work() -> tuple[bool, float]:
        nonlocal due
        if (left := due - time.time()) > 0:
            return False, left
        answer, der = _ask(session, certificate)
        write_out(out, der)
        click.echo(f"{out}: {answer.certificate_status.name.lower()}, until {when(answer.next_update_utc)}", err=True)
        due = time.time() + _half(answer)
        return True, _half(answer)

    if follow:
        keep_fresh(out, work, lambda: run_hook(hook, out))
    work()
    run_hook(hook, out)


def _ask(session: Session, path: Path) -> tuple[x509_ocsp.OCSPResponse, bytes]:
    from cryptography.x509 import ocsp as x509_ocsp

    from hsmsign.tls.ocsp import Pair

    der = session.client.ca.ocsp(Pair(*_pair(path)).question())
    answer = x509_ocsp.load_der_ocsp_response(der)
    if answer.response_status is not x509_ocsp.OCSPResponseStatus.SUCCESSFUL:
        words = answer.response_status.name.lower().replace("_", " ")
        raise HsmsignError(
            f"the daemon does not answer for this certificate: {words}",
            hint="was it issued by an authority of this daemon? is its issuer the next one in the file?",
        )
    return answer, der


def _pair(path: Path) -> tuple[x509.Certificate, x509.Certificate]:
    """The certificate in a file, and its issuer behind it."""
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except ValueError as error:
        raise click.ClickException(f"{path} holds no certificates: {error}") from None
    issuer = next((one for one in found[1:] if one.subject == found[0].issuer), None)
    if issuer is None:
        raise click.ClickException(f"{path} does not hold the issuer of its first certificate; put it behind that")
    return found[0], issuer


def _half(answer: x509_ocsp.OCSPResponse) -> float:
    if answer.next_update_utc is None:
        return _PAUSE
    return max(1.0, (answer.next_update_utc - answer.this_update_utc).total_seconds() / 2)

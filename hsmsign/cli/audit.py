"""hsmsign audit …: what was recorded, and whether it still is what was recorded."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hsmsign.cli.common import READABLE, Session, pass_session, plain, shared, write_out
from hsmsign.cli.failures import EX_NO

if TYPE_CHECKING:
    from hsmsign.audit.notes import Verifier
    from hsmsign.audit.verifying import Report

_VERIFIER = click.option(
    "--verifier", metavar="KEY", help="The log's verifier key, or a file with it; see 'hsmsign audit key'."
)


@click.group()
def audit() -> None:
    """Read and check the audit log."""


@audit.command()
@shared
@pass_session
def key(session: Session) -> None:
    """The verifier key of the daemon's log. Keep it where the daemon cannot change it."""
    said = session.client.audit_checkpoint()
    session.show({"verifier_key": said.verifier_key}, lambda: [said.verifier_key])


@audit.command()
@click.option("--out", "-o", type=click.Path(path_type=Path), metavar="FILE", help="Else to stdout.")
@shared
@pass_session
def checkpoint(session: Session, out: Path | None) -> None:
    """The newest checkpoint. One that is kept elsewhere shows later that the log was not rolled back."""
    write_out(out, session.client.audit_checkpoint().note)


@audit.command()
@click.option("--last", "-n", type=click.IntRange(min=0), default=10, show_default=True, help="How many to begin with.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what is recorded from now on.")
@shared
@pass_session
def tail(session: Session, last: int, follow: bool) -> None:
    """The newest records; with --json a record a line, as it stands in the log."""
    for index, record in session.client.audit_records(last=last, follow=follow):
        click.echo(record.decode() if session.as_json else _line(index, json.loads(record)))


@audit.command()
@click.argument("id")
@click.option("--out", "-o", type=click.Path(path_type=Path), metavar="FILE", help="Else to stdout.")
@shared
@pass_session
def prove(session: Session, id: str, out: Path | None) -> None:
    """Prove that a record is in the log, by its index, its id or its request's id."""
    write_out(out, session.client.audit_proof(id))


@audit.command()
@click.argument("file", type=READABLE)
@_VERIFIER
@shared
@pass_session
def check(session: Session, file: Path, verifier: str | None) -> None:
    """Check a proof of 'hsmsign audit prove'. No daemon is asked."""
    from hsmsign.audit.proofs import Proof

    known = _verifier(verifier)
    if known is None:
        raise click.UsageError("say whose log it should be in: --verifier KEY")
    proof = Proof.decode(file.read_bytes())
    record = proof.check(known)
    session.show(record, lambda: [f"in the log {known.name}", _line(proof.index, record)])


@audit.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@_VERIFIER
@click.option("--checkpoint", "kept", type=READABLE, multiple=True, metavar="FILE", help="Kept elsewhere; repeatable.")
@click.option("--archived", is_flag=True, help="Full segments may be somewhere else.")
@shared
@pass_session
@click.pass_context
def verify(
    context: click.Context,
    session: Session,
    folder: Path,
    verifier: str | None,
    kept: tuple[Path, ...],
    archived: bool,
) -> None:
    """Check a whole log, in the FOLDER where it lies: exit code 0 good, 1 not. No daemon is asked."""
    from hsmsign.audit import verifying

    known = _verifier(verifier)
    notes = [file.read_bytes() for file in kept]
    report = verifying.verify(folder, known, kept=notes, archived=archived, progress=_progress(session))
    session.show({"good": report.good, **plain(report)}, lambda: _words(report, known))
    if not report.good:
        context.exit(EX_NO)


def _progress(session: Session) -> Any:
    """Tells a person how far it is; a script, nothing."""
    import sys

    if session.as_json or not sys.stderr.isatty():
        return lambda _: None
    return lambda read: click.echo(f"\r{read} records", nl=False, err=True)


def _verifier(text: str | None) -> Verifier | None:
    from hsmsign.audit.notes import Verifier

    if text is None:
        return None
    file = Path(text)
    return Verifier.parse(file.read_text() if "+" not in text or file.is_file() else text)


def _words(report: Report, verifier: Verifier | None) -> Iterable[str]:
    for finding in report.findings:
        yield f"record {finding.index}: {finding.words}" if finding.index is not None else finding.words
    if report.findings:
        yield f"NOT GOOD: {len(report.findings)} findings in {report.size} records"
    else:
        yield f"good: {report.size} records, {report.checkpoints} checkpoints, the newest covers {report.covered}"
    if report.archived:
        yield f"{report.archived} records are not here: their segments' roots were taken from the list"
    if verifier is None:
        yield "signatures of checkpoints were NOT checked: say --verifier KEY"
    if report.size > report.covered:
        yield f"no checkpoint covers the last {report.size - report.covered} records yet: nothing would show their loss"


def _line(index: int, record: dict[str, Any]) -> str:
    what = record.get("method") or record["event"]
    count = f" x{record['count']}" if record.get("count", 1) != 1 else ""
    words = [record["time"], str(index), record.get("principal") or record.get("peer") or "-", f"{what}{count}"]
    words += [record.get("key", ""), record.get("outcome", ""), record.get("request", "")]
    return "  ".join(word for word in words if word)

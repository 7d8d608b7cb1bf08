"""hsmsign sign, hsmsign verify"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import click

from hsmsign.cli.approvals import Approved, waiting
from hsmsign.cli.common import Session, pass_session, shared, write_out
from hsmsign.cli.failures import EX_NO
from hsmsign.model.algorithms import Digest, Scheme, SignatureFormat
from hsmsign.model.errors import InvalidArgumentError, MessageRequiredError, MessageSizeError

MESSAGE_MAX = 1 << 20
"""What a daemon takes as a message if its limits were not changed."""
SCHEMES = {scheme.name.lower().replace("_", "-"): scheme for scheme in Scheme}
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Input:
    """What is signed: one of the two."""

    message: bytes | None = None
    digest: bytes | None = None


def _options(function: Any) -> Any:
    for option in (
        click.option("--digest", metavar="HEX", help="A digest instead of a file."),
        click.option("--scheme", type=click.Choice(list(SCHEMES)), help="Wanted for RSA keys, which have several."),
        click.option(
            "--format",
            "form",
            type=click.Choice(["der", "raw"]),
            default="der",
            show_default=True,
            help="How an ECDSA signature is written.",
        ),
    ):
        function = option(function)
    return function


@click.command()
@click.argument("name")
@click.argument("file", required=False)
@click.option("--out", "-o", type=click.Path(path_type=Path), metavar="SIG", help="Else to stdout.")
@_options
@shared
@pass_session
@waiting
def sign(
    session: Session,
    name: str,
    file: str | None,
    out: Path | None,
    digest: str | None,
    scheme: str | None,
    form: str,
    approved: Approved,
) -> None:
    """Sign FILE (- is stdin), of any size: up to 1 MiB it travels whole; of a larger one the digest does, which
    wants the right to sign digests.

    Ed25519 signs whole messages only.
    """
    name = session.name(name)
    if out is None and not session.as_json and sys.stdout.isatty():
        raise click.UsageError("a signature is bytes: say --out FILE, or --json, or send stdout to a file")
    version, chosen, given = _prepare(session, name, file, digest, scheme)
    made = approved(
        lambda: session.client.sign(
            version, message=given.message, digest=given.digest, scheme=chosen, format=SignatureFormat[form.upper()]
        )
    )
    if session.as_json:
        if out is not None:
            write_out(out, made.value)
        session.show({"signature": made.value, "key_version": made.key_version, "scheme": made.scheme.name}, list)
        return
    write_out(out, made.value)
    if out is not None and str(out) != "-":
        click.echo(f"{out}: {made.scheme.name} by {made.key_version}", err=True)


@click.command()
@click.argument("name")
@click.argument("paths", nargs=-1, required=True, metavar="[FILE] SIG")
@_options
@shared
@click.pass_context
def verify(
    context: click.Context,
    name: str,
    paths: tuple[str, ...],
    digest: str | None,
    scheme: str | None,
    form: str,
) -> None:
    """Check the signature SIG of FILE (- is stdin). Exit code 0: valid, 1: not."""
    if len(paths) > 2:
        raise click.UsageError("one FILE and one SIG, or --digest HEX and one SIG")
    file, signature = (paths[0] if len(paths) == 2 else None), Path(paths[-1])
    session = context.ensure_object(Session)
    name = session.name(name)
    value = signature.read_bytes()
    version, chosen, given = _prepare(session, name, file, digest, scheme)
    written = SignatureFormat[form.upper()]
    verdict = session.client.verify(
        version, value, message=given.message, digest=given.digest, scheme=chosen, format=written
    )
    session.show(verdict, lambda: [f"{'valid' if verdict else 'NOT VALID'}, {verdict.key_version}"])
    if not verdict:
        context.exit(EX_NO)


def _prepare(
    session: Session, name: str, file: str | None, digest: str | None, scheme: str | None
) -> tuple[str, Scheme, Input]:
    """The version, the scheme, and `message` or `digest`, with one question to the daemon."""
    if (file is None) == (digest is None):
        raise click.UsageError("say a FILE (or - for stdin), or --digest HEX")
    info = session.client.public_key_info(name)
    chosen = info.algorithm.scheme(SCHEMES[scheme] if scheme else None)
    if digest is not None:
        return info.key_version, chosen, Input(digest=_digest(chosen, digest))
    with _open(str(file)) as source:
        return info.key_version, chosen, _read(source, chosen)


def _digest(scheme: Scheme, text: str) -> bytes:
    if scheme.hash is None:
        raise MessageRequiredError("Ed25519 signs messages, not digests", hint="give the file instead of --digest")
    try:
        value = bytes.fromhex(text)
    except ValueError:
        raise InvalidArgumentError(
            "--digest is not hexadecimal", hint=f"{2 * scheme.hash.size} of 0-9 a-f, as {scheme.hash.value}sum prints"
        ) from None
    return Digest(scheme.hash, value).value


def _read(source: BinaryIO, scheme: Scheme) -> Input:
    message = source.read(MESSAGE_MAX + 1)
    if len(message) <= MESSAGE_MAX:
        return Input(message=message)
    if scheme.hash is None:
        raise MessageSizeError(
            "the file is larger than 1 MiB, and Ed25519 signs whole messages",
            hint="sign a digest of it as the message (sha256sum FILE | hsmsign sign NAME -), or use an EC key",
        )
    hashed = hashlib.new(scheme.hash.value, message)
    while chunk := source.read(_CHUNK):
        hashed.update(chunk)
    return Input(digest=hashed.digest())


def _open(file: str) -> contextlib.AbstractContextManager[BinaryIO]:
    if file == "-":
        return contextlib.nullcontext(sys.stdin.buffer)
    return Path(file).open("rb")

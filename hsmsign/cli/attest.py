"""hsmsign attest …: the side of whoever wants to know where a key lives. No daemon is asked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hsmsign.cli.common import READABLE, Hex, Session, pass_session, shared, when, write_out

if TYPE_CHECKING:
    from cryptography import x509

    from hsmsign.attestation import Attested


@click.group()
def attest() -> None:
    """Check offline where a key lives."""


_EK_CA = click.option(
    "--ek-ca", type=READABLE, metavar="PEM", help="CAs of TPM makers; every certificate in the file is trusted."
)


@attest.command()
@click.argument("file", type=READABLE)
@_EK_CA
@click.option("--nonce", type=Hex(), metavar="HEX", help="The one that you sent; without it an old answer passes.")
@click.option("--secret", "secret_file", type=READABLE, metavar="FILE", help="That of 'attest challenge'.")
@click.option("--attester", type=Hex(), metavar="HEX", help="An attestation key that you know from before.")
@click.option("--require-proof", is_flag=True, help="Say no where the device itself has not proved it.")
@click.option("--allow-asserted", is_flag=True, help="Say yes where only the daemon says so.")
@shared
@pass_session
def verify(
    session: Session,
    file: Path,
    ek_ca: Path | None,
    nonce: bytes | None,
    secret_file: Path | None,
    attester: bytes | None,
    require_proof: bool,
    allow_asserted: bool,
) -> None:
    """Check an attestation; exit code 0 true, 1 not."""
    from hsmsign.attestation import AttestationError, Evidence
    from hsmsign.attestation import verify as check

    secret = _read_secret(secret_file) if secret_file else None
    attested = check(
        file.read_bytes(), ek_roots=_certificates(ek_ca), nonce=nonce, secret=secret, known_attester=attester
    )
    if attested.evidence is Evidence.ASSERTED and not allow_asserted:
        raise AttestationError(
            "no device proves where this key is: the daemon asserts it",
            hint="if the daemon's word is enough for you: --allow-asserted",
        )
    if require_proof and not attested.proved:
        raise AttestationError("it is not proved that a TPM made this key", hint=_how_to_prove(file))
    session.show(_plain(attested), lambda: _lines(attested))
    if not attested.proved and attested.evidence is Evidence.TPM2_CERTIFY and not session.as_json:
        click.echo(f"NOT PROVED that the attestation key is in that TPM.\n  {_how_to_prove(file)}", err=True)
    if nonce is None and not session.as_json:
        click.echo("no --nonce was given: this may be an old attestation", err=True)


def _how_to_prove(file: Path) -> str:
    return f"Challenge it:  hsmsign attest challenge {file} --ek-ca PEM --out challenge.json --secret secret"


@attest.command()
@click.argument("file", type=READABLE)
@_EK_CA
@click.option("--out", "-o", type=click.Path(path_type=Path), required=True, metavar="FILE", help="For the daemon.")
@click.option(
    "--secret", "secret_file", type=click.Path(path_type=Path), required=True, metavar="FILE", help="For you alone."
)
@shared
@pass_session
def challenge(session: Session, file: Path, ek_ca: Path | None, out: Path, secret_file: Path) -> None:
    """Make what only the TPM of an attestation can open, for a second attestation to show."""
    from hsmsign.attestation import challenge as make

    made, secret = make(file.read_bytes(), ek_roots=_certificates(ek_ca))
    write_out(secret_file, secret.hex().encode() + b"\n", mode=0o600)
    write_out(out, made.encode())
    lines = [
        f"challenge: {out}",
        f"secret:    {secret_file}",
        f"Send the challenge:  hsmsign key attest NAME --nonce {os.urandom(16).hex()} --challenge {out} --out FILE",
    ]
    session.show({"challenge": str(out), "secret_file": str(secret_file)}, lambda: lines)


def _certificates(file: Path | None) -> list[x509.Certificate]:
    from cryptography import x509

    if file is None:
        return []
    try:
        return x509.load_pem_x509_certificates(file.read_bytes())
    except ValueError as error:
        raise click.BadParameter(f"{file} has no certificates in PEM: {error}", param_hint="--ek-ca") from None


def _read_secret(file: Path) -> bytes:
    try:
        return bytes.fromhex(file.read_text("ascii"))
    except ValueError:
        raise click.BadParameter(f"{file} is no secret of 'attest challenge'", param_hint="--secret") from None


def _plain(attested: Attested) -> dict[str, object]:
    certificate = attested.ek_certificate
    return {
        "name": attested.name,
        "algorithm": attested.algorithm,
        "public_key": attested.public_key,
        "evidence": attested.evidence,
        "binding": attested.binding,
        "proved": attested.proved,
        "nonce": attested.nonce.hex(),
        "time": attested.time,
        "device": attested.device,
        "facts": attested.facts,
        "policy": attested.policy.hex(),
        "attester": attested.ak_name.hex(),
        "ek_serial": f"{certificate.serial_number:x}" if certificate else "",
        "ek_issuer": certificate.issuer.rfc4514_string() if certificate else "",
    }


def _lines(attested: Attested) -> list[str]:
    from hsmsign.attestation import Binding

    words = {
        Binding.CHALLENGED: "proved: a TPM made this key and does not let it go; that TPM opened your challenge",
        Binding.KNOWN: "proved: a TPM made this key and does not let it go; you know its attestation key",
        Binding.CLAIMED: "certified by an attestation key that claims to be in a TPM",
        Binding.NONE: "asserted by the daemon, not proved by the device; the daemon can use the key",
    }
    device = attested.device
    lines = [
        f"{attested.name}  {attested.algorithm.value}",
        f"  {words[attested.binding]}",
        f"  nonce      {attested.nonce.hex()}",
        f"  time       {when(attested.time)}, by the daemon's clock",
        f"  device     {device.get('manufacturer', '')} {device.get('model', '')} {device.get('firmware', '')}",
    ]
    if attested.ek_certificate is not None:
        certificate = attested.ek_certificate
        lines.append(f"  TPM        serial {certificate.serial_number:x}, from {certificate.issuer.rfc4514_string()}")
    if attested.ak_name:
        lines.append(f"  attester   {attested.ak_name.hex()}")
    if attested.policy:
        lines.append(f"  policy     {attested.policy.hex()}")
    return lines

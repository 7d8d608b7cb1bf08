"""hsmsign csr"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hsmsign.cli.common import Session, pass_session, shared, write_out
from hsmsign.model.algorithms import Scheme

if TYPE_CHECKING:
    from cryptography import x509


@click.command()
@click.argument("name")
@click.option("--subject", required=True, metavar="DN", help="RFC 4514: CN=web-1,O=Example")
@click.option("--san", "sans", multiple=True, metavar="KIND:VALUE", help="DNS:, IP:, URI: or EMAIL:. May be repeated.")
@click.option("--pss", is_flag=True, help="RSA: sign with PSS instead of PKCS #1 v1.5.")
@click.option("--out", "-o", type=click.Path(path_type=Path), metavar="FILE", help="Else to stdout, as PEM.")
@shared
@pass_session
def csr(session: Session, name: str, subject: str, sans: tuple[str, ...], pss: bool, out: Path | None) -> None:
    """Make a certificate signing request (PKCS #10), signed by the key."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    builder = x509.CertificateSigningRequestBuilder().subject_name(_subject(subject))
    if sans:
        names = x509.SubjectAlternativeName([_san(one) for one in sans])
        builder = builder.add_extension(names, critical=False)
    key: Any = session.client.key(session.name(name))
    request = _sign(builder, key, pss)
    pem = request.public_bytes(Encoding.PEM)
    if session.as_json:
        if out is not None:
            write_out(out, pem)
        session.show({"csr": pem.decode("ascii"), "key_version": key.key_version}, list)
        return
    write_out(out, pem)


def _sign(builder: x509.CertificateSigningRequestBuilder, key: Any, pss: bool) -> x509.CertificateSigningRequest:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    scheme: Scheme = key.algorithm.schemes[0]
    hashed = getattr(hashes, scheme.hash.name)() if scheme.hash else None
    if not pss:
        return builder.sign(key, hashed)
    if not isinstance(key, rsa.RSAPrivateKey) or hashed is None:
        raise click.UsageError(f"--pss is for RSA keys, and this one is {key.algorithm.value}")
    return builder.sign(key, hashed, rsa_padding=padding.PSS(padding.MGF1(hashed), padding.PSS.DIGEST_LENGTH))


def _subject(text: str) -> x509.Name:
    from cryptography import x509

    try:
        return x509.Name.from_rfc4514_string(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: {error} (as in CN=web-1,O=Example)", param_hint="--subject") from None


def _san(text: str) -> x509.GeneralName:
    from cryptography import x509

    kind, _, value = text.partition(":")
    makers = {
        "DNS": x509.DNSName,
        "IP": lambda address: x509.IPAddress(ipaddress.ip_address(address)),
        "URI": x509.UniformResourceIdentifier,
        "EMAIL": x509.RFC822Name,
    }
    maker: Any = makers.get(kind.upper())
    if maker is None or not value:
        raise click.BadParameter(f"{text!r} is not {':, '.join(makers)}: with a value", param_hint="--san")
    try:
        made: x509.GeneralName = maker(value)
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: {error}", param_hint="--san") from None
    return made

"""Chains of certificates, and the shapes that an authority's own certificate and request have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsmsign.model.algorithms import Scheme
from hsmsign.model.errors import InvalidArgumentError
from hsmsign.pki.capturing import PrivateKey, hash_of, padding_of
from hsmsign.pki.certificates import Issuer
from hsmsign.pki.drafting import Draft
from hsmsign.purposes.signed import UNREADABLE

CHAIN_MAX = 16
BYTES_MAX = 256 << 10


def read(text: str, public_key: bytes, subject: x509.Name) -> list[x509.Certificate]:
    """A certificate for this key (SPKI, DER) and name, and those above it in their order, from PEM in any order.

    Raises InvalidArgumentError where one is missing, is no CA's, or did not sign the one below it."""
    try:
        given = x509.load_pem_x509_certificates(text.encode()) if len(text) <= BYTES_MAX else []
        for one in given:  # read whole now: parts of them are parsed only when they are looked at
            _ = one.subject, one.issuer, one.extensions
    except UNREADABLE:
        given = []
    if not given or len(given) > CHAIN_MAX:
        raise _wrong(f"the chain is no PEM with 1 to {CHAIN_MAX} certificates", "the certificate itself, then the CAs")
    first = next((one for one in given if _spki(one) == public_key and one.subject == subject), None)
    if first is None:
        raise _wrong(
            f"no certificate of the chain is for this authority's key and for {subject.rfc4514_string()}",
            "was its own request signed, with the subject as it is? see: hsmsign ca show",
        )
    chain = [first]
    while not self_signed(chain[-1]):
        above = next((one for one in given if _issued(one, chain[-1])), None)
        if above is None or above in chain:
            raise _wrong(
                f"the certificate of {chain[-1].issuer.rfc4514_string()} is missing in the chain",
                "add it, up to the self-signed one",
            )
        chain.append(above)
    for one in chain:
        _must_be_a_ca(one)
    return chain


def united(known: Sequence[x509.Certificate], more: Iterable[x509.Certificate]) -> list[x509.Certificate]:
    """All of them, each once."""
    return [*known, *(one for one in more if one not in known)]


def self_signed(one: x509.Certificate) -> bool:
    """Whether its own key signed it."""
    return one.issuer == one.subject and _issued(one, one)


def pem(found: Iterable[x509.Certificate]) -> str:
    """As a file has them."""
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in found)


def itself(drawn: Draft, scheme: Scheme) -> Issuer:
    """The issuer of a self-signed certificate."""
    return Issuer(
        name=drawn.subject,
        public_key=drawn.public_key,
        scheme=scheme,
        key_identifier=x509.SubjectKeyIdentifier.from_public_key(drawn.public_key).digest,
        not_before=drawn.not_before,
        not_after=drawn.not_after,
        path_length=None,
    )


def request(subject: x509.Name, scheme: Scheme, path_length: int) -> Callable[[PrivateKey], object]:
    """Signs a request for a CA's certificate."""
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    return lambda key: builder.sign(key, hash_of(scheme), rsa_padding=padding_of(scheme))


def _issued(above: x509.Certificate, below: x509.Certificate) -> bool:
    try:
        below.verify_directly_issued_by(above)
    except (*UNREADABLE, InvalidSignature):
        return False
    return True


def _must_be_a_ca(one: x509.Certificate) -> None:
    try:
        is_ca = one.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (*UNREADABLE, x509.ExtensionNotFound):
        is_ca = False
    if not is_ca:
        raise _wrong(f"the certificate of {one.subject.rfc4514_string()} is no CA's", "it must say CA:TRUE")


def _spki(one: x509.Certificate) -> bytes:
    try:
        return one.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except UNREADABLE:
        return b""


def _wrong(message: str, hint: str) -> InvalidArgumentError:
    return InvalidArgumentError(message, hint=hint, metadata={"field": "chain"})

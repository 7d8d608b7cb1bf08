"""Says in words what a message is, for those who have to approve that it is signed."""

from __future__ import annotations

from hashlib import sha256

from cryptography import x509

from hsmsign.model.algorithms import Scheme
from hsmsign.purposes import signed

_WORDS_MAX = 1000


def describe(message: bytes, scheme: Scheme) -> str:
    """One line of ASCII: characters that look like others are shown as escapes. It ends with the SHA-256."""
    words = ""
    try:
        # each compared with None: a CRL without entries is as long as nothing
        if (certificate := signed.certificate(message, scheme)) is not None:
            words = _certificate(certificate)
        elif (crl := signed.crl(message, scheme)) is not None:
            words = f"CRL of {crl.issuer.rfc4514_string()} with {len(crl)} entries, next update {crl.next_update_utc}"
        elif (request := signed.request(message, scheme)) is not None:
            words = f"certification request of {request.subject.rfc4514_string()}"
        elif signed.response(message, scheme) is not None:
            words = "OCSP answer"
    except signed.UNREADABLE:  # some parts are parsed only when they are looked at
        words = "something like X.509 that cannot be read"
    plain = words.encode("unicode_escape").decode("ascii")
    shown = plain if len(plain) <= _WORDS_MAX else plain[:_WORDS_MAX] + " ... (look at the message itself)"
    return f"{shown or f'{len(message)} bytes'}, SHA-256 {sha256(message).hexdigest()}"


def _certificate(found: x509.Certificate) -> str:
    words = [
        f"certificate for {found.subject.rfc4514_string()}",
        f"by {found.issuer.rfc4514_string()}",
        f"valid {found.not_valid_before_utc:%Y-%m-%d} to {found.not_valid_after_utc:%Y-%m-%d}",
        f"serial {found.serial_number:x}",
    ]
    for extension in found.extensions:
        value = extension.value
        if isinstance(value, x509.BasicConstraints) and value.ca:
            words.append(f"CA, path length {'unlimited' if value.path_length is None else value.path_length}")
        if isinstance(value, x509.SubjectAlternativeName):
            words.append(f"names {' '.join(str(name.value) for name in value)}")
    return ", ".join(words)

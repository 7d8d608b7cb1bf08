"""What the certificate authority reads of strangers: requests, names, OCSP, identity tokens, chains."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import tempfile
from base64 import urlsafe_b64encode
from hashlib import sha256
from pathlib import Path

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp as x509_ocsp

from hsmsign.model import ca_names
from hsmsign.model.algorithms import Scheme
from hsmsign.model.errors import HsmsignError
from hsmsign.model.signed_der import wrap
from hsmsign.pki import certificates, chains, names, ocsp, requests
from hsmsign.pki.drafting import draft
from hsmsign.pki.identity.issuers import IssuerRules, Kind, NameTemplates
from hsmsign.pki.identity.verifying import Identities
from hsmsign.pki.ocsp_answers import UNKNOWN, Responder, assemble, response_data
from hsmsign.pki.own_requests import OwnKey
from hsmsign.pki.reading_profiles import read_profiles

KEY = ec.derive_private_key(int.from_bytes(sha256(b"a key that everybody knows").digest()), ec.SECP256R1())
SPKI = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
SCHEME = Scheme.ECDSA_P256_SHA256
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
NAME = x509.Name.from_rfc4514_string("CN=Root")
_NAMES = {
    "dns": ["**.example.org"],
    "uri": ["spiffe://example.org/**"],
    "email": ["*@example.org"],
    "ip": ["10.0.0.0/8"],
}
PROFILE = next(
    one
    for one in read_profiles({"fuzz": {"base": "mutual", "names": {**_NAMES, "wildcards": True}}})
    if one.name == "fuzz"
)
_ROOT = certificates.ca_draft(NAME, KEY.public_key(), now=NOW, validity=dt.timedelta(days=3650), path_length=0)
ISSUER = chains.itself(_ROOT, SCHEME)


def sign(data: bytes) -> bytes:
    """By the key."""
    return KEY.sign(data, ec.ECDSA(hashes.SHA256()))


def certificate(tbs: bytes) -> x509.Certificate:
    """The certificate that is made of what is to be signed."""
    return x509.load_der_x509_certificate(certificates.assemble(tbs, SCHEME, sign(tbs)))


ROOT = certificate(certificates.to_be_signed(_ROOT, ISSUER, 1))


def certify(data: bytes) -> None:
    """A CertificationRequestInfo whose signature is good: what is certified says what its profile allows."""
    found = requests.read(wrap(data, SCHEME, sign(data)))
    made = certificate(certificates.to_be_signed(draft(found, PROFILE, now=NOW), ISSUER, 77))
    san = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [names.check(one) for one in san] == list(san)
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert made.issuer == NAME
    for one in san.get_values_for_type(x509.DNSName):
        assert one.endswith(".example.org")


def request(data: bytes) -> None:
    """A request reads as it is written."""
    found = requests.read(data)
    assert requests.read(found.der).names == found.names


def own_name(data: bytes) -> None:
    """Names and subjects for keys of the daemon."""
    subject, _, name = data.decode("utf-8", "replace").partition("\n")
    found = OwnKey(SPKI, subject, (name,)).request()
    assert OwnKey(SPKI, "", tuple(names.text(one) for one in found.names)).request().names == found.names


def ocsp_request(data: bytes) -> None:
    """A question gets the answer that it asks for."""
    question = ocsp.read_request(data)
    by = Responder(ROOT, "key", SCHEME)
    next_update = NOW + dt.timedelta(hours=1)
    part = response_data(question, UNKNOWN, by, this_update=NOW, next_update=next_update, nonce=question.nonce)
    assert x509_ocsp.load_der_ocsp_response(assemble(part, sign(part), by)).serial_number == question.serial


def ocsp_get(data: bytes) -> None:
    """The same by GET."""
    ocsp_request(ocsp.read_get(data.decode("utf-8", "replace")))


def ca_name(data: bytes) -> None:
    """A name reads as it is written."""
    text = data.decode("utf-8", "replace")
    try:
        assert str(ca_names.authority(text)) == text
    except HsmsignError:
        serial = ca_names.certificate(text)
        assert ca_names.certificate(serial) == serial


def chain(data: bytes) -> None:
    """A chain for a key and a name ends with a certificate that signed itself."""
    assert chains.self_signed(chains.read(data.decode("utf-8", "replace"), SPKI, NAME)[-1])


class Token:
    """Claims in a token whose signature is good vouch for what the configuration says, or for nothing."""

    def __init__(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="hsmsign-fuzz-"))
        jwk = jwt.get_algorithm_by_name("ES256").to_jwk(KEY.public_key(), as_dict=True)
        (folder / "jwks").write_text(json.dumps({"keys": [{**jwk, "kid": "k", "use": "sig"}]}))
        rules = IssuerRules(
            name="fuzz",
            kind=Kind.OIDC,
            issuer="https://id.example.org",
            audience="ca",
            jwks_file=folder / "jwks",
            claims=(("sub", "sub"), ("host", "machine.host")),
            names=NameTemplates(dns=("{host}.example.org",), uri=("spiffe://example.org/{sub}",)),
        )
        self._identities = Identities([rules], clock=NOW.timestamp)
        self._loop = asyncio.new_event_loop()

    def __call__(self, data: bytes) -> None:
        """The payload of a token."""

        def part(one: bytes) -> bytes:
            return urlsafe_b64encode(one).rstrip(b"=")

        head = part(b'{"alg":"ES256","kid":"k","typ":"JWT"}') + b"." + part(data)
        raw = jwt.get_algorithm_by_name("ES256").sign(head, KEY)
        text = (head + b"." + part(raw)).decode()
        found = self._loop.run_until_complete(self._identities.verify(text, SPKI))
        for one in found.names:
            assert isinstance(one, x509.DNSName | x509.UniformResourceIdentifier)
            assert one.value.endswith(".example.org") or one.value.startswith("spiffe://example.org/")
            names.check(one)

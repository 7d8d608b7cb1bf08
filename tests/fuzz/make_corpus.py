"""Makes the corpus: a few real objects for each target. python -m tests.fuzz.make_corpus"""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import json
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass

from hsmsign.audit import merkle, wire
from hsmsign.audit.notes import Checkpoint
from hsmsign.audit.proofs import Proof
from hsmsign.keyring import paging
from hsmsign.model import attestation
from hsmsign.model.attestation import Attestation, Challenge
from tests.fuzz import pki
from tests.fuzz.requests import METHODS
from tests.fuzz.targets import KEY, ROOT, VERIFIER

CORPUS = Path(__file__).parent / "corpus"
NAME = x509.Name.from_rfc4514_string("CN=Root")
FROM, TO = dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.datetime(2026, 6, 1, tzinfo=dt.UTC)


def certificates() -> list[bytes]:
    """TBSCertificates of a leaf and of a CA."""
    made = []
    for ca in (False, True):
        builder = x509.CertificateBuilder().issuer_name(NAME).subject_name(x509.Name.from_rfc4514_string("CN=a"))
        builder = builder.public_key(KEY.public_key()).serial_number(77).not_valid_before(FROM).not_valid_after(TO)
        builder = builder.add_extension(x509.BasicConstraints(ca, 0 if ca else None), critical=True)
        if not ca:
            names = [x509.DNSName("a.example.org"), x509.IPAddress(ipaddress.ip_address("10.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        made.append(builder.sign(KEY, hashes.SHA256()).tbs_certificate_bytes)
    return made


def crl() -> bytes:
    """A TBSCertList."""
    revoked = x509.RevokedCertificateBuilder().serial_number(5).revocation_date(FROM).build()
    builder = x509.CertificateRevocationListBuilder().issuer_name(NAME).last_update(FROM).next_update(TO)
    return builder.add_revoked_certificate(revoked).sign(KEY, hashes.SHA256()).tbs_certlist_bytes


def request() -> bytes:
    """A CertificationRequestInfo."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(NAME)
    return builder.sign(KEY, hashes.SHA256()).tbs_certrequest_bytes


def answers() -> list[bytes]:
    """ResponseData, the responder by name and by hash."""
    builder = x509.CertificateBuilder().issuer_name(NAME).subject_name(NAME).public_key(KEY.public_key())
    own = builder.serial_number(1).not_valid_before(FROM).not_valid_after(TO).sign(KEY, hashes.SHA256())
    made = []
    for encoding in ocsp.OCSPResponderEncoding:
        response = ocsp.OCSPResponseBuilder().add_response(
            own, own, hashes.SHA1(), ocsp.OCSPCertStatus.GOOD, FROM, TO, None, None
        )
        made.append(response.responder_id(encoding, own).sign(KEY, hashes.SHA256()).tbs_response_bytes)
    return made


def handshakes() -> dict[str, list[bytes]]:
    """What is signed in TLS 1.3, and in TLS 1.2."""
    exchange = bytes(64) + bytes.fromhex("03001d20") + b"A" * 32
    content = {
        side: b" " * 64 + f"TLS 1.3, {side} CertificateVerify".encode() + bytes(33) for side in ("server", "client")
    }
    messages = b"".join(bytes((kind,)) + (2).to_bytes(3) + b"ab" for kind in (1, 2, 11, 14, 11, 16))
    return {"tls-server": [content["server"], exchange], "tls-client": [content["client"], messages]}


def tokens() -> list[bytes]:
    """header.payload"""

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return [f"{part({'alg': 'ES256'})}.{part({'iss': 'https://id', 'aud': ['ci'], 'exp': 9})}".encode()]


def signed(checkpoint: Checkpoint) -> bytes:
    """A note with a signature."""
    text = checkpoint.text
    return (text + "\n" + VERIFIER.line(KEY.sign(text.encode(), ec.ECDSA(hashes.SHA256())))).encode()


def proofs() -> list[bytes]:
    """Of a log with two records."""
    leaves = [merkle.leaf(record) for record in (b'{"a":1}', b'{"b":2}')]
    note = signed(Checkpoint(VERIFIER.name, 2, merkle.node(*leaves)))
    return [Proof(b'{"a":1}', 0, (leaves[1],), note).encode()]


def tpm() -> dict[str, list[bytes]]:
    """TPMT_PUBLIC of a P-256 key, TPMS_ATTEST of TPM2_Certify, TPMT_SIGNATURE."""
    point = KEY.public_key().public_numbers()
    x, y = (b"\x00\x20" + value.to_bytes(32) for value in (point.x, point.y))
    head = bytes.fromhex("0023000b00040072" + "0020") + sha256(b"policy").digest()
    public = head + bytes.fromhex("0010" + "0018000b" + "0003" + "0010") + x + y
    name = b"\x00\x22\x00\x0b" + sha256(public).digest()
    attest = (
        bytes.fromhex("ff5443478017") + name + b"\x00\x20" + sha256(b"x").digest() + bytes(17) + bytes(8) + name * 2
    )
    return {"tpm-public": [public], "tpm-attest": [attest], "tpm-signature": [bytes.fromhex("0018000b") + x + y]}


def corpus() -> dict[str, list[bytes]]:
    """By target."""
    said = Attestation(attestation.canonical({"name": "keys/a"}), b"", b"", b"", b"signature")
    authority = [*certificates(), crl(), *answers()]
    return {
        **handshakes(),
        **tpm(),
        "ca": authority,
        "words": authority,
        "csr": [request()],
        "ocsp": answers(),
        "jwt": tokens(),
        "note": [signed(ROOT)],
        "verifier": [str(VERIFIER).encode()],
        "proof": proofs(),
        "frames": [wire.frame(1, b"body") + wire.frame(2)],
        "name": [b"keys/web-1", b"keys/web-1/versions/2"],
        "uri": [b"pkcs11:token=t;object=o;id=%01%02;type=private", b"tpm2:handle=0x81010001"],
        "page-token": [paging.token("a", {}, "").encode()],
        "document": [attestation.encode(said)],
        "challenge": [Challenge(b"credential", b"secret").encode()],
        "ssh-agent": [
            b"\x0b",
            b"\x0d" + bytes.fromhex("00000004") + b"blob" + bytes(4) + b"\0\0\0\2",
            b"\x1b\0\0\0\5query",
        ],
        "request": [bytes((at,)) + requests(at) for at in range(len(METHODS))],
        **of_the_authority(),
        **of_applications(),
    }


def of_applications() -> dict[str, list[bytes]]:
    """Rules, and paths that they are asked about."""
    head = b'[[rule]]\npeers = ["*"]\n'
    return {
        "rights": [
            head + b'methods = ["GET", "POST"]\npaths = ["/articles/**", "/v*/a"]\nnote = "x"',
            head + b'calls = ["/shop.v1.Shop/Read*"]\n' + head + b'methods = ["HEAD"]',
        ],
        "rights-path": [
            b"/articles/1?a=b",
            b"/articles/a%20b/%C3%A4;x",
            b"/v1/a",
            b"/articles/%2e%2e/x",
            b"/articles/%252e%252e/x",
        ],
    }


def of_the_authority() -> dict[str, list[bytes]]:
    """What it reads of strangers."""
    names = [
        x509.DNSName("web.example.org"),
        x509.UniformResourceIdentifier("spiffe://example.org/a"),
        x509.RFC822Name("a@example.org"),
        x509.IPAddress(ipaddress.ip_address("10.1.2.3")),
    ]
    built = x509.CertificateSigningRequestBuilder().subject_name(x509.Name.from_rfc4514_string("CN=web.example.org"))
    built = built.add_extension(x509.SubjectAlternativeName(names), critical=False)
    made = built.add_extension(x509.BasicConstraints(False, None), critical=True).sign(KEY, hashes.SHA256())
    asked = ocsp.OCSPRequestBuilder().add_certificate(pki.ROOT, pki.ROOT, hashes.SHA1())
    nonce = asked.add_extension(x509.OCSPNonce(b"nonce"), critical=False)
    questions = [one.build().public_bytes(Encoding.DER) for one in (asked, nonce)]
    now = int(pki.NOW.timestamp())
    claims = {"iss": "https://id.example.org", "sub": "a", "aud": "ca", "iat": now, "exp": now + 60, "jti": "1"}
    return {
        "certify": [made.tbs_certrequest_bytes],
        "certification-request": [made.public_bytes(Encoding.DER), made.public_bytes(Encoding.PEM)],
        "own-name": [b"CN=web,O=Example\ndns:web.example.org", b"\nuri:spiffe://example.org/a", b"\nip:10.0.0.1"],
        "ocsp-request": questions,
        "ocsp-get": [base64.b64encode(one) for one in questions],
        "ca-name": [b"cas/issuing", b"cas/issuing/versions/2", b"certificates/0A:bc"],
        "chain": [pki.ROOT.public_bytes(Encoding.PEM)],
        "token": [json.dumps({**claims, "machine": {"host": "node-1"}}).encode()],
    }


def requests(at: int) -> bytes:
    """A request with something in each of its fields."""
    message = GetMessageClass(METHODS[at].input_type)()
    for field in message.DESCRIPTOR.fields:
        if field.type == field.TYPE_STRING and not field.is_repeated:
            setattr(message, field.name, "keys/a")
        elif field.type == field.TYPE_BYTES and not field.is_repeated:
            setattr(message, field.name, b"bytes")
        elif field.type == field.TYPE_MESSAGE and not field.is_repeated:
            getattr(message, field.name).SetInParent()
        elif field.name == "groups":
            json_format.ParseDict({"name": "keys/a", "kind": 1, "inputs": ["aGVsbG8="]}, message.groups.add())
    return message.SerializeToString(deterministic=True)


def main() -> None:
    """Write the files."""
    for target, inputs in corpus().items():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(inputs):
            (folder / f"{number:02}").write_bytes(data)


if __name__ == "__main__":
    main()

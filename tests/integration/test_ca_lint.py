"""Linters find no error in what the daemon issues, whatever the profile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from tests.support.daemon import Daemon
from tests.support.linting import ZLINT, pkilint, zlint
from tests.support.pki import make_csr, make_hierarchy, with_ca

PROFILES = """
[profiles.server]
names.dns = ["*.example.org"]

[profiles.client]
names.uri = ["https://example.org/**"]  # pkilint knows no spiffe://

[profiles.mutual]
names.dns = ["*.example.org"]

[profiles.code-signing]
principals = ["*"]

[profiles.intermediate]
principals = ["*"]

[profiles.stapled]
base = "server"
must_staple = true

[profiles.short]
base = "server"
short_lived = true
validity = { default = "1d", max = "1d" }
"""


def named(subject: str) -> x509.CertificateSigningRequest:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name.from_rfc4514_string(subject))
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())


@pytest.fixture(scope="module")
def made() -> Iterator[dict[str, x509.Certificate]]:
    """One of each kind."""
    daemon = with_ca(PROFILES)(Daemon()).start()
    try:
        with daemon.client() as client:
            root, below = make_hierarchy(client)
            client.ca.create("wide", subject="CN=Wide Root,O=Example", path_length=3)
            crossed = client.ca.cross_sign("root", "wide")
            narrow = client.ca.create(
                "narrow", subject="CN=Narrow,O=Example", parent="root", permitted_names=["dns:example.org"]
            )
            asked = {
                **dict.fromkeys(("server", "mutual", "stapled", "short"), make_csr("web.example.org")),
                "client": make_csr("uri:https://example.org/a"),
                "code-signing": named("CN=Builder"),
            }
            found = {name: client.ca.issue("issuing", csr, profile=name).certificate for name, csr in asked.items()}
            found["intermediate"] = client.ca.issue("root", named("CN=Sub"), profile="intermediate").certificate
            for name, info in (("root", root), ("issuing", below), ("narrow", narrow)):
                assert info.primary is not None
                found[name] = x509.load_pem_x509_certificate(info.primary.certificate.encode())
            assert crossed.primary is not None
            found["crossed"] = x509.load_pem_x509_certificate(crossed.primary.cross_certificates.encode())
            question = ocsp.OCSPRequestBuilder().add_certificate(found["server"], found["issuing"], hashes.SHA1())
            answer = client.ca.ocsp(question.build().public_bytes(Encoding.DER))
            found["ocsp-responder"] = ocsp.load_der_ocsp_response(answer).certificates[0]
        yield found
    finally:
        daemon.remove()


KINDS = (
    "server", "mutual", "stapled", "short", "client", "code-signing", "intermediate", "root", "issuing", "narrow",
    "crossed", "ocsp-responder",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_pkilint_finds_nothing(made: dict[str, x509.Certificate], kind: str) -> None:
    assert pkilint(made[kind]) == []


@pytest.mark.skipif(not Path(ZLINT).exists(), reason="zlint is not there: make zlint, which needs Go")
@pytest.mark.parametrize("kind", KINDS)
def test_zlint_finds_no_error(made: dict[str, x509.Certificate], kind: str, tmp_path: Path) -> None:
    assert zlint(made[kind], tmp_path) == []

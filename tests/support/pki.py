"""A daemon with a certificate authority, and what relying parties make of what it issues."""

from __future__ import annotations

import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from hsmsign.client import AuthorityInfo, CertificateInfo, Client
from tests.support.daemon import Daemon

URL = "http://pki.example.org"
PROFILES = """
[profiles.server]
names.dns = ["*.example.org"]

[profiles.client]
names.uri = ["spiffe://example.org/**"]

[profiles.mutual]
names.dns = ["*.example.org"]
"""


def with_ca(text: str = "", url: str = URL, listen: str = "127.0.0.1:0") -> Callable[[Daemon], Daemon]:
    """Gives a daemon a ca.toml and an HTTP port for relying parties."""

    def change(daemon: Daemon) -> Daemon:
        daemon.configure(lambda config: config.replace('[web]\nlisten = ""', f'[web]\nlisten = "{listen}"'))
        (daemon.folder / "ca.toml").write_text(f'url = "{url}"\n{text or PROFILES}')
        return daemon

    return change


def make_csr(*names: str, key: ec.EllipticCurvePrivateKey | None = None) -> x509.CertificateSigningRequest:
    """A request with these hosts' names (or `uri:…`), signed by a key of its own."""
    given = [
        x509.UniformResourceIdentifier(name.removeprefix("uri:")) if name.startswith("uri:") else x509.DNSName(name)
        for name in names
    ]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if given:
        builder = builder.add_extension(x509.SubjectAlternativeName(given), critical=False)
    return builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())


def make_hierarchy(client: Client, **issuing: object) -> tuple[AuthorityInfo, AuthorityInfo]:
    """A root, and an authority below it."""
    root = client.ca.create("root", subject="CN=Example Root,O=Example", path_length=1)
    below = client.ca.create("issuing", subject="CN=Example Issuing,O=Example", parent="root", **issuing)  # type: ignore[arg-type]
    return root, below


def fetch(daemon: Daemon, path: str, headers: dict[str, str] | None = None, data: bytes | None = None) -> Page:
    """A page of the HTTP port for relying parties."""
    request = urllib.request.Request(f"http://{daemon.endpoints['web']}{path}", data, headers or {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return Page(answer.status, dict(answer.headers), answer.read())
    except urllib.error.HTTPError as error:
        return Page(error.code, dict(error.headers), error.read())


class Page:
    """What HTTP answered."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.body = body


class Files:
    """Certificates and CRLs in files, for openssl."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, name: str, *content: str | bytes | x509.Certificate | CertificateInfo) -> Path:
        """A file, PEM as it comes, one after the other."""
        path = self.folder / name
        path.write_bytes(b"".join(_bytes(one) for one in content))
        return path

    def verify(self, leaf: Path, roots: Path, *options: str | Path, untrusted: Sequence[Path] = ()) -> tuple[bool, str]:
        """What `openssl verify -x509_strict` says."""
        above = [word for path in untrusted for word in ("-untrusted", path)]
        done = openssl("verify", "-x509_strict", "-CAfile", roots, *above, *options, leaf)
        return done.returncode == 0, done.stdout + done.stderr


def openssl(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True, check=False, timeout=60)


def _bytes(one: str | bytes | x509.Certificate | CertificateInfo) -> bytes:
    if isinstance(one, CertificateInfo):
        one = one.certificate
    if isinstance(one, x509.Certificate):
        return one.public_bytes(Encoding.PEM)
    return one.encode() if isinstance(one, str) else one

"""A daemon with a CA for its callers."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from cryptography import x509

from hsmsign.client import Client, TlsFiles, connect
from tests.support.authority import Authority
from tests.support.daemon import Daemon


class Site:
    """A daemon, and a CA for whoever calls it."""

    def __init__(self, rules: str) -> None:
        """`rules` stand in the policy besides those of `init`."""
        self.authority = Authority("corp")
        self.daemon = Daemon(edit=lambda text: text.replace("# client_crl =", "client_crl ="))
        tls = self.daemon.folder / "tls"
        (tls / "ca.pem").write_bytes((tls / "ca.pem").read_bytes() + self.authority.pem)
        self.policy = self.daemon.folder / "policy.toml"
        self.policy.write_text(self.policy.read_text() + rules)
        self.revoke()
        self.daemon.start()

    def revoke(self, *certificates: bytes) -> None:
        """Have the CA of the callers revoke these, and nobody else."""
        path = self.daemon.folder / "tls" / "clients.crl"
        aside = path.with_suffix(".new")
        aside.write_bytes(self._bootstrap_crl() + self.authority.crl(*certificates))
        aside.replace(path)

    def _bootstrap_crl(self) -> bytes:
        own = Authority("hsmsign bootstrap CA")
        tls = self.daemon.folder / "tls"
        own.adopt((tls / "ca.pem").read_bytes(), (tls / "ca-key.pem").read_bytes())
        return own.crl()

    def certificate(self, id: str, lasts: float = 3600) -> tuple[bytes, bytes]:
        """A key and its certificate for `spiffe://corp/ID`."""
        san = x509.UniformResourceIdentifier(f"spiffe://corp/{id}")
        return self.authority.issue(san, lasts=dt.timedelta(seconds=lasts))

    def client(self, folder: Path, pair: tuple[bytes, bytes]) -> Client:
        """A client with that key and certificate."""
        folder.mkdir(exist_ok=True)
        (folder / "key.pem").write_bytes(pair[0])
        (folder / "certificate.pem").write_bytes(pair[1])
        files = TlsFiles(self.daemon.tls.ca, folder / "certificate.pem", folder / "key.pem")
        return connect(f"dns:///{self.daemon.endpoints['tcp']}", tls=files)

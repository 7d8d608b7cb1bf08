"""The files of mutual TLS, read anew when they change: connections that are there stay."""

from __future__ import annotations

from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from hsmsign.model import revocation
from hsmsign.model.errors import ConfigurationError
from hsmsign.model.revocation import NO_CRLS, Crls
from hsmsign.model.tls import TlsPaths

_Mark = tuple[int, int, int]


class TlsFiles:
    """What stands in them now. `look` may be called in any thread, one at a time."""

    def __init__(self, paths: TlsPaths) -> None:
        """Read them. Raises ConfigurationError."""
        self._paths = paths
        self._marks = self._look()
        self._crls = NO_CRLS
        self._configuration = self._read()
        self._given = self._configuration

    def credentials(self) -> grpc.ServerCredentials:
        """For a port; each handshake is done with what the files say then."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration,
            self._fetch,  # type: ignore[arg-type]  # gRPC takes None, too
            require_client_authentication=True,
        )

    def crls(self) -> Crls:
        """The CRLs in force."""
        return self._crls

    def look(self) -> bool:
        """Read the files anew where they changed; whether they did. Raises ConfigurationError for files that
        are no good: what was read before stays in force."""
        marks = self._look()
        if marks == self._marks:
            return False
        self._configuration = self._read()
        self._marks = marks
        return True

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """In a thread of gRPC's, at each handshake. None: as before."""
        now = self._configuration
        if now is self._given:
            return None
        self._given = now
        return now

    def _look(self) -> tuple[_Mark | None, ...]:
        paths = self._paths
        return tuple(_mark(path) for path in (paths.certificate, paths.key, paths.client_ca, paths.client_crl) if path)

    def _read(self) -> grpc.ServerCertificateConfiguration:
        paths = self._paths
        certificate, key = _pem(paths.certificate, "server's certificate"), _pem(paths.key, "server's key")
        _check_pair(certificate, key, paths)
        bundle = _pem(paths.client_ca, "client CA")
        authorities = _certificates(bundle, paths.client_ca)
        crls = NO_CRLS
        if paths.client_crl is not None:
            crls = revocation.read(_pem(paths.client_crl, "client CRL"), authorities)
        configuration = grpc.ssl_server_certificate_configuration([(key, certificate)], bundle)
        self._crls = crls
        return configuration


def _pem(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the {what} {path}: {error.strerror}", hint="see [server.tls], or run hsmsign init"
        ) from error


def _mark(path: Path) -> _Mark | None:
    """Another one where the file is another, or was written to."""
    try:
        said = path.stat()
    except OSError:
        return None
    return (said.st_mtime_ns, said.st_size, said.st_ino)


def _certificates(pem: bytes, path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ConfigurationError(f"{path} has no certificates in PEM: {error}", hint="see [server.tls]") from error


def _check_pair(certificate: bytes, key: bytes, paths: TlsPaths) -> None:
    """gRPC would take any two files, and fail each handshake without a word."""
    leaf = _certificates(certificate, paths.certificate)[0]
    try:
        private = load_pem_private_key(key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigurationError(
            f"{paths.key} is no private key in PEM without a password", hint="see [server.tls]"
        ) from None  # what the parser says could hold parts of it
    if _spki(private) != _spki(leaf):
        raise ConfigurationError(f"{paths.key} is not the key of {paths.certificate}", hint="see [server.tls]")


def _spki(holder: x509.Certificate | PrivateKeyTypes) -> bytes:
    return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

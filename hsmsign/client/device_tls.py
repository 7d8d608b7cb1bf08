"""gRPC with mutual TLS where the client's key is on a device.

gRPC hands its signer the message: the whole of what a TLS client signs (RFC 8446, section 4.4.3; TLS 1.2: RFC 5246,
section 7.4.8), never a digest of it. So keys with the purpose `tls-client` can be used, and no right to have digests
signed is wanted. Ed25519 is not among the algorithms that gRPC asks for.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc
import grpc.experimental
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsmsign.client import signatures
from hsmsign.client.remote import RemoteSigner, remote_signer
from hsmsign.client.values import VersionState
from hsmsign.model.algorithms import Family, Scheme, SignatureFormat
from hsmsign.model.errors import CapabilityMissingError, ConfigurationError, HsmsignError, KeyNotFoundError

if TYPE_CHECKING:
    from hsmsign.client.client import Client

SIGN_SECONDS = 15.0
"""Deadline of the signature of one handshake; gRPC gives up a connection after 20."""
HANDSHAKE_OPTIONS: tuple[tuple[str, Any], ...] = (("grpc.min_reconnect_backoff_ms", 20_000),)
"""For channels: in gRPC this is also how long a handshake may take, and a device may take its time."""


def channel_credentials(
    key: RemoteSigner | tuple[Client, str],
    certificate_chain: bytes,
    root_certificates: bytes | None = None,
    *,
    on_failure: Callable[[HsmsignError | None], object] = lambda _: None,
) -> grpc.ChannelCredentials:
    """Credentials that prove who we are with a key on a device: EC P-256, P-384, P-521, or RSA.

    `key` is what `client.key(name)` gives, or a client and a name: then it is the version that the certificate is for.
    The client must be open for as long as channels use the credentials. `certificate_chain` and `root_certificates`
    are PEM; without the latter gRPC takes the roots that it comes with. No signature is made here, and each handshake
    makes one; where that fails the call is UNAVAILABLE, and its details end with why. `on_failure` is told what became
    of each, None where it went well. Servers that are made with BoringSSL (all of gRPC's) take no P-521.

    Raises ConfigurationError where the certificate is not for the key, CapabilityMissingError for Ed25519, and what
    asking for the public key raises.
    """
    leaf = leaf_of(certificate_chain)
    signer = signer_for(key, leaf)
    if signer.algorithm.family is Family.ED25519:
        raise CapabilityMissingError("gRPC signs with no Ed25519 keys of others", hint="use an EC or RSA key")
    same_key(signer, leaf)
    with warnings.catch_warnings():  # that it is experimental is for us to know, not for whoever calls us
        warnings.simplefilter("ignore", grpc.experimental.ExperimentalApiWarning)
        return grpc.experimental.ssl_channel_credentials_with_custom_signer(  # type: ignore[no-any-return]
            private_key_sign_fn=_Handshakes(signer, on_failure),
            root_certificates=root_certificates,
            certificate_chain=certificate_chain,
        )


class _Handshakes:
    """Signs for gRPC. It is called in a thread of gRPC's core, which must not wait for the device."""

    def __init__(self, signer: RemoteSigner, on_failure: Callable[[HsmsignError | None], object]) -> None:
        self._signer = signer
        self._client: Client = signer._client
        self._on_failure = on_failure

    def __call__(self, message: bytes, algorithm: int, on_complete: Callable[[bytes | Exception], None]) -> Any:
        """What gRPC calls: `algorithm` is a number of PrivateKeySignatureAlgorithm; gives what cancels it."""
        try:
            return self._begin(message, _scheme(algorithm), _Once(on_complete))
        except HsmsignError as error:
            self._on_failure(error)
            raise RuntimeError(_ascii(error)) from None

    def _begin(self, message: bytes, scheme: Scheme, once: _Once) -> bytes | Callable[[], None]:
        self._signer.algorithm.scheme(scheme)
        order = signatures.sign(self._signer.key_version, message, None, scheme, SignatureFormat.DER)
        future, call = self._client._begin(order, SIGN_SECONDS)

        def done(_: object) -> None:
            try:
                once(self._client._finish(future, call).value)
                self._on_failure(None)
            except HsmsignError as error:
                self._on_failure(error)
                once(RuntimeError(_ascii(error)))
            except Exception as error:  # noqa: BLE001 - whatever it is, the handshake must not wait for ever
                once(RuntimeError(f"signing failed: {type(error).__name__}"))

        def cancel() -> None:
            once.forget()
            future.cancel()

        future.add_done_callback(done)
        early = once.returned()
        if isinstance(early, Exception):
            raise early
        return early if early is not None else cancel


class _Once:
    """gRPC's function for the result: to be called once, and not after gRPC has lost interest.

    Nor by the thread in which gRPC calls the signer: it holds a lock there that the function takes, too. That thread
    runs what is to be done after a call where the call is over already.
    """

    def __init__(self, on_complete: Callable[[bytes | Exception], None]) -> None:
        self._on_complete: Callable[[bytes | Exception], None] | None = on_complete
        self._lock = threading.Lock()
        self._returned = False
        self._early: bytes | Exception | None = None

    def __call__(self, result: bytes | Exception) -> None:
        """The result is there."""
        with self._lock:
            if not self._returned:
                self._early = result
                return
            function, self._on_complete = self._on_complete, None
        if function is not None:
            function(result)

    def returned(self) -> bytes | Exception | None:
        """The signer returns now. A result that is there already is its result."""
        with self._lock:
            self._returned = True
            if self._early is not None:
                self._on_complete = None
            return self._early

    def forget(self) -> None:
        """Never call it."""
        with self._lock:
            self._on_complete = None


def _scheme(number: int) -> Scheme:
    name = grpc.experimental.PrivateKeySignatureAlgorithm(number).name
    curve, _, hash_name = name.partition("R1_")
    if curve.startswith("ECDSA_SECP"):
        return Scheme[f"ECDSA_P{curve.removeprefix('ECDSA_SECP')}_{hash_name}"]
    return Scheme[name.replace("_RSAE", "")]


def signer_for(key: RemoteSigner | tuple[Client, str], leaf: x509.Certificate) -> RemoteSigner:
    """The key; of a client and a name the version that the certificate is for, or the primary one where none is.

    Raises what asking for it raises.
    """
    if not isinstance(key, tuple):
        return key
    client, name = key
    info = client.public_key_info(name)
    if info.der == _spki(leaf) or "/versions/" in name:
        return remote_signer(client, info)
    try:
        for version in client.get_key(name).versions:
            if version.public_key == _spki(leaf) and version.state is not VersionState.DESTROYED:
                return remote_signer(client, client.public_key_info(version.name))
    except KeyNotFoundError:  # it went away in this moment: what follows says enough
        pass
    return remote_signer(client, info)


def same_key(signer: RemoteSigner, leaf: x509.Certificate) -> None:
    """Raises ConfigurationError where the certificate is not for the key."""
    if _spki(signer) != _spki(leaf):
        raise ConfigurationError(
            f"the certificate ({_words(leaf)}) is not for {signer.key_version}: its public key is another",
            hint="was the key rotated, or is it the certificate of another machine? compare: hsmsign key public NAME",
        )


def leaf_of(chain: bytes) -> x509.Certificate:
    """The first certificate of a PEM file. Raises ConfigurationError."""
    try:
        return x509.load_pem_x509_certificates(chain)[0]
    except ValueError as error:
        raise ConfigurationError(
            f"the certificate chain cannot be read: {error}", hint="PEM is wanted, the own certificate first"
        ) from None


def _spki(one: RemoteSigner | x509.Certificate) -> bytes:
    found: bytes = one.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return found


def _words(leaf: x509.Certificate) -> str:
    return leaf.subject.rfc4514_string() or f"serial number {leaf.serial_number:x}"


def _ascii(error: HsmsignError) -> str:
    """gRPC's details are bytes of C; what is not ASCII would be lost there."""
    return f"{error.reason}: {error.message}".encode("ascii", "replace").decode()

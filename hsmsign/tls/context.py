"""`ssl.SSLContext`s whose private key is on a device. They are plain ones: asyncio, uvicorn, aiohttp and http.server
take them, and everything else about them is set as ever.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path

from hsmsign.client.client import Client
from hsmsign.client.device_tls import leaf_of, same_key, signer_for
from hsmsign.client.remote import RemoteSigner
from hsmsign.model.errors import ConfigurationError
from hsmsign.tls import provider
from hsmsign.tls.reference import DEADLINE_SECONDS, LABEL, KeyReference

Key = RemoteSigner | tuple[Client, str] | Path | str
"""What `client.key(name)` gives; a client and a name; a file with a reference (`hsmsign key reference`); or a
`hsmsign:` URI, see KeyReference.of_uri."""
Pem = Path | str | bytes
"""The path of a PEM file, or what would be in it."""


def server_context(
    chain: Pem,
    key: Key,
    *,
    client_ca: Pem | None = None,
    require_client: bool | None = None,
    alpn: Sequence[str] = (),
    deadline: float = DEADLINE_SECONDS,
    verify: bool = False,
) -> ssl.SSLContext:
    """A context for a server. TLS 1.2 and 1.3, as `ssl.create_default_context` has it.

    `chain` is the server's certificate and what stands between it and the root. With a client and a name, `key` is the
    version that the certificate is for. With `client_ca`, clients prove who they are by certificates from there:
    all must, or with `require_client=False` those that can. Each handshake waits `deadline` seconds for its signature
    at most; with `verify` the signature is checked before it is used.

    Raises ConfigurationError (the certificate is not for the key, a file that cannot be read, a bad reference),
    CapabilityMissingError where `ssl` has another OpenSSL, and what asking for the public key raises.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    if client_ca is None and require_client:
        raise ConfigurationError("which CA do clients have their certificates from?", hint="pass client_ca")
    if client_ca is not None:
        _trust(context, client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL if require_client is False else ssl.CERT_REQUIRED
    if alpn:
        context.set_alpn_protocols(list(alpn))
    use_key(context, chain, key, deadline=deadline, verify=verify)
    return context


def client_context(
    chain: Pem | None = None,
    key: Key | None = None,
    *,
    ca: Pem | None = None,
    alpn: Sequence[str] = (),
    deadline: float = DEADLINE_SECONDS,
    verify: bool = False,
) -> ssl.SSLContext:
    """A context for a client, which checks the server's certificate and name. `ca` instead of the system's roots.

    With `chain` and `key` the client proves who it is, as `server_context` says. Raises as that does.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _trust(context, ca)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if (chain is None) != (key is None):
        raise ConfigurationError("a certificate chain and its key go together", hint="pass both, or neither")
    if chain is not None and key is not None:
        use_key(context, chain, key, deadline=deadline, verify=verify)
    return context


def use_key(
    context: ssl.SSLContext, chain: Pem, key: Key, *, deadline: float = DEADLINE_SECONDS, verify: bool = False
) -> None:
    """Give a context its certificate and key, or others: handshakes from now on use these. Raises as above.

    OpenSSL does not let a context change while another thread begins a handshake with it. So this is for before it
    serves, or for the thread that does all its handshakes (asyncio's loop). Where several do, `ServerNames.reload` goes
    over to another context instead.
    """
    provider.load(for_files=isinstance(key, str | Path))
    pem = _read(chain)
    if isinstance(key, str) and key.startswith("hsmsign:"):
        with _as_file(pem) as chain_path, _as_file(KeyReference.of_uri(key).to_pem()) as key_path:
            return _load(context, chain_path, key_path, key.partition("?")[0])
    if isinstance(key, str | Path):
        with _as_file(pem) as chain_path:
            return _load(context, chain_path, os.fspath(key), os.fspath(key))
    signer = signer_for(key, leaf_of(pem))
    same_key(signer, leaf_of(pem))
    with provider.lent(signer, deadline) as endpoint, _as_file(pem) as chain_path:
        reference = KeyReference(signer.key_version, signer._info.der, endpoint, deadline=deadline, verify=verify)
        with _as_file(reference.to_pem()) as key_path:
            _load(context, chain_path, key_path, signer.key_version)
    return None


def _load(context: ssl.SSLContext, chain: str, key: str, words: str) -> None:
    provider.trouble()  # of before
    try:
        context.load_cert_chain(chain, key, password=_no_passphrase)
    except ssl.SSLError as error:
        said = provider.trouble()
        if error.reason in ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):  # another key, another kind of key
            raise ConfigurationError(
                f"the certificate is not for {words}: its public key is another",
                hint="was the key rotated? write the reference again, or get a certificate for the key as it is",
            ) from None
        if not said and LABEL.encode() in Path(key).read_bytes():
            said = "the reference is cut or altered; write it again: hsmsign key reference NAME"
        raise ConfigurationError(f"{words} cannot be used: {said or error}") from None
    except OSError as error:
        raise ConfigurationError(f"{words} cannot be read: {error.strerror}") from None


def _no_passphrase() -> str:
    """For key files that want one: nobody is asked at a terminal."""
    raise ConfigurationError("this key file wants a passphrase", hint="a reference to a device key needs none")


def _trust(context: ssl.SSLContext, ca: Pem) -> None:
    try:
        context.load_verify_locations(cadata=_read(ca).decode("ascii"))
    except (ssl.SSLError, UnicodeDecodeError, ValueError) as error:
        raise ConfigurationError(f"the CA's certificates cannot be read: {error}", hint="PEM is wanted") from None


def _read(pem: Pem) -> bytes:
    if isinstance(pem, bytes):
        return pem
    try:
        return Path(pem).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{pem} cannot be read: {error.strerror}") from None


@contextlib.contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """`load_cert_chain` takes names of files: this one is in memory, and gone afterwards."""
    descriptor = os.memfd_create("hsmsign", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)

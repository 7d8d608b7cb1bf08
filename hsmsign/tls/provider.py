"""OpenSSL's provider `hsmsign` in this process, on the libcrypto that Python's `ssl` uses (native/provider).

OpenSSL knows one provider of a name in a process, and keeps it: so what is here is one in a process, too. Whatever
OpenSSL loads (a key in a file, a key that `lent` stands for) keeps its signer until OpenSSL lets it go.
"""

from __future__ import annotations

import _ssl
import contextlib
import logging
import os
import secrets
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hsmsign._native._provider import ffi as _ffi
from hsmsign._native._provider import lib as _lib
from hsmsign.client.client import Client
from hsmsign.client.configuration import Endpoint, TlsFiles
from hsmsign.client.remote import RemoteSigner
from hsmsign.model.algorithms import Scheme
from hsmsign.model.errors import CapabilityMissingError, ConfigurationError, HsmsignError
from hsmsign.tls.callbacks import unexpected

_LENT = "inprocess:"
_OK, _BAD_INPUT, _BROKEN = 0, 9, 12
_WORDS = 255
_log = logging.getLogger("hsmsign.tls")


class _Way:
    """How signatures of one key are had. In a child of a fork the connection is made anew."""

    def __init__(self, name: str, seconds: float, endpoint: Endpoint, client: Client | None = None) -> None:
        self._name = name
        self._seconds = seconds
        self._endpoint = endpoint
        self._lent = client
        self._at: tuple[int, Client] | None = None if client is None else (os.getpid(), client)
        """Of which process the connection is: written and read as one, since threads do so without a lock."""
        self._lock = threading.Lock()

    def sign(self, data: bytes, scheme: Scheme, *, is_message: bool) -> bytes:
        """The signature: DER for ECDSA. Raises HsmsignError."""
        if is_message:
            return self._found().sign(self._name, message=data, scheme=scheme, deadline=self._seconds).value
        return self._found().sign(self._name, digest=data, scheme=scheme, deadline=self._seconds).value

    def public_key(self) -> bytes:
        """SubjectPublicKeyInfo. Signatures from now on are by this version. Raises HsmsignError."""
        info = self._found().public_key_info(self._name, deadline=self._seconds)
        self._name = info.key_version
        return info.der

    @property
    def key_version(self) -> str:
        """What signs."""
        return self._name

    def close(self) -> None:
        """Let go of the connection where it was made here."""
        at, self._at = self._at, None
        if at is not None and at[0] == os.getpid() and at[1] is not self._lent:
            at[1].close()

    def forked(self) -> None:
        """In a child: whoever had the lock in the parent is not here."""
        self._lock = threading.Lock()

    def _found(self) -> Client:
        at = self._at
        if at is not None and at[0] == os.getpid():
            return at[1]
        with self._lock:
            at = self._at
            if at is None or at[0] != os.getpid():
                at = self._at = os.getpid(), Client(self._endpoint, deadline=self._seconds)
            return at[1]


@dataclass(slots=True)
class _State:
    """What OpenSSL holds on to."""

    lock: threading.Lock
    signer: Any = None
    """struct hsm_signer, once the provider is loaded"""


_state = _State(threading.Lock())
_lent: dict[str, _Way] = {}
_opened: dict[int, tuple[Any, _Way]] = {}


def load(*, for_files: bool = False) -> None:
    """Register the provider, if that was not done. Raises CapabilityMissingError where `ssl` cannot see it, or where
    openssl.cnf has loaded hsmsign.so: that reads references in files (`for_files`), and knows nothing of this process.
    """
    with _state.lock:
        if _state.signer is not None:
            return
        if _lib.hsm_inprocess_is_taken():
            if for_files:
                return
            raise CapabilityMissingError(
                "openssl.cnf has loaded hsmsign.so into this process, and OpenSSL takes one provider of a name",
                hint="give the key as the file of a reference (hsmsign key reference NAME), or run the program with an"
                " openssl.cnf that does not name hsmsign",
            )
        path = getattr(_ssl, "__file__", "") or ""
        if not _lib.hsm_inprocess_is_shared_with(os.fsencode(path)):
            ours = _ffi.string(_lib.hsm_inprocess_openssl()).decode()
            raise CapabilityMissingError(
                f"Python's ssl has an OpenSSL of its own ({ssl.OPENSSL_VERSION}), not the one that hsmsign was built"
                f" with ({ours})",
                hint="use a Python that is linked to the system's OpenSSL (Debian's python3 is), or build hsmsign"
                " against the same one; what is not Python uses hsmsign.so: hsmsign provider conf",
            )
        signer = _ffi.new("struct hsm_signer *")
        signer.open, signer.sign = _lib.hsm_python_open, _lib.hsm_python_sign
        signer.public_key, signer.close = _lib.hsm_python_public_key, _lib.hsm_python_close
        _state.signer = signer  # C keeps it, whatever becomes of this
        words = _ffi.new("struct hsm_words *")
        if not _lib.hsm_inprocess_load(signer, words):
            raise CapabilityMissingError(
                f"OpenSSL does not take the provider: {_ffi.string(words.text).decode(errors='replace')}"
            )


@contextlib.contextmanager
def lent(signer: RemoteSigner, seconds: float) -> Iterator[str]:
    """An endpoint for a reference that stands for `signer`, while OpenSSL loads it. `seconds` for each signature."""
    endpoint = f"{_LENT}{secrets.token_hex(16)}"
    _lent[endpoint] = _Way(signer.key_version, seconds, signer._client.endpoint, signer._client)
    try:
        yield endpoint
    finally:
        del _lent[endpoint]


def trouble() -> str:
    """What the provider said last of an error in this thread; empty where it said nothing."""
    words = _ffi.new("struct hsm_words *")
    _lib.hsm_inprocess_trouble(words)
    found: bytes = _ffi.string(words.text)
    return found.decode(errors="replace")


def _text(pointer: Any) -> str:
    found: bytes = _ffi.string(pointer)
    return found.decode()


def _way(reference: Any) -> _Way:
    endpoint = _text(reference.endpoint)
    if endpoint.startswith(_LENT):
        found = _lent.get(endpoint)
        if found is None:
            raise ConfigurationError(
                "this reference was made for one moment", hint="write one: hsmsign key reference NAME"
            )
        return found
    tls = None
    if reference.ca:
        server_name = _text(reference.server_name) if reference.server_name else None
        tls = TlsFiles(_text(reference.ca), _text(reference.certificate), _text(reference.key), server_name)
    return _Way(_text(reference.name), reference.deadline_ms / 1000, Endpoint(endpoint, tls))


def _say(words: Any, error: HsmsignError) -> int:
    said = f"{error.message}; {error.hint}" if error.hint else error.message
    found = said.encode(errors="replace")[:_WORDS]
    _ffi.memmove(words.text, found, len(found))
    return _BAD_INPUT if error.code == "INVALID_ARGUMENT" else _BROKEN


def _open(reference: Any, out: Any, words: Any) -> int:
    try:
        way = _way(reference)
    except HsmsignError as error:
        return _say(words, error)
    handle = _ffi.new_handle(way)
    _opened[int(_ffi.cast("uintptr_t", handle))] = (handle, way)
    out[0] = handle
    return _OK


def _sign(opened: Any, wish: Any, signature: Any, length: Any, words: Any) -> int:
    try:
        data = bytes(_ffi.buffer(wish.input, wish.input_len)) if wish.input_len else b""
        found = _ffi.from_handle(opened).sign(data, Scheme(wish.scheme), is_message=wish.is_message)
    except HsmsignError as error:
        # the error that the application sees does not say why
        _log.warning("a handshake has no signature: %s: %s", error.reason, error.message)
        return _say(words, error)
    return _put(found, signature, length)


def _public_key(opened: Any, der: Any, length: Any, version: Any, words: Any) -> int:
    way = _ffi.from_handle(opened)
    try:
        found = way.public_key()
    except HsmsignError as error:
        return _say(words, error)
    name = way.key_version.encode()
    _ffi.memmove(version.name, name + b"\0", len(name) + 1)
    return _put(found, der, length)


def _close(opened: Any) -> None:
    _, way = _opened.pop(int(_ffi.cast("uintptr_t", opened)))
    way.close()


def _put(found: bytes, room: Any, length: Any) -> int:
    if len(found) > length[0]:
        return _BROKEN
    _ffi.memmove(room, found, len(found))
    length[0] = len(found)
    return _OK


_ffi.def_extern(name="hsm_python_open", error=_BROKEN, onerror=unexpected)(_open)
_ffi.def_extern(name="hsm_python_sign", error=_BROKEN, onerror=unexpected)(_sign)
_ffi.def_extern(name="hsm_python_public_key", error=_BROKEN, onerror=unexpected)(_public_key)
_ffi.def_extern(name="hsm_python_close", onerror=unexpected)(_close)


def _forked() -> None:
    _state.lock = threading.Lock()
    for way in (*_lent.values(), *(way for _, way in _opened.values())):
        way.forked()


os.register_at_fork(after_in_child=_forked)

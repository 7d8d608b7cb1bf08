"""The native part: finds the SSL_CTX of an `ssl.SSLContext`, checks every argument, turns statuses into our exceptions.

Above this nobody sees cffi. What it does is done with the OpenSSL that Python's `ssl` uses; where that is another one
than this package was built with, each function raises CapabilityMissingError.
"""

from __future__ import annotations

import _ssl
import functools
import platform
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import hsmsign._native._tls as _tls
from hsmsign.model.errors import CapabilityMissingError, ConfigurationError, HsmsignError
from hsmsign.tls.callbacks import unexpected

_ffi, _lib = _tls.ffi, _tls.lib
_HINT = "use a Python whose ssl is linked to the system's OpenSSL, and build this package for it"
_MAX_DER = 1 << 20
_ROOM = 4096


class Verdict(IntEnum):
    """What an OCSP answer says of a certificate. The numbers are those of native/tls/tls.h."""

    GOOD = 0
    REVOKED = 1
    UNKNOWN = 2
    NOT_GIVEN = 3
    MALFORMED = 4
    FORGED = 5
    OTHER = 6
    EARLY = 7
    LATE = 8
    ENDLESS = 9


@dataclass(frozen=True, slots=True)
class Checked:
    """A verdict, and what it goes by."""

    verdict: Verdict
    refusal: int
    """responseStatus (RFC 6960, section 4.2.1)."""
    this_update: int
    """Seconds since 1970."""
    next_update: int


@dataclass(frozen=True, slots=True)
class Trust:
    """What a context verifies clients with."""

    digest: bytes
    """Another one where its certificates, its CRLs or its rules of verification are others."""
    crls: int
    crls_until: int
    """Seconds since 1970; 0: nobody knows, or there are none."""


def certificate_of(context: ssl.SSLContext) -> bytes:
    """The certificate of a context, DER. Raises ConfigurationError where it has none."""
    pointer = _pointer(context)
    found = _grow(lambda out, size: _lib.hsm_tls_certificate(pointer, out, size))
    if found is None:
        raise ConfigurationError("the SSLContext has no certificate", hint="load one first: context.load_cert_chain(…)")
    return found


def trust_of(context: ssl.SSLContext) -> Trust:
    """What a context verifies clients with."""
    out = _ffi.new("hsm_trust *")
    _check(_lib.hsm_tls_trust(_pointer(context), out))
    return Trust(bytes(_ffi.buffer(out.digest)), out.crls, out.crls_until)


def add_crl(context: ssl.SSLContext, der: bytes) -> None:
    """Have a context know a CRL, DER; whether it goes by it is up to its `verify_flags`."""
    _check(_lib.hsm_tls_add_crl(_pointer(context), der, len(der)))


def put_staple(context: ssl.SSLContext, der: bytes, until: float, leaf: bytes) -> None:
    """Have a server's context send an OCSP answer along with a certificate (both DER), until then (seconds since 1970),
    in place of the answer before; empty: none. Nothing is checked."""
    if len(der) > _MAX_DER:
        raise ConfigurationError(f"an OCSP answer of {len(der)} bytes", hint=f"{_MAX_DER} are the most")
    _check(_lib.hsm_staple_put(_pointer(context), der, len(der), int(until), leaf, len(leaf)))


def ask_for_staples(context: ssl.SSLContext) -> None:
    """Have the connections of a client's context ask for OCSP answers."""
    _check(_lib.hsm_wish_staples(_pointer(context)))


def staple_of(connection: ssl.SSLSocket | ssl.SSLObject) -> bytes | None:
    """What its server stapled, DER: as it came."""
    pointer, inner = _pointer(connection.context), connection._sslobj  # type: ignore[union-attr]
    if inner is None:
        return None
    owner = _ffi.cast("void *", id(inner))
    return _grow(lambda out, size: _lib.hsm_wish_granted(pointer, owner, out, size))


def check_answer(der: bytes, leaf: bytes, issuer: bytes, now: float) -> Checked:
    """What an OCSP answer says of a certificate, all DER, at a time in seconds since 1970."""
    out = _ffi.new("hsm_answer *")
    _check(_lib.hsm_answer_check(der, len(der), leaf, len(leaf), issuer, len(issuer), int(now), out))
    return Checked(Verdict(out.verdict), out.refusal, out.this_update, out.next_update)


class Hello:
    """A ClientHello that waits for somebody to choose a context for it, until the choosing function returns."""

    __slots__ = ("_owner", "_ssl")

    def __init__(self, ssl_pointer: Any) -> None:
        self._ssl = ssl_pointer
        self._owner = int(_ffi.cast("uintptr_t", _lib.hsm_hello_owner(ssl_pointer)))

    def use(self, context: ssl.SSLContext, group: bytes) -> None:
        """Go on with a context. Sessions of connections of another group (at most 32 bytes) are not resumed."""
        _check(_lib.hsm_hello_use(self._ssl, _pointer(context), group, len(group)))

    def is_of(self, connection: ssl.SSLSocket | ssl.SSLObject) -> bool:
        """Whether this is what the connection's client said."""
        return self._owner == id(connection._sslobj)  # type: ignore[union-attr]


Choose = Callable[[Hello, bytes | None], int]
"""Gets the server name as it came, None where none did; gives 0, or the number of an alert."""


def on_hello(listening: ssl.SSLContext, choose: Choose) -> object:
    """Have `choose` called in each handshake of a context, once for it. What is returned must live as long as the
    context. An exception of `choose` ends the handshake with an internal error."""
    handle = _ffi.new_handle(choose)
    _check(_lib.hsm_hello_install(_pointer(listening), _lib.hsm_tls_choose, handle))
    return handle


@_ffi.def_extern(error=ssl.AlertDescription.ALERT_DESCRIPTION_INTERNAL_ERROR, onerror=unexpected)  # type: ignore[untyped-decorator]
def hsm_tls_choose(arg: Any, ssl_pointer: Any, name: Any, size: int) -> int:
    """Called by native/tls/hello.c."""
    choose: Choose = _ffi.from_handle(arg)
    return choose(Hello(ssl_pointer), None if name == _ffi.NULL else bytes(_ffi.buffer(name, size)))


def _grow(call: Callable[[Any, Any], int]) -> bytes | None:
    """What a function writes, however much that is; None where there is nothing."""
    room = _ROOM
    while True:
        out, size = _ffi.new("uint8_t[]", room), _ffi.new("size_t *", room)
        status = call(out, size)
        if status == _lib.HSM_E_KEY_NOT_FOUND:
            return None
        if status != _lib.HSM_E_BUFFER:
            _check(status)
            return bytes(_ffi.buffer(out, size[0]))
        room = size[0]


@functools.cache
def _obstacle() -> str:
    """Why nothing here can be done, or nothing."""
    if platform.python_implementation() != "CPython":
        return f"{platform.python_implementation()} keeps its SSL_CTX elsewhere than CPython does"
    library = getattr(_ssl, "__file__", None)
    if not _lib.hsm_tls_same_library(_ffi.NULL if library is None else library.encode()):
        return f"Python's ssl uses an OpenSSL of its own ({ssl.OPENSSL_VERSION}), which nobody else can reach"
    return ""


def _pointer(context: ssl.SSLContext) -> Any:
    """Its SSL_CTX: what CPython has first in the object, in every version until now, and so it is asked to prove it."""
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"an ssl.SSLContext is wanted, not {type(context).__name__}")
    obstacle = _obstacle()
    if not obstacle:
        pointer = _lib.hsm_tls_context(_ffi.cast("void *", id(context)), object.__basicsize__)
        if pointer != _ffi.NULL and _is_of(context, pointer):
            return pointer
        obstacle = f"this Python ({platform.python_version()}) keeps its SSL_CTX elsewhere than others do"
    raise CapabilityMissingError(f"Python's ssl cannot be extended here: {obstacle}", hint=_HINT)


_MODES = {ssl.CERT_NONE: 0, ssl.CERT_OPTIONAL: 1, ssl.CERT_REQUIRED: 3}
"""SSL_VERIFY_NONE, SSL_VERIFY_PEER, and SSL_VERIFY_FAIL_IF_NO_PEER_CERT with it."""


def _is_of(context: ssl.SSLContext, pointer: Any) -> bool:
    said = _ffi.new("hsm_context_facts *")
    _lib.hsm_tls_facts(pointer, said)
    options = int(context.options) & 0xFFFFFFFFFFFFFFFF
    return (said.options & 0xFFFFFFFF, said.num_tickets, said.verify_mode & 3) == (
        options & 0xFFFFFFFF,
        context.num_tickets,
        _MODES[context.verify_mode],
    )


def _check(status: int) -> None:
    if status == _lib.HSM_OK:
        return
    if status == _lib.HSM_E_BAD_INPUT:
        raise ConfigurationError("OpenSSL cannot read a certificate, or a context is prepared already")
    raise HsmsignError(f"OpenSSL has no memory for this, or failed (status {status})")

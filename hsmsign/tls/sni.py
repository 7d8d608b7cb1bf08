"""Many certificates behind one port, chosen by the name that a client asks for (SNI, RFC 6066, section 3).

    names = ServerNames([Host(("shop.example.org", "*.shop.example.org"), make_shop), Host((), make_default)])
    socket = names.context.wrap_socket(listener, server_side=True)
    names.reload()

A host's context is what makes its handshakes: certificate and key, whether and how clients are verified, ALPN, staple,
versions of TLS and options. Python's own `sni_callback` leaves the verification of clients to the listening context,
and comes after a session was resumed: here the context is chosen before, and a session is resumed by the host that it
began with, while that trusts the same CAs and CRLs, and by no other.
"""

from __future__ import annotations

import hashlib
import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from hsmsign.model.errors import ConfigurationError
from hsmsign.tls import native
from hsmsign.tls.hosts import Table, asked, covers, pattern
from hsmsign.tls.native import Hello, Trust

MakeContext = Callable[[], ssl.SSLContext]
_STOP_SECONDS = 20.0
_ALERT = int(ssl.AlertDescription.ALERT_DESCRIPTION_UNRECOGNIZED_NAME)


@dataclass(frozen=True, slots=True)
class Host:
    """A context, and the names that it serves."""

    names: tuple[str, ...]
    """`shop.example.org`, or `*.example.org` for whatever stands in the place of the `*`, without a dot; `xn--…` for
    others than ASCII. The context's certificate has to have them. None: the default, for clients that ask for no
    name."""
    context: ssl.SSLContext | MakeContext
    """A server's context with a certificate; or what makes one, with the files as they are, at each `reload`."""


@dataclass(frozen=True, slots=True)
class _Entry:
    context: ssl.SSLContext
    trust: Trust
    names: tuple[str, ...]

    def group(self, now: float) -> bytes:
        """Which sessions may be resumed: of the same host, that trusts the same; none whose CRL is out of date."""
        late = b"late" if self.trust.crls and now >= self.trust.crls_until else b""
        said = "\0".join(sorted(self.names)).encode()
        return hashlib.sha256(b"\0".join((self.trust.digest, late, said))).digest()


@dataclass(frozen=True, slots=True)
class _Entries:
    """Everything that is chosen from, at one time."""

    by_name: Table[_Entry]
    default: _Entry | None
    contexts: tuple[ssl.SSLContext, ...]


class ServerNames:
    """A listening context that goes on with the context of the host that is asked for. May be used by several
    threads."""

    def __init__(
        self, hosts: Iterable[Host], *, refuse_unknown: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        """Who asks for another name gets the default, or, with `refuse_unknown` or without a default, the alert
        `unrecognized_name`. Raises ConfigurationError, and what a host's function raises."""
        self._hosts = tuple(hosts)
        self._refuse = refuse_unknown
        self._clock = clock
        self._reloading = threading.Lock()
        self._chosen = threading.local()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        """To listen with: `wrap_socket`, asyncio, uvicorn and so on take it. Its own groups (`set_ecdh_curve`) and
        ciphers of TLS 1.3 are those of every host; for all else see the hosts."""
        self.context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED  # each host has its own
        self.context.sni_callback = self._tell
        self._entries = self._build(self._hosts)
        # lives as long as the context, of which the native part needs it
        self.context.__dict__["_hsmsign_hello"] = native.on_hello(self.context, self._choose)

    def reload(self, hosts: Iterable[Host] | None = None) -> None:
        """Make all contexts anew, of the same hosts or of others, and go on with them: connections that are there stay
        as they are. Raises what the constructor does; then nothing has changed."""
        with self._reloading:
            wanted = self._hosts if hosts is None else tuple(hosts)
            self._entries = self._build(wanted)
            self._hosts = wanted

    def _build(self, hosts: Sequence[Host]) -> _Entries:
        entries = _build(hosts)
        for context in entries.contexts:
            # OpenSSL comes back to the listening one during a handshake, and `ssl` would let it go with its last user
            context.__dict__.setdefault("_hsmsign_listening", set()).add(self.context)
        return entries

    def _choose(self, hello: Hello, name: bytes | None) -> int:
        """In the handshake, before a session is looked up."""
        entry = self._find(name)
        if entry is None:
            return _ALERT
        hello.use(entry.context, entry.group(self._clock()))
        self._chosen.last = hello, entry.context
        return 0

    def _find(self, name: bytes | None) -> _Entry | None:
        entries = self._entries
        if name is None:
            return entries.default
        found = entries.by_name.find(asked(name))
        return found if found is not None or self._refuse else entries.default

    def _tell(self, connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """Later in the same step of the handshake: so that `connection.context` is the host's, too."""
        hello, chosen = getattr(self._chosen, "last", (None, None))
        self._chosen.last = None, None
        # what was chosen last may be of a handshake that failed, and this one a second hello, which chooses no more
        if hello is not None and chosen is not None and hello.is_of(connection):
            connection.context = chosen


class Follower:
    """Reloads when one of some files changes, in a thread. An error is told in the log, and tried again."""

    def __init__(self, names: ServerNames, files: Sequence[Path | str], *, look_every: float = 2.0) -> None:
        """`files` are what the hosts' functions read; they are looked at every `look_every` seconds."""
        self._names = names
        self._files = [Path(file) for file in files]
        self._look_every = look_every
        self._seen = self._look()
        self.error = ""
        """Why what the files say now is not in force; empty where it is."""
        self._over = threading.Event()
        self._log = logging.getLogger("hsmsign.tls.sni")
        self._thread = threading.Thread(target=self._run, name="hsmsign-sni", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Reload no more."""
        self._over.set()
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        while not self._over.wait(self._look_every):
            seen = self._look()
            if seen == self._seen:
                continue
            try:
                self._names.reload()
            except Exception as error:  # noqa: BLE001 - the hosts' functions may raise anything, and this must go on
                words = str(error) or type(error).__name__
                if words != self.error:  # half of the files may be new, and the other half soon
                    self._log.error("certificates and keys stay as they were: %s", words)
                self.error = words
            else:
                self._seen, self.error = seen, ""
                self._log.info("new certificates and keys are in force")

    def _look(self) -> list[tuple[int, int, int] | None]:
        return [_mark(file) for file in self._files]


def _mark(file: Path) -> tuple[int, int, int] | None:
    try:
        said = file.stat()
    except OSError:
        return None
    return (said.st_mtime_ns, said.st_size, said.st_ino)


def _build(hosts: Sequence[Host]) -> _Entries:
    """All contexts, or an error."""
    by_name: dict[str, _Entry] = {}
    default = None
    entries = [_entry(host) for host in hosts]
    for entry in entries:
        if not entry.names:
            if default is not None:
                raise ConfigurationError("two hosts without names", hint="one is the default; give the other names")
            default = entry
        for name in entry.names:
            if name in by_name:
                raise ConfigurationError(f"two hosts have the name {name}", hint="each name has one context")
            by_name[name] = entry
    if not hosts:
        raise ConfigurationError("there are no hosts", hint="one is needed, with names or as the default")
    return _Entries(Table(by_name), default, tuple(entry.context for entry in entries))


def _entry(host: Host) -> _Entry:
    names = tuple(map(pattern, host.names))
    context = host.context if isinstance(host.context, ssl.SSLContext) else host.context()
    title = ", ".join(names) or "the default"
    if context.protocol is not ssl.PROTOCOL_TLS_SERVER:
        raise ConfigurationError(f"the context of {title} is not for servers", hint="use ssl.PROTOCOL_TLS_SERVER")
    if context.sni_callback is not None:
        raise ConfigurationError(f"the context of {title} has an sni_callback of its own", hint="leave it out")
    try:
        leaf = x509.load_der_x509_certificate(native.certificate_of(context))
    except (ConfigurationError, ValueError) as error:
        raise ConfigurationError(
            f"the context of {title} has no certificate that can be read", hint="context.load_cert_chain(…)"
        ) from error
    if missing := [name for name in names if not covers(_dns(leaf), name)]:
        raise ConfigurationError(
            f"the certificate of {title} is not for {', '.join(missing)}, but for {', '.join(_dns(leaf)) or 'no name'}",
            hint="name what is in its SubjectAltName, or have it issued anew",
        )
    return _Entry(context, native.trust_of(context), names)


def _dns(leaf: x509.Certificate) -> list[str]:
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return found.get_values_for_type(x509.DNSName)

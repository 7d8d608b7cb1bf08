"""Key references: what stands in a file where a private key would, for OpenSSL's provider `hsmsign`.

The form is that of native/provider/reference.h: DER, in PEM between `BEGIN HSMSIGN KEY REFERENCE` lines. A reference
names a key, holds its public half and says where the daemon is. It holds no secret.
"""

from __future__ import annotations

import base64
import textwrap
from dataclasses import dataclass

from hsmsign._native._provider import ffi, lib
from hsmsign.client.client import Client
from hsmsign.client.configuration import Endpoint, TlsFiles
from hsmsign.model.errors import ConfigurationError

LABEL = "HSMSIGN KEY REFERENCE"
DEADLINE_SECONDS = 5.0
"""For one signature, where nothing else is said."""
_LONGEST_SECONDS = 600.0
_LONGEST_DER = 16384


@dataclass(frozen=True, slots=True)
class KeyReference:
    """A key on a device, for a TLS stack. Raises ConfigurationError where it cannot be one."""

    name: str
    """The version that signs, `keys/ID/versions/N`: the public key is of that one."""
    public_key: bytes
    """SubjectPublicKeyInfo, DER."""
    endpoint: str
    """`unix:///path` or `dns:///host:port`."""
    ca: str | None = None
    """Paths of PEM files for mutual TLS towards the daemon; all three, or none for a Unix socket."""
    certificate: str | None = None
    key: str | None = None
    server_name: str | None = None
    deadline: float = DEADLINE_SECONDS
    """Seconds for one signature."""
    verify: bool = False
    """Check each signature with the public key before it is used."""

    def __post_init__(self) -> None:
        if not 0.001 <= self.deadline <= _LONGEST_SECONDS:
            raise ConfigurationError(
                f"a deadline of {self.deadline:g} s for a signature is none",
                hint=f"0.001 to {_LONGEST_SECONDS:g} seconds",
            )
        if len({self.ca is None, self.certificate is None, self.key is None}) != 1:
            raise ConfigurationError(
                "ca, certificate and key are said together, or none of them", hint="see docs/tls.md"
            )

    @classmethod
    def at(
        cls,
        endpoint: Endpoint,
        name: str,
        public_key: bytes,
        *,
        deadline: float = DEADLINE_SECONDS,
        verify: bool = False,
    ) -> KeyReference:
        """A key of the daemon that a client reaches in the same way. Raises ConfigurationError."""
        tls = endpoint.tls
        if tls is not None and str(tls.key).startswith("hsmsign:"):
            raise ConfigurationError(
                "the client's own key is on a device, and programs that are not Python cannot use it on their way",
                hint="reach the daemon by its Unix socket, or by a client certificate with a key in a file",
            )
        if tls is None:
            return cls(name, public_key, endpoint.target, deadline=deadline, verify=verify)
        return cls(
            name,
            public_key,
            endpoint.target,
            str(tls.ca),
            str(tls.certificate),
            str(tls.key),
            tls.server_name,
            deadline=deadline,
            verify=verify,
        )

    @classmethod
    def of_uri(cls, uri: str) -> KeyReference:
        """The key that a `hsmsign:` URI names; the daemon is asked for its version and its public key.

        The forms are `hsmsign:NAME?endpoint=unix:///path` and
        `hsmsign:NAME?endpoint=dns:///host:port&ca=FILE&certificate=FILE&key=FILE`, with `&server-name=`,
        `&deadline-ms=` and `&verify=yes` where they are wanted. Raises ConfigurationError, and what asking raises.
        """
        found = lib.hsm_reference_of_uri(uri.encode())
        if found == ffi.NULL:
            raise ConfigurationError(
                f"{uri!r} does not name a key", hint="hsmsign:keys/web-1?endpoint=unix:///run/hsmsign/hsmsign.sock"
            )
        try:
            texts = (found.name, found.endpoint, found.ca, found.certificate, found.key, found.server_name)
            name, target, ca, certificate, key, server_name = (
                ffi.string(text).decode() if text else "" for text in texts
            )
            seconds, verify = found.deadline_ms / 1000, bool(found.verify)
        finally:
            lib.hsm_reference_free(found)
        endpoint = Endpoint(target, TlsFiles(ca, certificate, key, server_name or None) if ca else None)
        with Client(endpoint, deadline=seconds) as client:
            info = client.public_key_info(name)
        return cls.at(endpoint, info.key_version, info.der, deadline=seconds, verify=verify)

    def to_der(self) -> bytes:
        """The bytes. Raises ConfigurationError where they are too many to be read again."""
        kept = [ffi.new("char[]", text.encode()) for text in self._texts() if text is not None]
        strings = iter(kept)
        fields = [next(strings) if text is not None else ffi.NULL for text in self._texts()]
        public = ffi.new("uint8_t[]", self.public_key)
        reference = ffi.new("struct hsm_reference *")
        reference.name, reference.endpoint, reference.ca, reference.certificate, reference.key = fields[:5]
        reference.server_name = fields[5]
        reference.public_key, reference.public_key_len = public, len(self.public_key)
        reference.deadline_ms, reference.verify = round(self.deadline * 1000), self.verify
        out = ffi.new("uint8_t **")
        size = lib.hsm_reference_write(reference, out)
        found = bytes(ffi.buffer(out[0], size)) if size else b""
        lib.OPENSSL_free_pointer(out[0])
        if not 0 < size <= _LONGEST_DER:
            raise ConfigurationError("the reference cannot be written", hint="are the paths in it this long?")
        return found

    def to_pem(self) -> bytes:
        """As it stands in files."""
        lines = textwrap.wrap(base64.b64encode(self.to_der()).decode(), 64)
        return "\n".join([f"-----BEGIN {LABEL}-----", *lines, f"-----END {LABEL}-----", ""]).encode()

    def _texts(self) -> tuple[str | None, ...]:
        return self.name, self.endpoint, self.ca, self.certificate, self.key, self.server_name

"""What a key is for. A key with a purpose signs messages of that kind only, and no bare digests."""

from __future__ import annotations

import dataclasses
import enum
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from hsmsign.model.errors import InvalidArgumentError

if TYPE_CHECKING:
    from cryptography import x509

DAYS_MAX = 36_500
PATH_LENGTH_MAX = 255
_NAMES_MAX = 64
_TEXT_MAX = 512


class PurposeKind(enum.Enum):
    """The value is the word of the command line; `number` that of the wire."""

    ANY = "any"
    """Signs whatever it is given."""
    TLS_SERVER = "tls-server"
    """What a server signs in a handshake: CertificateVerify of TLS 1.3, ServerKeyExchange of TLS 1.2."""
    TLS_CLIENT = "tls-client"
    """What a client signs in a handshake: CertificateVerify."""
    CA = "ca"
    """Certificates, CRLs and OCSP answers of one issuer, and the request for its own certificate."""
    CSR = "csr"
    """Certification requests for the key itself."""
    OCSP = "ocsp"
    """OCSP answers."""
    JWT = "jwt"
    """JSON Web Tokens."""
    AUDIT = "audit"
    """Checkpoints of the daemon's own audit log. No caller can have anything signed with it."""

    @property
    def number(self) -> int:
        """The number in `hsmsign.v1.KeyPurpose.Kind`: the place in this list, from 0."""
        return list(PurposeKind).index(self)


@dataclass(frozen=True, slots=True)
class Purpose:
    """A kind, and what it is limited to. `check` says whether it makes sense."""

    kind: PurposeKind = PurposeKind.ANY
    issuer: str = ""
    """`ca`: the distinguished name (RFC 4514) in whose name it signs."""
    path_length: int = 0
    """`ca`: how many CAs may stand below it in a chain; 0: it certifies none."""
    max_validity_days: int = 0
    """`ca`: how long a certificate may be valid; 0: as long as may be."""
    permitted_names: tuple[str, ...] = ()
    """`ca`: subtrees in which the names of certificates must lie, as `dns:example.org`, `email:example.org`,
    `uri:example.org`, `ip:10.0.0.0/8`; none: anywhere."""
    jwt_issuers: tuple[str, ...] = ()
    """`jwt`: values that `iss` may have; none: any."""
    jwt_audiences: tuple[str, ...] = ()
    """`jwt`: values that `aud` may have; none: any."""

    @classmethod
    def of(cls, message: Any) -> Self:
        """From `hsmsign.v1.KeyPurpose`, which has the same fields. Raises IndexError for a kind that is not known."""
        said = {field.name: getattr(message, field.name) for field in dataclasses.fields(cls)[1:]}
        values: dict[str, Any] = {
            name: value if isinstance(value, str | int) else tuple(value) for name, value in said.items()
        }
        return cls(list(PurposeKind)[message.kind], **values)

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        """From what `plain` made."""
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return cls(PurposeKind(given.pop("kind", "any")), **given)

    def fields(self) -> dict[str, Any]:
        """Those of `hsmsign.v1.KeyPurpose`."""
        return {**self.plain(), "kind": self.kind.number}

    def plain(self) -> dict[str, Any]:
        """As JSON has it, without what is not said."""
        said = {name: value for name, value in dataclasses.asdict(self).items() if value}
        lists = {name: list(value) if isinstance(value, tuple) else value for name, value in said.items()}
        return {**lists, "kind": self.kind.value}

    def check(self) -> Self:
        """Raise InvalidArgumentError for limits that are none, or that another kind has."""
        fitting = _FITTING.get(self.kind, ())
        for field in dataclasses.fields(self)[1:]:
            if getattr(self, field.name) and field.name not in fitting:
                raise _wrong(f"a key for {self.kind.value!r} has no {field.name}", "leave it out")
        if self.kind is PurposeKind.CA:
            self._check_ca()
        for text in (*self.jwt_issuers, *self.jwt_audiences):
            if not text or len(text) > _TEXT_MAX:
                raise _wrong("an issuer or audience of tokens is empty or too long", f"1 to {_TEXT_MAX} characters")
        if max(len(self.permitted_names), len(self.jwt_issuers), len(self.jwt_audiences)) > _NAMES_MAX:
            raise _wrong("a purpose has too many names", f"at most {_NAMES_MAX} of each")
        return self

    def _check_ca(self) -> None:
        from cryptography import x509  # not small, and wanted by few

        if not self.issuer or len(self.issuer) > _TEXT_MAX:
            raise _wrong("a key for 'ca' signs in one name, and none is given", "say the issuer: CN=Example Root")
        try:
            x509.Name.from_rfc4514_string(self.issuer)
        except ValueError:
            raise _wrong(
                "the issuer is no distinguished name (RFC 4514)", "say for example: CN=Root,O=Example"
            ) from None
        if not 0 <= self.path_length <= PATH_LENGTH_MAX:
            raise _wrong(f"path_length is {self.path_length}", f"0 to {PATH_LENGTH_MAX}")
        if not 0 <= self.max_validity_days <= DAYS_MAX:
            raise _wrong(f"max_validity_days is {self.max_validity_days}", f"0 to {DAYS_MAX}")
        for one in self.permitted_names:
            subtree(one)


def subtree(text: str) -> x509.GeneralName:
    """A permitted subtree. Raises InvalidArgumentError for what is none."""
    from cryptography import x509

    scheme, _, value = text.partition(":")
    try:
        if scheme == "ip":
            return x509.IPAddress(ipaddress.ip_network(value))
        if value and value.isascii() and len(value) <= _TEXT_MAX:
            if scheme == "dns":
                return x509.DNSName(value.lower())
            if scheme == "email":
                return x509.RFC822Name(value.lower())
            if scheme == "uri":
                return x509.UniformResourceIdentifier(value.lower())
    except ValueError:
        pass
    raise _wrong(f"{text[:80]!r} is no subtree of names", "say dns:example.org, email:…, uri:… or ip:10.0.0.0/8")


_FITTING = {
    PurposeKind.CA: ("issuer", "path_length", "max_validity_days", "permitted_names"),
    PurposeKind.JWT: ("jwt_issuers", "jwt_audiences"),
}


def _wrong(message: str, hint: str) -> InvalidArgumentError:
    return InvalidArgumentError(message, hint=hint, metadata={"field": "purpose"})

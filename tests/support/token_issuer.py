"""A platform that vouches: real keys, a real HTTP server that gives them out, and all that can go wrong with it."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
import uuid
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsmsign.pki.identity.issuers import IssuerRules, Kind, NameTemplates

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
CURVES: dict[str, ec.EllipticCurve] = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
AUDIENCE = "https://ca.example.org"


@dataclass(frozen=True)
class SigningKey:
    """A key of the issuer, and its name."""

    kid: str
    algorithm: str
    private: PrivateKey

    @staticmethod
    def make(algorithm: str = "ES256", kid: str = "", bits: int = 2048) -> SigningKey:
        private: PrivateKey
        if algorithm in CURVES:
            private = ec.generate_private_key(CURVES[algorithm])
        elif algorithm == "EdDSA":
            private = ed25519.Ed25519PrivateKey.generate()
        else:
            private = rsa.generate_private_key(65537, bits)
        return SigningKey(kid or uuid.uuid4().hex, algorithm, private)

    def jwk(self, **more: Any) -> dict[str, Any]:
        """Its public part (RFC 7517)."""
        made: dict[str, Any] = jwt.get_algorithm_by_name(self.algorithm).to_jwk(self.private.public_key(), as_dict=True)
        return {key: value for key, value in made.items() if key != "key_ops"} | {"kid": self.kid, "use": "sig"} | more


def b64(data: bytes | str | Any) -> str:
    """base64url without padding; what is neither bytes nor text goes in as JSON."""
    if not isinstance(data, bytes | str):
        data = json.dumps(data)
    return base64.urlsafe_b64encode(data.encode() if isinstance(data, str) else data).decode().rstrip("=")


def signed(header: Any, payload: Any, key: SigningKey) -> str:
    """A token of exactly these parts, whatever sense they make, well signed."""
    text = f"{b64(header)}.{b64(payload)}"
    return f"{text}.{b64(jwt.get_algorithm_by_name(key.algorithm).sign(text.encode(), key.private))}"


def spki(key: Any) -> bytes:
    """The public part of a private key, as a certification request has it."""
    public: bytes = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return public


class TokenIssuer:
    """An issuer on a port of 127.0.0.1. Its first key is the one that it signs with."""

    def __init__(self, algorithm: str = "ES256", tls: ssl.SSLContext | None = None) -> None:
        self.keys = [SigningKey.make(algorithm)]
        self.fetched = 0
        self.answer: bytes | None = None
        """Instead of the keys."""
        self.status = 200
        self.headers: dict[str, str] = {}
        self.hold = threading.Event()
        """Answers wait until it is set."""
        self.hold.set()
        self._tls = tls
        self._port = 0
        self._server: ThreadingHTTPServer | None = None
        self.reachable = True

    @property
    def url(self) -> str:
        """Its `iss`."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    @property
    def jwks_url(self) -> str:
        return f"{self.url}/jwks"

    @property
    def reachable(self) -> bool:
        """Whether somebody listens on the port."""
        return self._server is not None

    @reachable.setter
    def reachable(self, wanted: bool) -> None:
        if wanted and self._server is None:
            self._server = ThreadingHTTPServer(("127.0.0.1", self._port), self._handler())
            self._server.daemon_threads = True
            if self._tls is not None:
                self._server.socket = self._tls.wrap_socket(self._server.socket, server_side=True)
            self._port = self._server.server_port
            threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        elif not wanted and self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def jwks(self) -> bytes:
        """The keys that it has."""
        return json.dumps({"keys": [key.jwk() for key in self.keys]}).encode()

    def rotate(self, algorithm: str = "ES256", *, forget: bool = False) -> None:
        """Sign with a new key from now on."""
        self.keys = [SigningKey.make(algorithm), *([] if forget else self.keys)]

    def rules(self, **more: Any) -> IssuerRules:
        """A configuration of this issuer: its tokens vouch for `{sub}.example.org`."""
        values: dict[str, Any] = {
            "name": "platform",
            "kind": Kind.OIDC,
            "issuer": self.url,
            "audience": AUDIENCE,
            "jwks_url": self.jwks_url,
            "claims": (("sub", "sub"),),
            "names": NameTemplates(dns=("{sub}.example.org",)),
        }
        return IssuerRules(**(values | more))

    def claims(self, audience: Any = AUDIENCE, **more: Any) -> dict[str, Any]:
        """What every token says; a claim that is None is left out."""
        now = int(time.time())
        made = {"iss": self.url, "sub": "someone", "aud": audience, "iat": now, "exp": now + 600} | more
        return {key: value for key, value in made.items() if value is not None}

    def token(
        self, claims: dict[str, Any] | None = None, key: SigningKey | None = None, headers: dict[str, Any] | None = None
    ) -> str:
        """A token, signed with its key or with another; a header that is None is left out."""
        key = key or self.keys[0]
        header = {"typ": "JWT", "alg": key.algorithm, "kid": key.kid} | (headers or {})
        return signed(
            {name: value for name, value in header.items() if value is not None}, claims or self.claims(), key
        )

    def write(self, path: Path) -> Path:
        """Its keys as a file, which takes the place of what was there at once."""
        made = path.with_suffix(".new")
        made.write_bytes(self.jwks())
        made.replace(path)
        return path

    def close(self) -> None:
        self.hold.set()
        self.reachable = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.fetched += 1
                issuer.hold.wait(20)
                found = self.path == "/jwks"
                data = issuer.jwks() if issuer.answer is None else issuer.answer
                self.send_response(issuer.status if found else 404)
                for name, value in issuer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                try:
                    self.wfile.write(data)
                except OSError:
                    # whoever asked has enough of it
                    self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

"""Whether a key reference works for programs that are not Python: tried with the openssl command and hsmsign.so."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hsmsign.model.errors import ConfigurationError, DeadlineError, DeviceError
from hsmsign.tls import examples, module
from hsmsign.tls.reference import LABEL

_BEGIN = f"-----BEGIN {LABEL}-----"
_PADDING = ("-pkeyopt", "rsa_padding_mode:pss", "-pkeyopt", "rsa_pss_saltlen:digest")
_ERROR = re.compile(
    r"error:[0-9A-F]+:(?P<library>[^:]*):[^:]*:(?P<reason>[^:]*):[^:]*:\d+:(?P<words>.*)$", re.MULTILINE
)
"""A line of OpenSSL's error queue, as its commands print it."""
_SPARE_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Trial:
    """A signature that was made, and that the reference's public key verifies."""

    public_key: bytes
    """PEM"""
    openssl: str
    """What signed, like "OpenSSL 3.0.19 27 Jan 2026"."""
    module: Path


def handshake_message(*, client: bool) -> bytes:
    """What a TLS 1.3 peer signs (RFC 8446, section 4.4.3), of a handshake that never was: keys for TLS sign that."""
    peer = b"client" if client else b"server"
    return b"\x20" * 64 + b"TLS 1.3, " + peer + b" CertificateVerify\x00" + secrets.token_bytes(32)


def run(
    reference: Path,
    certificate: Path | None = None,
    *,
    configuration: Path | None = None,
    client: bool = False,
    seconds: float = 60.0,
) -> Trial:
    """Load a reference as programs do, have one signature made, and verify it. `seconds` for each of the two;
    `configuration` is the openssl.cnf that they have, else one is made.

    Raises ConfigurationError (the file, the certificate), DeviceError (no signature, and why), DeadlineError,
    CapabilityMissingError where there is no hsmsign.so.
    """
    _look(reference)
    with tempfile.TemporaryDirectory(prefix="hsmsign-check-") as name:
        bench = _Bench(Path(name), configuration, seconds)
        public = bench.public_key(reference)
        if certificate is not None:
            bench.compare(public, certificate, reference)
        bench.sign(reference, public, handshake_message(client=client))
        return Trial(public, bench.run("version").decode().partition(" (")[0].strip(), module.in_use())


def _look(reference: Path) -> None:
    try:
        text = reference.read_text(encoding="ascii")
    except OSError as error:
        raise ConfigurationError(
            f"{reference} cannot be read by this user: {error.strerror}",
            hint="a reference is no secret: its mode is 0644",
        ) from None
    except UnicodeDecodeError:
        text = ""
    if "PRIVATE KEY-----" in text:
        raise ConfigurationError(f"{reference} has a private key in it, not on a device", hint="was this file meant?")
    if _BEGIN not in text:
        raise ConfigurationError(
            f"{reference} is no key reference: {_BEGIN} is missing",
            hint="write one:  hsmsign key reference NAME --out FILE",
        )


class _Bench:
    """A folder with an openssl.cnf of its own, in which the command is run."""

    def __init__(self, folder: Path, given: Path | None, seconds: float) -> None:
        self._folder = folder
        self._seconds = seconds
        configuration = given.absolute() if given else folder / "openssl.cnf"
        if given is None:
            configuration.write_text(examples.text("openssl"))
        self._environment = {**os.environ, "OPENSSL_CONF": str(configuration)}
        if not re.search(r"^ +hsmsign$", self.run("list", "-providers").decode(), re.MULTILINE):
            raise ConfigurationError(
                f"openssl does not load the provider that {given or 'hsmsign provider conf openssl'} names",
                hint=f"is the module readable for this user, and libnghttp2 there?  ldd {module.in_use()}",
            )

    def run(self, *words: str | Path) -> bytes:
        """What the command printed. Raises DeviceError with what it complained of."""
        command = [module.openssl(), *map(str, words)]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                env=self._environment,
                timeout=self._seconds + _SPARE_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise DeadlineError(
                f"openssl {words[0]} did not end", hint="is the daemon slow? the reference has a deadline"
            ) from None
        if done.returncode != 0:
            raise DeviceError(_words(done.stderr.decode(errors="replace")) or f"openssl {words[0]} failed")
        return done.stdout

    def public_key(self, reference: Path) -> bytes:
        """PEM, out of the loaded reference."""
        try:
            return self.run("pkey", "-in", reference, "-pubout")
        except DeviceError as error:
            raise ConfigurationError(f"{reference} cannot be loaded: {error.message}") from None

    def compare(self, public: bytes, certificate: Path, reference: Path) -> None:
        """Whether the certificate is for the key."""
        try:
            wanted = self.run("x509", "-in", certificate, "-noout", "-pubkey")
        except DeviceError as error:
            raise ConfigurationError(
                f"{certificate} is no certificate: {error.message}", hint="PEM is wanted"
            ) from None
        if wanted.split() != public.split():
            raise ConfigurationError(
                f"the certificate in {certificate} is not for the key of {reference}",
                hint="was the key rotated? get a certificate for the new version, or write the reference for the old:\n"
                "  hsmsign key reference NAME/versions/N",
            )

    def sign(self, reference: Path, public: bytes, message: bytes) -> None:
        """One signature, made and verified."""
        (self._folder / "public").write_bytes(public)
        (self._folder / "message").write_bytes(message)
        options = self._options(public)
        rest: tuple[str | Path, ...] = ("-rawin", "-in", self._folder / "message", *options)
        signature = self._folder / "signature"
        self.run("pkeyutl", "-sign", "-inkey", reference, *rest, "-out", signature)
        try:
            self.run("pkeyutl", "-verify", "-pubin", "-inkey", self._folder / "public", *rest, "-sigfile", signature)
        except DeviceError:
            raise DeviceError(
                "the signature is not by the key of the reference",
                hint="is it the same daemon? write the reference again",
            ) from None

    def _options(self, public: bytes) -> tuple[str, ...]:
        said = self.run("pkey", "-pubin", "-in", self._folder / "public", "-noout", "-text").decode()
        if "ED25519" in said:
            return ()
        if "Modulus" in said:
            return ("-digest", "sha256", *_PADDING)
        bits = re.search(r"\((\d+) bit\)", said)
        size = int(bits[1]) if bits else 256
        return ("-digest", "sha256" if size <= 256 else "sha384" if size <= 384 else "sha512")


def _words(stderr: str) -> str:
    """The provider's own words where it has some, else OpenSSL's last ones."""
    errors = list(_ERROR.finditer(stderr))
    ours = [error for error in errors if error["library"] == "hsmsign"]
    for error in reversed(ours or errors):
        return f"{error['reason']}: {error['words']}" if error["words"] else str(error["reason"])
    lines = stderr.strip().splitlines()
    return lines[-1] if lines else ""

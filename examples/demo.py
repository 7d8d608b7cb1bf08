"""The main job, from an empty folder to a certificate chain that openssl accepts.

Runs the real daemon on a SoftHSM token of its own, in a scratch folder that it removes. `make demo` calls it.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import hsmsign
from hsmsign.client.client import Client

BATCH = 10_000
ONE_BY_ONE = 500
console = Console(highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """One thing that was done, in plain words."""
    console.print(f"[green]✓[/green] {text}")


def run(*command: str | Path) -> str:
    """Run a command that must succeed; its output."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def daemon(folder: Path) -> Iterator[Path]:
    """A daemon on a fresh token; gives the client.toml to reach it by. Ends it at the end."""
    hsmsign_command = [sys.executable, "-m", "hsmsign"]
    run(*hsmsign_command, "init", folder, "--listen", f"127.0.0.1:{free_port()}")
    say("made a SoftHSM token with random PINs, and a certificate authority and certificates for mutual TLS")
    log = (folder / "daemon.log").open("wb")
    process = subprocess.Popen([*hsmsign_command, "serve", "--config", str(folder / "hsmsign.toml")], stderr=log)
    try:
        endpoints = wait_for_endpoints(folder / "run" / "endpoints.json", process, folder / "daemon.log")
        say(f"started the daemon (process {process.pid}); it listens on {endpoints['tcp']} with mutual TLS")
        yield folder / "client.toml"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
        log.close()
    if process.returncode != 0:
        raise SystemExit(f"the daemon ended with {process.returncode}")


def wait_for_endpoints(path: Path, process: subprocess.Popen[bytes], log: Path) -> dict[str, str]:
    """What the daemon says of where it listens, when it is ready."""
    for _ in range(600):
        if path.exists():
            return dict(json.loads(path.read_text()))
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise SystemExit(f"the daemon did not get ready:\n{log.read_text()}")


def sign_a_file(client: Client, folder: Path) -> None:
    """One signature, with openssl as the judge."""
    file, signature, public = folder / "letter.txt", folder / "letter.sig", folder / "demo-web.pem"
    file.write_text("Private keys stay where they were made.\n")
    signature.write_bytes(client.sign("keys/demo-web", message=file.read_bytes()).value)
    public.write_text(client.public_key_info("keys/demo-web").pem)
    verdict = run("openssl", "dgst", "-sha256", "-verify", public, "-signature", signature, file)
    say(f"signed a file with keys/demo-web; openssl dgst -verify says: {verdict}")


def measure(client: Client) -> None:
    """A batch beside single calls."""
    digests = [hashlib.sha256(secrets.token_bytes(16)).digest() for _ in range(BATCH)]
    began = time.perf_counter()
    for digest in digests[:ONE_BY_ONE]:
        client.sign("keys/demo-web", digest=digest)
    single = ONE_BY_ONE / (time.perf_counter() - began)
    columns = (TextColumn("  signing a batch"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=BATCH)
        began = time.perf_counter()
        batch = client.sign_batch(
            "keys/demo-web", digests, on_progress=lambda done: progress.update(task, completed=done)
        )
        rate = BATCH / (time.perf_counter() - began)
        progress.update(task, completed=BATCH)
    if batch.errors:
        raise SystemExit(f"{len(batch.errors)} of the batch failed")
    say(f"signed {BATCH:,} digests: {rate:,.0f} a second in batches, {single:,.0f} a second one call at a time")


def usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """What the key of a CA, or of a TLS server, is for (RFC 5280, section 4.2.1.3)."""
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def certify(client: Client, folder: Path) -> None:
    """A CA, a request and a leaf, made with cryptography's own builders."""
    ca_key, web_key = client.key("keys/demo-ca"), client.key("keys/demo-web")
    now = datetime.datetime.now(datetime.UTC)
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hsmsign demo CA")])
    web_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "web.demo.internal")])

    def certificate(subject: x509.Name, public_key: object, days: int) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(public_key)  # type: ignore[arg-type]
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)  # type: ignore[arg-type]
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        )

    ca = (
        certificate(ca_name, ca_key.public_key(), 3650)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(signs_certificates=True), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    san = x509.SubjectAlternativeName([x509.DNSName("web.demo.internal")])
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(web_name)
        .add_extension(san, critical=False)
        .sign(web_key, hashes.SHA256())
    )
    leaf = (
        certificate(request.subject, request.public_key(), 30)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(san, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    for name, value in (("ca.pem", ca), ("web.csr", request), ("web.pem", leaf)):
        (folder / name).write_bytes(value.public_bytes(Encoding.PEM))
    run("openssl", "req", "-in", folder / "web.csr", "-noout", "-verify")
    say("made a self-signed CA certificate, a certificate request and a leaf certificate with remote keys")
    verdict = run("openssl", "verify", "-x509_strict", "-CAfile", folder / "ca.pem", folder / "web.pem")
    say(f"openssl verify says: {Path(verdict.split(':')[0]).name}:{verdict.split(':')[1]}")


def main() -> None:
    """The whole tour."""
    os.umask(0o077)
    folder = Path(tempfile.mkdtemp(prefix="hsmsign-demo-"))
    console.print(f"[bold]hsmsign demo[/bold]: a signing daemon over keys in a token. Scratch folder: {folder}")
    try:
        with daemon(folder) as client_file, hsmsign.connect(client_file=client_file) as client:
            for name in ("keys/demo-ca", "keys/demo-web"):
                facts = client.create_key(name, algorithm="ecdsa-p256").versions[0].facts
                kept = "sensitive, not extractable" if facts.sensitive and not facts.extractable else str(facts)
                say(f"made {name} (ECDSA P-256) on the token; the token says: {kept}")
            sign_a_file(client, folder)
            measure(client)
            certify(client, folder)
        say("stopped the daemon")
    finally:
        shutil.rmtree(folder)
    say("removed the scratch folder. No private key ever left the token.")


if __name__ == "__main__":
    main()

"""The certificate authority: certificates, OCSP answers over HTTP, CRLs that grow."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import threading
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from bench.loads import Figures
from bench.rows import Report
from bench.scene import Scene
from bench.signing import CORES, YARDSTICK
from hsmsign.client import CertificateInfo, Client

SIZES = (1_000, 10_000, 100_000, 1_000_000)
_BATCH, _CALLERS, _CONNECTIONS = 250, 2, 32
_PROFILE = 'url = "http://pki.example.org"\n[crl]\nsettle = "1d"\n[profiles.server]\nnames.dns = ["*.example.org"]\n'
_POST = """wrk.method = "POST"
wrk.headers["Content-Type"] = "application/ocsp-request"
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
"""


def scene() -> Scene:
    """A daemon with an authority."""
    made = Scene.build(edit=_with_web, prepare=lambda folder: _write(folder / "ca.toml"))
    with made.tcp() as client:
        client.ca.create("authority", subject="CN=Bench,O=Example", algorithm="ecdsa-p256", path_length=0)
    return made


def report(out: Report, most: int) -> list[dict[str, float]]:
    """Measure; the ratios are to the bare device on all cores. Then CRLs of up to `most` entries, beside nothing."""
    seconds = out.extent.seconds
    with scene() as one:
        group = out.group("certificate authority", YARDSTICK, one)
        key_id = one.key_id()

        def raw() -> float:
            return one.raw(key_id, CORES, seconds)

        csr = _csr()
        with one.unix() as client:
            group.add(f"certificates, batches of {_BATCH}", raw, lambda: _issue(client, csr, seconds))
            leaf = client.ca.issue("authority", csr, profile="server").certificate
            root = client.ca.get("authority").versions[0].certificate
        above = x509.load_pem_x509_certificate(root.encode())
        for name, nonce in (("OCSP over HTTP, fresh (a nonce)", bytes(32)), ("OCSP over HTTP, kept", None)):
            der = _question(leaf, above, nonce)
            group.add(name, raw, lambda der=der: _ask(one, der, seconds))  # type: ignore[misc]
        return [_crl(one, size) for size in SIZES if size <= most]


def _with_web(text: str) -> str:
    return text.replace('[web]\nlisten = ""', '[web]\nlisten = "127.0.0.1:0"')


def _write(path: Path) -> None:
    path.write_text(_PROFILE)


def _csr() -> bytes:
    names = x509.SubjectAlternativeName([x509.DNSName("web.example.org")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(names, critical=False)
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.DER)


def _issue(client: Client, csr: bytes, seconds: float) -> Figures:
    counts: list[int] = []
    end = time.perf_counter() + seconds

    def run() -> None:
        made = 0
        while time.perf_counter() < end:
            batch = client.ca.issue_many("authority", [csr] * _BATCH, profile="server")
            assert all(isinstance(one, CertificateInfo) for one in batch)
            made += len(batch)
        counts.append(made)

    callers = [threading.Thread(target=run) for _ in range(_CALLERS)]
    began = time.perf_counter()
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return Figures(sum(counts) / (time.perf_counter() - began), count=sum(counts))


def _question(leaf: x509.Certificate, above: x509.Certificate, nonce: bytes | None) -> bytes:
    builder = ocsp.OCSPRequestBuilder().add_certificate(leaf, above, hashes.SHA1())
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return builder.build().public_bytes(Encoding.DER)


def _ask(one: Scene, der: bytes, seconds: float) -> Figures:
    """wrk, with one question again and again; each with a nonce is signed for itself."""
    body, script = one.folder / "question.der", one.folder / "ask.lua"
    body.write_bytes(der)
    script.write_text(_POST.format(body=body))
    endpoints = json.loads((one.folder / "run" / "endpoints.json").read_text())
    url = f"http://{endpoints['web']}/ocsp"
    command = ["wrk", "-t1", f"-c{_CONNECTIONS}", f"-d{max(1, round(seconds))}s", "-s", str(script), url]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    if "Non-2xx" in done.stdout:
        raise RuntimeError(done.stdout)
    found = re.search(r"Requests/sec:\s+([0-9.]+)", done.stdout)
    if found is None:
        raise RuntimeError(done.stdout)
    return Figures(float(found[1]))


def _crl(one: Scene, size: int) -> dict[str, float]:
    """Time of one CRL of so many entries, and by how much the worker's memory was higher meanwhile."""
    _revoke(one.folder / "state" / "hsmsign.db", size)
    worker = int(json.loads((one.folder / "run" / "endpoints.json").read_text())["pids"]["worker"])
    with one.unix() as client:
        Path(f"/proc/{worker}/clear_refs").write_text("5")  # the peak begins anew
        before = _memory(worker, "VmRSS")
        began = time.perf_counter()
        (made,) = client.ca.publish_crls("authority", deadline=600)
        took = time.perf_counter() - began
        peak = _memory(worker, "VmHWM") - before
    row = {"entries": size, "seconds": took, "us_each": took / size * 1e6, "bytes": made.size, "peak_mib": peak}
    print(
        f"CRL of {size:9,} entries   {took:7.2f} s   {row['us_each']:6.1f} us each   {made.size:11,} bytes"
        f"   peak {peak:+6.1f} MiB",
        flush=True,
    )
    return row


def _revoke(store: Path, size: int) -> None:
    """Have so many revoked certificates in the store."""
    with sqlite3.connect(store, timeout=60) as connection:
        (there,) = connection.execute("SELECT count(*) FROM certificates WHERE revoked IS NOT NULL").fetchone()
        now = int(time.time())
        connection.executemany(
            "INSERT INTO certificates (serial, authority, version, shard, state, profile, requester, identity, subject,"
            " names, not_before, not_after, public_key, fingerprint, content, created, revoked, changed, reason)"
            " VALUES (?, 'authority', 1, 0, 'ISSUED', 'server', '', '', '', '[]', ?, ?, '', '', x'', 0, ?, ?,"
            " 'superseded')",
            ((f"{(1 << 158) + n:x}", now, now + 10**7, now, now) for n in range(there, size)),
        )


def _memory(pid: int, field: str) -> float:
    """MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"there is no {field}")

"""Full TLS 1.3 handshakes of servers whose key is on the device, beside the same server with the same kind of key in a
file: nginx with hsmsign.so, and Python's `ssl` with `hsmsign.tls.server_context`."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from bench.loads import Figures
from bench.rows import Report
from bench.scene import KEY, Scene
from hsmsign.tls import server_context
from hsmsign.tls.reference import KeyReference

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
_ROOT = Path(__file__).parents[1]
_SHAKER = Path(__file__).with_name("build") / "shaker"
_MODULE = _ROOT / "native" / "build" / "plain" / "hsmsign.so"
KINDS = {"P-256": KEY, "RSA-2048": "keys/bench-rsa"}
"""The short form has the first alone."""
NAMES = [f"{server} handshakes, {kind}" for server in ("nginx", "python") for kind in KINDS]
_WAIT = 20.0
_THREADS = 8
_OPENSSL = """\
openssl_conf = openssl_init
[openssl_init]
providers = providers
[providers]
default = default_section
hsmsign = hsmsign_section
[default_section]
activate = 1
[hsmsign_section]
module = {module}
activate = 1
"""
_NGINX = """\
worker_processes 2;
user root;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  ssl_protocols TLSv1.3;
  ssl_session_cache off;
  ssl_session_tickets off;
  {servers}
}}
"""
_SERVER = """\
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {folder}/{name}.pem;
    ssl_certificate_key {folder}/{name}.key;
  }}
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is: a port with a key in a file, one with a key on the device."""

    ca: Path
    in_file: int
    on_device: int
    pid: int = 0

    def shake(self, port: int, threads: int, seconds: float) -> Figures:
        """Handshakes a second, and how long each took."""
        command = [str(_SHAKER), str(port), str(self.ca), str(threads), str(seconds)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        said = json.loads(done.stdout)
        return Figures(said["rate"], tuple(each / 1e6 for each in said["times"]))


def _certify(folder: Path, name: str, key: PublicKey, ca: ec.EllipticCurvePrivateKey) -> None:
    now = dt.datetime.now(dt.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")]))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=name == "ca", path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    )
    (folder / f"{name}.pem").write_bytes(builder.sign(ca, hashes.SHA256()).public_bytes(Encoding.PEM))


def _prepare(scene: Scene, folder: Path, name: str) -> None:
    """device.pem and device.key (a reference) for a key of the daemon, file.pem and file.key for one of its kind."""
    ca = ec.generate_private_key(ec.SECP256R1())
    _certify(folder, "ca", ca.public_key(), ca)
    with scene.unix() as client:
        key = client.key(name)
        public = client.public_key(name)
        assert isinstance(public, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
        reference = KeyReference.at(client.endpoint, key.key_version, client.public_key_info(name).der)
    _certify(folder, "device", public, ca)
    (folder / "device.key").write_bytes(reference.to_pem())
    own: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    if isinstance(public, rsa.RSAPublicKey):
        own = rsa.generate_private_key(65537, public.key_size)
    else:
        own = ec.generate_private_key(public.curve)
    _certify(folder, "file", own.public_key(), ca)
    (folder / "file.key").write_bytes(own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


@contextlib.contextmanager
def _serving(command: Sequence[str | Path], place: Place, **environment: str) -> Iterator[Place]:
    folder = place.ca.parent
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, env={**os.environ, **environment}, cwd=_ROOT)
    try:
        for port in (place.in_file, place.on_device):
            _wait_for(port, folder)
        yield replace(place, pid=process.pid)
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int, folder: Path) -> None:
    end = time.monotonic() + _WAIT
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError("the server did not start: " + (folder / "server.log").read_text())


@contextlib.contextmanager
def nginx(folder: Path) -> Iterator[Place]:
    """Two workers, hsmsign.so."""
    place = Place(folder / "ca.pem", *_free_ports())
    (folder / "openssl.cnf").write_text(_OPENSSL.format(module=_MODULE))
    ports = {"file": place.in_file, "device": place.on_device}
    servers = "\n".join(_SERVER.format(port=port, folder=folder, name=name) for name, port in ports.items())
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, servers=servers))
    command = ["nginx", "-c", folder / "nginx.conf", "-e", folder / "error.log"]
    with _serving(command, place, OPENSSL_CONF=str(folder / "openssl.cnf")) as found:
        yield found


@contextlib.contextmanager
def python(folder: Path) -> Iterator[Place]:
    """One process, some threads."""
    place = Place(folder / "ca.pem", *_free_ports())
    ports = [str(port) for port in (place.in_file, place.on_device)]
    with _serving([sys.executable, "-m", "bench.handshakes", folder, *ports], place) as found:
        yield found


def _serve(context: ssl.SSLContext, port: int) -> None:
    """Make handshakes for good."""

    def shake(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(10)
            context.wrap_socket(connection, server_side=True).close()

    with socket.create_server(("127.0.0.1", port), backlog=128) as listening, ThreadPoolExecutor(_THREADS) as pool:
        while True:
            pool.submit(shake, listening.accept()[0])


def _be_python(folder: Path, in_file: int, on_device: int) -> None:
    plain = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    plain.load_cert_chain(folder / "file.pem", folder / "file.key")
    device = server_context(folder / "device.pem", folder / "device.key")
    for context in (plain, device):
        context.num_tickets = 0
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(_serve, (plain, device), (in_file, on_device)))


def _processor(pid: int) -> float:
    """Seconds of processor that this process and its children have had."""
    family = psutil.Process(pid)
    times = [each.cpu_times() for each in (family, *family.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def _added(place: Place, scene: Scene, what: str, seconds: float, rounds: int) -> None:
    """One handshake after the other, both servers in turn: what the device adds to each, in waiting and in work."""
    added: dict[float, list[float]] = {0.5: [], 0.99: []}
    work: dict[str, float] = {}
    done = [0, 0]
    for _ in range(max(rounds, 1)):
        found = []
        for number, port in enumerate((place.in_file, place.on_device)):
            before = _processor(place.pid), _processor(scene.process.pid)
            found.append(place.shake(port, 1, seconds))
            done[number] += len(found[-1].latencies)
            for who, pid, was in zip(("server", "daemon"), (place.pid, scene.process.pid), before, strict=True):
                work[f"{who}{number}"] = work.get(f"{who}{number}", 0.0) + _processor(pid) - was
        for share, differences in added.items():
            differences.append(found[1].percentile(share) - found[0].percentile(share))
    p50, p99 = (statistics.median(differences) for differences in added.values())
    print(f"{what + ', 1 at once: added to each':48} p50 {p50:9,.0f} us   p99 {p99:9,.0f} us", flush=True)
    in_file, server, daemon = (
        work[who] / max(done[int(who[-1])], 1) * 1e6 for who in ("server0", "server1", "daemon1")
    )
    print(f"  processor of each: {in_file:,.0f} us with the key in a file; on the device", end=" ")
    print(f"{server:,.0f} us and the daemon's {daemon:,.0f} us")


def report(out: Report) -> None:
    """Both servers (nginx where it is installed) with an EC key; except in the short form with an RSA key as well."""
    seconds, short = out.extent.seconds, out.extent.short
    group = out.group("handshakes", "the same server with the key in a file")
    build = ["make", "-s", "-C", str(_ROOT / "native"), "provider", f"PYTHON={sys.executable}"]
    subprocess.run(build, check=True, capture_output=True)
    with Scene.build() as scene:
        for kind, name in list(KINDS.items())[: 1 if short else None]:
            if name != KEY:
                with scene.unix() as client:
                    client.create_key(name, algorithm="rsa-2048")
            _prepare(scene, scene.folder, name)
            for server in (nginx, python) if shutil.which("nginx") else (python,):
                what = f"{server.__name__} handshakes, {kind}"
                with server(scene.folder) as place:
                    for threads in (1, 16):
                        group.add(
                            f"{what}, {threads} at once",
                            lambda p=place, n=threads: p.shake(p.in_file, n, seconds).rate,  # type: ignore[misc]
                            lambda p=place, n=threads: p.shake(p.on_device, n, seconds),  # type: ignore[misc]
                            series=what,
                            x=("callers", threads),
                        )
                    _added(place, scene, what, seconds, out.extent.rounds)


if __name__ == "__main__":
    _be_python(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

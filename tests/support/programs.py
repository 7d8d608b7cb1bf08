"""Programs of others with keys on devices: nginx, HAProxy, curl, openssl, as they are installed."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from cryptography import x509

from hsmsign.client import Client
from hsmsign.client.configuration import Endpoint
from hsmsign.tls import examples
from hsmsign.tls.reference import KeyReference
from tests.support.authority import Authority
from tests.support.daemon import eventually

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_SECONDS = 60


def program(name: str) -> str:
    """Where it is; the test is skipped where it is not."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def free_port() -> int:
    """One that nobody has now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass(frozen=True)
class Pair:
    """A certificate, and the reference to its key."""

    certificate: Path
    reference: Path


class Place:
    """A folder with an openssl.cnf as `hsmsign provider conf openssl` prints it, and a CA."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority("site")
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(self.authority.pem)
        self.configuration = folder / "openssl.cnf"
        self.configuration.write_text(examples.text("openssl"))

    @property
    def environment(self) -> dict[str, str]:
        """Of programs that use the provider."""
        return {**os.environ, "OPENSSL_CONF": str(self.configuration)}

    def pair(
        self,
        client: Client,
        name: str,
        *,
        file: str = "",
        endpoint: Endpoint | None = None,
        deadline: float = 5.0,
        verify: bool = False,
    ) -> Pair:
        """A certificate for localhost and a reference, for a key that is there."""
        made = Pair(self.folder / f"{file or name}.pem", self.folder / f"{file or name}.ref")
        public = client.public_key_info(f"keys/{name}")
        signer = client.key(public.key_version)
        made.certificate.write_bytes(self.authority.certify(signer, x509.DNSName("localhost"), subject=name))
        reference = KeyReference.at(
            endpoint or client.endpoint, public.key_version, public.der, deadline=deadline, verify=verify
        )
        made.reference.write_bytes(reference.to_pem())
        return made

    def run(
        self, *words: str | Path, stdin: bytes | None = None, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """A program to its end, with the provider."""
        command = [program(str(words[0])), *map(str, words[1:])]
        return subprocess.run(
            command,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            check=False,
            env={**self.environment, **(environment or {})},
            cwd=self.folder,
            timeout=_SECONDS,
        )

    def good(self, *words: str | Path, stdin: bytes | None = None) -> bytes:
        """What it printed; it must go well."""
        done = self.run(*words, stdin=stdin)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def s_client(self, port: int, *options: str) -> str:
        """What `openssl s_client` says of a handshake; without the provider, as anybody has it."""
        words = ("s_client", "-connect", f"127.0.0.1:{port}", "-servername", "localhost", "-CAfile", str(self.ca))
        done = subprocess.run(
            [program("openssl"), *words, "-verify_return_error", *options],
            input=b"",
            capture_output=True,
            check=False,
            timeout=_SECONDS,
        )
        return (done.stdout + done.stderr).decode(errors="replace")


class Server:
    """A program that listens; it is started by `with`."""

    def __init__(self, place: Place, command: list[str], port: int) -> None:
        self.place = place
        self.port = port
        self._command = command
        self._log = place.folder / f"log-{port}"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.place.environment,
                cwd=self.place.folder,
            )
        eventually(self._listens, "it did not listen")
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(timeout=_SECONDS)

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5):
            return True
        return False

    def log(self) -> str:
        """What it said."""
        return self._log.read_text(errors="replace")

    def logged(self, words: str) -> None:
        """Wait for these words in its log."""
        eventually(lambda: words in self.log(), f"it never said {words!r}: {self.log()}")

    def workers(self) -> set[int]:
        """The process ids of its children."""
        assert self.process is not None
        return {child.pid for child in psutil.Process(self.process.pid).children() if _lives(child)}

    def reload(self) -> None:
        """As `nginx -s reload`, and `systemctl reload haproxy`; ends when the workers from before have ended."""
        assert self.process is not None
        before = self.workers()
        if "nginx" in self._command[0]:
            self.place.good(*self._command, "-s", "reload")
        else:
            self.process.send_signal(signal.SIGUSR2)
        eventually(lambda: not before & self.workers(), "workers from before went on")


def _lives(child: psutil.Process) -> bool:
    try:
        return child.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


_NGINX = """\
{user}
env OPENSSL_CONF;
daemon off;
pid {folder}/nginx-{port}.pid;
error_log stderr info;
worker_processes 3;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/t1;
    proxy_temp_path {folder}/t2;
    fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4;
    scgi_temp_path {folder}/t5;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {pair.certificate};
        ssl_certificate_key {pair.reference};
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_tickets off;
        {more}
        location / {{ return 200 "$ssl_protocol $pid $ssl_client_s_dn\\n"; }}
    }}
}}
"""


def nginx(place: Place, pair: Pair, *, more: str = "", user: str = "") -> Server:
    """Three workers, which answer with the version of TLS, their process id, and the client's name."""
    port = free_port()
    # the socket of the daemon belongs to whoever runs the tests
    own = f"user {user or pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""
    file = place.folder / f"nginx-{port}.conf"
    file.write_text(_NGINX.format(folder=place.folder, port=port, pair=pair, more=more, user=own))
    return Server(place, [program("nginx"), "-p", str(place.folder), "-c", str(file), "-e", "stderr"], port)


def nginx_test(place: Place, pair: Pair) -> subprocess.CompletedProcess[bytes]:
    """What `nginx -t` says of a certificate and a key."""
    port = free_port()
    file = place.folder / "nginx-test.conf"
    file.write_text(_NGINX.format(folder=place.folder, port=port, pair=pair, more="", user=""))
    return place.run("nginx", "-t", "-p", place.folder, "-c", file, "-e", "stderr")


def haproxy(place: Place, certificate: Path) -> Server:
    """One frontend, which answers by itself with the version of TLS; in the foreground, with a master and a worker."""
    port = free_port()
    file = place.folder / f"haproxy-{port}.cfg"
    file.write_text(f"""\
global
    stats socket {place.folder}/stats expose-fd listeners
defaults
    mode http
    timeout client 30s
    timeout server 30s
    timeout connect 5s
frontend https
    bind 127.0.0.1:{port} ssl crt {certificate} ssl-min-ver TLSv1.2
    http-request return status 200 content-type text/plain lf-string "%sslv %pid"
""")
    return Server(place, [program("haproxy"), "-W", "-f", str(file)], port)


def s_server(place: Place, pair: Pair, *options: str) -> Server:
    """`openssl s_server`, which answers like a web server."""
    port = free_port()
    command = [program("openssl"), "s_server", "-accept", f"127.0.0.1:{port}", "-www", "-key", str(pair.reference)]
    return Server(place, [*command, "-cert", str(pair.certificate), *options], port)


def ask(place: Place, port: int, version: str = "1.3", *, timeout: float = 40.0) -> tuple[bytes, str]:
    """A new connection and one request: the server's certificate (DER) and the answer's content."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(place.ca)
    context.minimum_version = context.maximum_version = VERSIONS[version]
    with (
        socket.create_connection(("127.0.0.1", port), timeout=timeout) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        tls.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
        answer = b""
        while chunk := tls.recv(4096):
            answer += chunk
        certificate = tls.getpeercert(binary_form=True) or b""
    return certificate, answer.partition(b"\r\n\r\n")[2].decode()


class Load:
    """Threads that make one connection after the other."""

    def __init__(self, place: Place, port: int, threads: int = 3) -> None:
        self._place, self._port = place, port
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(threads)]
        self.seen: list[tuple[bytes, str]] = []
        self.failures: list[Exception] = []

    def _run(self, number: int) -> None:
        while not self._ended.is_set():
            try:
                self.seen.append(ask(self._place, self._port, "1.2" if number % 2 else "1.3"))
            except OSError as error:
                self.failures.append(error)

    def more(self, count: int) -> None:
        """Wait for that many more answers."""
        wanted = len(self.seen) + count
        eventually(lambda: len(self.seen) >= wanted, f"no more answers: {self.failures[-3:]}")

    def until(self, what: Callable[[], bool]) -> None:
        """Wait."""
        eventually(what, f"it did not happen: {self.failures[-3:]}")

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(_SECONDS)


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that does nothing meanwhile, as one on a machine that hangs."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)

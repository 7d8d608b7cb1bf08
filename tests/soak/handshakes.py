"""`make soak-tls`: many full TLS handshakes with hsmsign.so and a real daemon, as a web server makes them (threads,
forked children, both versions, keys on EC and RSA, over the Unix socket and mutual TLS), under valgrind or
AddressSanitizer. None may fail, and neither may find anything.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from hsmsign.client import Client
from hsmsign.tls.reference import KeyReference
from tests.support.daemon import Daemon
from tests.support.softhsm import ROOT

KEYS = {"keys/tls-ec": "ecdsa-p256", "keys/tls-rsa": "rsa-2048"}
UNDER = ("valgrind", "asan", "nothing")
_LEAKS = ("--leak-check=full", "--errors-for-leak-kinds=definite", "--show-leak-kinds=definite")
_VALGRIND = ("valgrind", "--quiet", "--error-exitcode=99", "--num-callers=40", *_LEAKS)
CONFIGURATION = """\
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
"""openssl.cnf of a program whose keys are on a device."""


def build(kind: str) -> Path:
    """Compile the program and hsmsign.so (`kind` is "plain" or "asan"); their folder."""
    command = ["make", "-s", "-C", str(ROOT / "native"), f"soak-handshakes-{kind}", f"PYTHON={sys.executable}"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return ROOT / "native" / "build" / kind


def references(daemon: Daemon, folder: Path, *, seconds: float = 60.0) -> list[Path]:
    """Files with a reference to each key (made if they are not there), over the Unix socket and over mutual TLS."""
    found = []
    for kind, client in (("unix", daemon.unix_client()), ("tls", daemon.client())):
        with client:
            for number, (name, algorithm) in enumerate(KEYS.items()):
                path = folder / f"{kind}-{number}.pem"
                path.write_bytes(reference(client, name, algorithm, seconds).to_pem())
                found.append(path)
    return found


def reference(client: Client, name: str, algorithm: str, seconds: float) -> KeyReference:
    """To a key, which is made if it is not there; its signatures are checked where it is RSA."""
    if name not in [key.name for key in client.list_keys()]:
        client.create_key(name, algorithm=algorithm)
    key = client.key(name)
    verify = algorithm.startswith("rsa")
    return KeyReference.at(client.endpoint, key.key_version, key._info.der, deadline=seconds, verify=verify)


def soak(
    files: Sequence[Path], handshakes: int, *, under: str, children: int = 4, threads: int = 3, leave_keys: bool = False
) -> subprocess.CompletedProcess[str]:
    """Make so many handshakes, with the keys that are referred to."""
    built = build("asan" if under == "asan" else "plain")
    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder, "openssl.cnf")
        configuration.write_text(CONFIGURATION.format(module=built / "hsmsign.so"))
        environment = {**os.environ, "OPENSSL_CONF": str(configuration), "ASAN_OPTIONS": "detect_leaks=1"}
        if leave_keys:
            environment["SOAK_LEAVES_KEYS"] = "1"
        program = [str(built / "provider" / "soak_handshakes"), str(handshakes), str(children), str(threads)]
        command = [*(_VALGRIND if under == "valgrind" else ()), *program, *map(str, files)]
        return subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=3600)


def main() -> int:
    """Run it against a daemon of its own; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--handshakes", type=int, default=10_000)
    parser.add_argument("--under", choices=UNDER, default="valgrind")
    given = parser.parse_args()
    daemon = Daemon().start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            done = soak(references(daemon, Path(folder)), given.handshakes, under=given.under)
    finally:
        daemon.remove()
    print(f"{done.stdout.strip()}, under {given.under}, in {time.monotonic() - began:.0f} s; it said:")
    print(done.stderr.strip() or "nothing")
    return int(done.returncode != 0 or done.stderr != "")


if __name__ == "__main__":
    sys.exit(main())

"""p11-kit's remote, which takes PKCS #11 itself over a Unix socket, beside ours."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench import loads
from bench.loads import Figures
from bench.rows import Report
from bench.scene import Scene, rawloop
from bench.signing import CORES, YARDSTICK

_MODULES = ("lib/*/pkcs11", "lib64/pkcs11", "lib/pkcs11")


def report(out: Report, scene: Scene, key_id: str) -> None:
    """The raw loop with p11-kit's client as its module, and sign() of threads of one client, both over Unix sockets."""
    if not out.wants("p11-kit"):
        return
    seconds = out.extent.seconds
    module = next((found for place in _MODULES for found in Path("/usr").glob(f"{place}/p11-kit-client.so")), None)
    if module is None or not shutil.which("p11-kit"):
        print("p11-kit is not here (Debian: p11-kit, p11-kit-modules): its loads are left out")
        return
    alone, ours = out.group("p11-kit", YARDSTICK), out.group("p11-kit", YARDSTICK, scene)

    def raw() -> float:
        return scene.raw(key_id, CORES, seconds)

    for count in (1, 8):
        with _server(scene) as variables:
            alone.add(
                f"p11-kit remote, {count} threads",
                raw,
                lambda n=count, v=variables: Figures(rawloop(str(module), key_id, n, seconds, "ecdsa-p256", v)),  # type: ignore[misc]
                series="p11-kit remote",
                x=("callers", count),
            )
        ours.add(
            f"hsmsign, sign(), {count} threads, Unix socket",
            raw,
            lambda n=count: loads.threads(scene.unix, n, seconds),  # type: ignore[misc]
            series="hsmsign",
            x=("callers", count),
        )


@contextlib.contextmanager
def _server(scene: Scene) -> Iterator[dict[str, str]]:
    """Serves the token; gives the environment for its client."""
    where = [f"--name={scene.folder / 'p11-kit.sock'}", f"--provider={scene.module}", "pkcs11:token=hsmsign"]
    command, variables = ["p11-kit", "server", "--foreground", "--sh", *where], scene.environment
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()  # P11_KIT_SERVER_ADDRESS=…; export P11_KIT_SERVER_ADDRESS;
            name, _, value = said.partition(";")[0].partition("=")
            if name != "P11_KIT_SERVER_ADDRESS":
                raise RuntimeError(f"p11-kit did not say where it is: {said!r}")
            yield {**variables, name: value.strip("'\"")}
        finally:
            process.terminate()

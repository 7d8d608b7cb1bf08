"""docs/provider.md: its examples, run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.programs import Place, free_port

PAGE = (Path(__file__).parents[2] / "docs" / "provider.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def toured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The folder after all that the page has for a shell."""
    daemon = Daemon().start()
    place = Place(tmp_path_factory.mktemp("tour"))
    client = place.folder / "client.toml"
    client.write_text(f'endpoint = "unix://{daemon.endpoints["unix"]}"\n')
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "HSMSIGN_CLIENT": str(client)}
    script = "\n".join(blocks("sh")).replace("8443", str(free_port()))
    done = subprocess.run(
        ["bash", "-e", "-c", script], cwd=place.folder, env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (place.folder / "said").write_text(done.stdout + done.stderr)
    yield place
    daemon.remove()


def test_the_shells_part_works(toured: Place) -> None:
    said = (toured.folder / "said").read_text()
    assert "had a signature made, and verified it" in said
    assert "Verified OK" in said
    assert "verify OK" in said
    assert "Secure Renegotiation IS" in (toured.folder / "page.html").read_text()


def test_nginx_takes_what_the_page_has_for_it(toured: Place) -> None:
    (example,) = blocks("nginx")
    server = example.replace("/etc/nginx/", f"{toured.folder}/").replace("443", f"127.0.0.1:{free_port()}")
    file = toured.folder / "nginx.conf"
    file.write_text(f"pid {toured.folder}/pid;\nevents {{}}\nhttp {{\n{server}}}\n")
    done = toured.run("nginx", "-t", "-p", toured.folder, "-c", file, "-e", "stderr")
    assert done.returncode == 0, done.stderr.decode()


def test_haproxy_takes_what_the_page_has_for_it(toured: Place) -> None:
    (example,) = blocks("haproxy")
    both = toured.folder / "both.pem"
    both.write_bytes((toured.folder / "web-1.pem").read_bytes() + (toured.folder / "web-1.key.pem").read_bytes())
    file = toured.folder / "haproxy.cfg"
    file.write_text(example.replace("/etc/haproxy/certs/web-1.pem", str(both)))
    done = toured.run("haproxy", "-c", "-f", file)
    assert b"No Private Key" not in done.stdout + done.stderr
    assert done.returncode == 0, done.stderr.decode()

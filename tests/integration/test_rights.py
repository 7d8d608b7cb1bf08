"""docs/rights.md: its examples, run as they stand, with clients that come with certificates."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from tests.support.tls_site import GREEN, ORANGE, Site

PAGE = (Path(__file__).parents[2] / "docs" / "rights.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(toml|sh|python)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A folder with every file of the page, by the name in its first line."""
    made = Site(tmp_path_factory.mktemp("shop"))
    for language, text in BLOCKS:
        if language != "sh":
            name = re.match(r"# (\S+)\n", text)
            assert name is not None
            (made.folder / name[1]).write_text(text)
    return made


@contextmanager
def serve(site: Site, name: str) -> Iterator[int]:
    """One of the page's servers, on a port that was free."""
    with socket.create_server(("localhost", 0)) as taken:
        port = taken.getsockname()[1]
    with (site.folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, name, str(port)], cwd=site.folder, stdout=log, stderr=subprocess.STDOUT, env=ENVIRONMENT
        )
    try:
        end = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("localhost", port)) == 0:
                    break
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def test_the_rules_are_what_the_page_says_of_them(site: Site) -> None:
    (script,) = [text for language, text in BLOCKS if language == "sh"]
    done = subprocess.run(
        ["bash", "-ec", script],
        cwd=site.folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "rights.toml: good, 4 rules" in done.stdout
    assert "allowed by rights.toml:2" in done.stdout
    assert "DENIED: no rule allows it" in done.stdout


@pytest.mark.parametrize("name", ["shop_asgi.py", "shop_wsgi.py"])
def test_green_writes_and_orange_reads_over_http(site: Site, name: str) -> None:
    with serve(site, name) as port:
        assert site.ask(port, "green", "POST", "/articles/1")[::2] == (200, f"POST by {GREEN}\n".encode())
        assert site.ask(port, "orange", "GET", "/articles/1")[::2] == (200, f"GET by {ORANGE}\n".encode())
        assert site.ask(port, "orange", "POST", "/articles/1?token=secret")[0] == 403
        assert site.ask(port, "green", "GET", "/articles/%2e%2e/x")[0] == 403
        with pytest.raises(OSError):  # as the handshake ends
            site.ask(port, "", "GET", "/articles/1")
    log = (site.folder / f"{name}.log").read_text()
    assert f"refused: {ORANGE} may not POST /articles/1: no rule allows it\n" in log


def test_green_writes_and_orange_reads_over_grpc(site: Site) -> None:
    def call(name: str, method: str) -> bytes:
        key, certificate = site.pair(name)
        own = grpc.ssl_channel_credentials(site.authority.pem, key, certificate)
        with grpc.secure_channel(f"localhost:{port}", own) as channel:
            answer: bytes = channel.unary_unary(f"/shop.v1.Shop/{method}")(b"", timeout=20)
            return answer

    with serve(site, "shop_grpc.py") as port:
        assert call("green", "WritePrice") == f"hello {GREEN}".encode()
        assert call("orange", "ReadPrice") == f"hello {ORANGE}".encode()
        with pytest.raises(grpc.RpcError) as caught:
            call("orange", "WritePrice")
        assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED

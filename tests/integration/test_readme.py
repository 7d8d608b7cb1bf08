"""Every example of the README, run as it stands."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsmsign.daemon.schema import BackendTable
from tests.support.daemon import eventually

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def toured() -> Iterator[tuple[Path, dict[str, str], str]]:
    """The folder after the shell's part of the tour, the environment, and what was printed."""
    with tempfile.TemporaryDirectory(prefix="hsmsign-tour-") as name:
        folder = Path(name)
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        environment["HSMSIGN_CLIENT"] = str(folder / "signer" / "client.toml")
        setup, tour = blocks("sh")
        started = setup.replace("init ./signer", "init ./signer --listen 127.0.0.1:0")
        # the daemon is the shell's child: its own process group is ended at the end
        shell = subprocess.Popen(
            ["bash", "-e", "-c", f"{started}\nwait"], cwd=folder, env=environment, start_new_session=True
        )
        try:
            eventually((folder / "signer" / "run" / "endpoints.json").exists)
            done = subprocess.run(
                ["bash", "-e", "-c", tour], cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
            yield folder, environment, done.stdout + done.stderr
        finally:
            os.killpg(shell.pid, signal.SIGTERM)
            shell.wait()
            eventually(lambda: not (folder / "signer" / "run" / "endpoints.json").exists())


def test_the_tour_in_the_shell_works(toured: tuple[Path, dict[str, str], str]) -> None:
    folder, _, said = toured
    assert "Verified OK" in said
    assert '"primary_version": "keys/web-1/versions/2"' in said
    assert (folder / "web-1.csr").read_text().startswith("-----BEGIN CERTIFICATE REQUEST-----")


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_the_examples_in_python_work(toured: tuple[Path, dict[str, str], str], number: int) -> None:
    folder, environment, _ = toured
    done = subprocess.run(
        [sys.executable, "-c", blocks("python")[number]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_example_of_a_backend_is_one() -> None:
    (example,) = blocks("toml")
    backend = BackendTable.model_validate(tomllib.loads(example)["backends"]["hsm"])
    assert backend.sessions == 32

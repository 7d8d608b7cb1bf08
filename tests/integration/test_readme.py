"""Every example of the README, run as it stands."""

from __future__ import annotations

import contextlib
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


Toured = tuple[Path, dict[str, str], str]
"""The folder after a part of the tour in the shell, the environment, and what was printed."""


@contextlib.contextmanager
def tour(place: str, setup: str, commands: str) -> Iterator[Toured]:
    """Does what the README says: sets up a daemon in the folder `place`, and gives it commands."""
    with tempfile.TemporaryDirectory(prefix="hsmsign-tour-") as name:
        folder = Path(name)
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        environment["HSMSIGN_CLIENT"] = str(folder / place / "client.toml")
        started = setup.replace(f"init ./{place}", f"init ./{place} --listen 127.0.0.1:0")
        assert started != setup
        # the daemon is the shell's child: its own process group is ended at the end
        shell = subprocess.Popen(
            ["bash", "-e", "-c", f"{started}\nwait"], cwd=folder, env=environment, start_new_session=True
        )
        try:
            eventually((folder / place / "run" / "endpoints.json").exists)
            done = subprocess.run(
                ["bash", "-e", "-c", commands], cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
            yield folder, environment, done.stdout + done.stderr
        finally:
            os.killpg(shell.pid, signal.SIGTERM)
            shell.wait()
            eventually(lambda: not (folder / place / "run" / "endpoints.json").exists())


@pytest.fixture(scope="module")
def toured() -> Iterator[Toured]:
    setup, commands, _, _ = blocks("sh")
    with tour("signer", setup, commands) as done:
        yield done


def test_the_tour_of_a_tpm_ends_with_a_proof() -> None:
    _, _, setup, commands = blocks("sh")
    with tour("chip", setup, commands) as (_, _, said):
        assert "proved: a TPM made this key and does not let it go" in said


def test_the_tour_in_the_shell_works(toured: Toured) -> None:
    folder, _, said = toured
    assert "Verified OK" in said
    assert '"primary_version": "keys/web-1/versions/2"' in said
    assert (folder / "web-1.csr").read_text().startswith("-----BEGIN CERTIFICATE REQUEST-----")


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_the_examples_in_python_work(toured: Toured, number: int) -> None:
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

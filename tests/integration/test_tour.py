"""docs/tour.md, run from its top to its end as it stands; and the examples of configuration beside it, read."""

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
from dataclasses import dataclass, fields
from pathlib import Path

import psutil
import pytest

from hsmsign.pki import reading
from hsmsign.pki.reading_profiles import read_profiles
from hsmsign.pki.settings import CrlTimes, OcspTimes

DOCS = Path(__file__).parents[2] / "docs"
TOUR = (DOCS / "tour.md").read_text(encoding="utf-8")
STEPS = 11
"""0 to 10."""
_SECONDS = 240
"""In which it must end on a machine that does other things too."""


@dataclass(frozen=True, slots=True)
class Step:
    """A numbered part of the page, and what it printed."""

    said: str
    finished: bool


def script() -> str:
    """The page as one program for bash. Each step prints into a file; Python is run as a reader would run it."""
    lines = ["set -e"]
    for number, text in enumerate(re.split(r"^## \d+\. .*$", TOUR, flags=re.MULTILINE)[1:]):
        lines.append(f"exec > step-{number}.out 2>&1")
        for language, block in re.findall(r"^```(sh|python)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            lines.append(block if language == "sh" else f"python3 - <<'OF_PYTHON'\n{block}OF_PYTHON")
        lines.append(f"touch step-{number}.done")
    return "\n".join(lines)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hsmsign-tour-") as name:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        # the reader's Python is the one that has hsmsign
        shell = subprocess.Popen(
            ["bash", "-c", script()], cwd=name, env={**os.environ, "PATH": path}, start_new_session=True
        )
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                shell.wait(_SECONDS)
            yield Path(name)
        finally:
            _end(shell)


def _end(shell: subprocess.Popen[bytes]) -> None:
    """Whatever the page began and did not end: all of it is in the shell's process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(shell.pid, signal.SIGTERM)
    shell.wait()
    left = [one for one in psutil.process_iter() if _group(one.pid) == shell.pid]
    for process in psutil.wait_procs(left, 20)[1]:
        process.kill()


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


@pytest.fixture
def steps(folder: Path) -> list[Step]:
    """What each step came to."""
    files = [folder / f"step-{number}.out" for number in range(STEPS)]
    return [Step(one.read_text() if one.exists() else "", one.with_suffix(".done").exists()) for one in files]


def test_the_page_has_the_steps_that_are_tried() -> None:
    assert [int(one) for one in re.findall(r"^## (\d+)\. ", TOUR, re.MULTILINE)] == list(range(STEPS))


@pytest.mark.parametrize("number", range(STEPS))
def test_each_step_ends_well(steps: list[Step], number: int) -> None:
    assert steps[number].finished, "\n".join(one.said for one in steps[max(0, number - 1) : number + 1])
    assert "Traceback" not in steps[number].said


def test_openssl_accepts_the_authority_and_what_it_certifies(steps: list[Step]) -> None:
    assert "issuing.pem: OK" in steps[1].said
    assert "shop.pem: OK" in steps[2].said
    assert "dns:shop.example.org" in steps[2].said


def test_mutual_tls_says_who_calls(steps: list[Step]) -> None:
    assert "TLSv1.3 hello, spiffe://example.org/green" in steps[3].said


def test_a_request_of_a_device_key_is_granted_and_five_others_are_refused_each_for_its_reason(
    steps: list[Step],
) -> None:
    said = steps[4].said
    assert "('dns:api.example.org',)" in said
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 5, said
    for error, words in zip(
        errors, ("www.example.com", "CA:TRUE", "1024 bits", "intermediate", "changed"), strict=True
    ):
        assert words in error


def test_a_token_vouches_once_and_for_its_key_only(steps: list[Step], folder: Path) -> None:
    assert "URI:spiffe://example.org/shop/17" in steps[5].said
    assert "the identity token was used before" in steps[5].said
    assert "the token's aud is" in steps[5].said
    token = (folder / "job.token").read_text()
    assert token not in "".join(one.said for one in steps)
    assert token not in (folder / "daemon.log").read_text()


def test_the_crl_has_the_one_that_was_revoked_and_no_other(steps: list[Step]) -> None:
    assert "verify OK" in steps[6].said
    assert "green.pem: OK" in steps[6].said
    assert "error orange.pem: verification failed" in steps[6].said
    assert "certificate revoked" in steps[6].said


def test_ocsp_says_the_same_and_a_server_staples_it(steps: list[Step]) -> None:
    said = steps[7].said
    assert "Response verify OK" in said
    assert "green.pem: good" in said
    assert "orange.pem: revoked" in said
    assert re.search(r"^good, as of ", said, re.MULTILINE)
    assert re.search(r"^revoked since ", said, re.MULTILINE)
    assert "OCSP Response Status: successful (0x0)" in said
    assert "Cert Status: good" in said
    assert "Verify return code: 0 (ok)" in said


def test_a_server_has_two_names(steps: list[Step]) -> None:
    for name in ("web", "blog"):
        assert f"{name}.example.org is (('DNS', '{name}.example.org'),)" in steps[8].said
    assert steps[8].said.count("not revoked, as of 2") == 2


def test_green_writes_orange_reads_and_the_revoked_one_is_not_let_in(steps: list[Step]) -> None:
    for line in (
        "POST by green: 200",
        "GET by green: 200",
        "GET by orange: 200",
        "POST by orange: 403",
        "GET by revoked: no answer",
    ):
        assert line in steps[9].said


def test_no_server_or_client_of_the_page_has_its_key_in_a_file(steps: list[Step], folder: Path) -> None:
    keys = sorted(one.name for one in folder.glob("*") if one.is_file() and b"PRIVATE KEY" in one.read_bytes())
    assert keys == ["fine.key", "job.key", "other.key", "weak.key"]  # of requests that come from somewhere else


def test_renewal_runs_its_hook_and_callers_meet_the_daemon_under_its_own_authority(steps: list[Step]) -> None:
    said = steps[10].said
    assert "reload for shop.pem" in said
    assert "web.pem: not yet" in said
    assert "signer/tls/server.pem: certificates/" in said
    assert re.search(r"^cas/hosts +1 +1 ", said, re.MULTILINE)
    assert "spiffe://hsmsign/client/" in said


def example(page: str) -> str:
    """The first piece of configuration on a page."""
    found = re.search(r"^```toml\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_the_example_of_profiles_can_be_read() -> None:
    made = {profile.name: profile for profile in read_profiles(tomllib.loads(example("profiles.md"))["profiles"])}
    assert made["web"].names.dns == ("*.shop.example.org",)
    assert made["job"].short_lived


def test_the_example_of_identity_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "ca.toml").write_text(example("identity.md"))
    made = reading.read(tmp_path / "ca.toml")
    assert [(one.name, one.bound) for one in made.identity] == [("gce", True)]


def test_every_key_of_ca_toml_is_in_the_table_with_its_default(tmp_path: Path) -> None:
    page = (DOCS / "configuration.md").read_text(encoding="utf-8").split("## ca.toml", 1)[1]
    said = re.findall(r"^\| `\[(crl|ocsp)\] (\w+)` \| `(\"\w+\")` \|", page, re.MULTILINE)
    (tmp_path / "ca.toml").write_text("\n".join(f"{table}.{key} = {value}" for table, key, value in said))
    assert reading.read(tmp_path / "ca.toml") == reading.read(_empty(tmp_path))
    assert len(said) == len(fields(CrlTimes)) + len(fields(OcspTimes))


def _empty(folder: Path) -> Path:
    path = folder / "empty.toml"
    path.touch()
    return path

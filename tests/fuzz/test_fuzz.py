from __future__ import annotations

from pathlib import Path

import pytest

from hsmsign.model.algorithms import Scheme
from hsmsign.purposes import signed
from tests.fuzz import make_corpus, run
from tests.fuzz.targets import TARGETS, Target


@pytest.mark.parametrize("name", list(TARGETS))
def test_what_is_real_is_read(name: str) -> None:
    accepted = set()
    target = TARGETS[name]
    for at, data in enumerate(run.load(name)):
        try:
            target.run(data)
            accepted.add(at)
        except target.clean:
            pass
    assert accepted, "all of its corpus is refused: nothing would be fuzzed but the first check"


def test_the_corpus_is_what_its_script_makes() -> None:
    assert {path.name for path in run.CORPUS.iterdir()} == set(TARGETS) == set(make_corpus.corpus())
    for name, inputs in make_corpus.corpus().items():
        assert len(run.load(name)) == len(inputs)


@pytest.mark.filterwarnings("ignore")  # of the parsers, about what they read all the same
def test_a_short_run_finds_nothing(tmp_path: Path) -> None:
    done, defects = run.fuzz(list(TARGETS), 7, 100_000, float("inf"), tmp_path, tell=False)
    assert (defects, list(tmp_path.iterdir())) == (0, [])
    assert done >= 100_000


def test_a_defect_is_found_written_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def planted(data: bytes) -> None:
        if data.startswith(b"keys/") and b"\xff" in data:
            raise KeyError("planted")

    monkeypatch.setitem(TARGETS, "name", Target(planted))
    _, defects = run.fuzz(["name"], 1, 1_000_000, float("inf"), tmp_path, tell=False)
    (path,) = tmp_path.iterdir()
    assert defects == 1
    assert run.replay("name", path) == 1
    assert f"--replay {path}" in capsys.readouterr().err
    assert run.main(["--target", "name", "--replay", str(path)]) == 1


@pytest.mark.parametrize("version", [0, 33, 64])
def test_a_version_that_there_is_none_of_is_refused_like_the_rest(version: int) -> None:
    """`cryptography` raises errors for these that are no ValueError."""
    scheme = Scheme.ECDSA_P256_SHA256
    assert signed.certificate(_versioned(make_corpus.certificates()[0], version), scheme) is None
    assert signed.crl(_versioned(make_corpus.crl(), version), scheme) is None
    assert version == 0 or signed.request(_versioned(make_corpus.request(), version), scheme) is None


def _versioned(der: bytes, version: int) -> bytes:
    at = der.index(b"\x02\x01")
    return der[: at + 2] + bytes((version,)) + der[at + 3 :]


def test_the_command_runs_for_a_while(tmp_path: Path) -> None:
    assert run.main(["--inputs", "20000", "--seed", "3", "--jobs", "2", "--out", str(tmp_path)]) == 0

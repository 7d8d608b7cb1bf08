import os
import stat
import subprocess
from pathlib import Path

import pytest

from hsmsign.model.errors import ConfigurationError, DeviceError
from hsmsign.softhsm.provision import find_module, provision


def test_a_token_is_made_once_and_found_again(tmp_path: Path) -> None:
    first = provision(tmp_path / "hsm", "ci", find_module())
    again = provision(tmp_path / "hsm", "ci", find_module())
    assert first.created
    assert not again.created
    assert again.serial == first.serial
    assert len(list(first.token_dir.iterdir())) == 1


def test_nobody_else_can_read_what_is_made(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        token = provision(tmp_path / "hsm", "ci", find_module())
    finally:
        os.umask(old)
    for path in [tmp_path / "hsm", *(tmp_path / "hsm").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert token.pin_file.read_text() != token.so_pin_file.read_text()


def test_no_pin_is_in_an_argument_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    run = subprocess.run

    def watched(command: list[str], **options: object) -> object:
        seen.extend([*command, *map(str, (options.get("env") or {}).items())])  # type: ignore[attr-defined]
        return run(command, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", watched)
    token = provision(tmp_path / "hsm", "ci", find_module())
    assert seen
    for secret in (token.pin_file, token.so_pin_file):
        assert not [text for text in seen if secret.read_text().strip() in text]


def test_a_token_that_was_not_made_here_is_not_touched(tmp_path: Path) -> None:
    foreign = provision(tmp_path / "theirs", "ci", find_module())
    (tmp_path / "theirs" / "hsmsign-token").unlink()  # now nothing says that it was made here
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "theirs").rglob("*")}
    with pytest.raises(ConfigurationError, match="not made here"):
        provision(tmp_path / "theirs", "ci", find_module())
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "theirs").rglob("*")} == before
    assert foreign.created


def test_another_label_in_the_same_folder_is_an_error(tmp_path: Path) -> None:
    provision(tmp_path / "hsm", "ci", find_module())
    with pytest.raises(ConfigurationError, match="'ci'"):
        provision(tmp_path / "hsm", "other", find_module())


def test_a_library_that_is_no_module_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="PKCS #11"):
        provision(tmp_path / "hsm", "ci", Path("/lib/x86_64-linux-gnu/libm.so.6"))


def test_after_a_failure_the_next_try_goes_on(tmp_path: Path) -> None:
    with pytest.raises(DeviceError):
        provision(tmp_path / "hsm", "ci", tmp_path / "no-such-module.so")
    assert provision(tmp_path / "hsm", "ci", find_module()).created


@pytest.mark.parametrize("label", ["", " x", "x" * 33, "a\nb", "ä" * 17])
def test_a_label_that_a_token_cannot_have_is_refused(tmp_path: Path, label: str) -> None:
    with pytest.raises(ConfigurationError, match="label"):
        provision(tmp_path / "hsm", label, find_module())

from pathlib import Path

import pytest

from hsmsign.backends.base import PinSource
from hsmsign.backends.pin import read_pin
from hsmsign.model.errors import ConfigurationError

PIN = "s3cr3t-4711"


def pin_file(folder: Path, content: bytes, mode: int = 0o600) -> PinSource:
    path = folder / "pin"
    path.write_bytes(content)
    path.chmod(mode)
    return PinSource(file=path)


def refusal(source: PinSource, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read_pin(source, environment or {})
    said = f"{caught.value} {caught.value.hint} {caught.value.metadata}"
    assert PIN not in said
    return said


@pytest.mark.parametrize("content", [PIN.encode(), PIN.encode() + b"\n"])
def test_a_pin_file_loses_one_line_end_and_no_more(tmp_path: Path, content: bytes) -> None:
    assert read_pin(pin_file(tmp_path, content)) == PIN


def test_spaces_around_a_pin_belong_to_it(tmp_path: Path) -> None:
    assert read_pin(pin_file(tmp_path, b" a b \n")) == " a b "


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o666])
def test_a_pin_file_that_others_may_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    said = refusal(pin_file(tmp_path, PIN.encode(), mode))
    assert f"{mode:04o}" in said
    assert "chmod 600" in said


def test_a_missing_pin_file_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "none") in refusal(PinSource(file=tmp_path / "none"))


def test_a_folder_or_a_pipe_is_no_pin_file(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "fifo", 0o600)
    assert "regular file" in refusal(PinSource(file=tmp_path / "fifo"))


@pytest.mark.parametrize("content", [b"", b"\n"])
def test_an_empty_pin_is_refused(tmp_path: Path, content: bytes) -> None:
    assert "empty" in refusal(pin_file(tmp_path, content))


@pytest.mark.parametrize(
    "content",
    [PIN.encode() + b"\nmore\n", PIN.encode() + b"\n\n", PIN.encode() + b"\0", b"\xff" + PIN.encode(), b"x" * 300],
)
def test_what_cannot_be_a_pin_is_refused_without_being_shown(tmp_path: Path, content: bytes) -> None:
    assert "pin" in refusal(pin_file(tmp_path, content)).lower()


def test_a_pin_comes_from_a_variable() -> None:
    assert read_pin(PinSource(env="TOKEN_PIN"), {"TOKEN_PIN": PIN}) == PIN


def test_a_variable_that_is_not_set_is_named() -> None:
    assert "TOKEN_PIN" in refusal(PinSource(env="TOKEN_PIN"), {"OTHER": PIN})


def test_a_pin_comes_from_a_systemd_credential(tmp_path: Path) -> None:
    (tmp_path / "hsm-pin").write_text(PIN)
    assert read_pin(PinSource(credential="hsm-pin"), {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == PIN


def test_a_credential_without_systemd_says_what_is_missing() -> None:
    assert "CREDENTIALS_DIRECTORY" in refusal(PinSource(credential="hsm-pin"))


@pytest.mark.parametrize("name", ["../pin", "/etc/passwd", ".."])
def test_a_credential_is_a_name_and_no_path(tmp_path: Path, name: str) -> None:
    assert "name" in refusal(PinSource(credential=name), {"CREDENTIALS_DIRECTORY": str(tmp_path)})


def test_a_pin_has_exactly_one_source(tmp_path: Path) -> None:
    assert "exactly one" in refusal(PinSource())
    assert "exactly one" in refusal(PinSource(file=tmp_path, env="X"))

"""hsmsign.toml: what is taken, what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsmsign.daemon import config as aside
from hsmsign.daemon.read_config import read
from hsmsign.model.errors import ConfigurationError

BACKEND = '[backends.soft]\nkind = "softhsm"\nmodule = "m.so"\ntoken_label = "t"\npin = { file = "pin" }\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "hsmsign.toml"
    path.write_text(text)
    (folder / "policy.toml").touch()
    return path


def refused(folder: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as error:
        read(written(folder, text))
    return error.value.message


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    config = read(written(tmp_path, BACKEND))
    assert config.state_dir == tmp_path / "state"
    assert config.store_url == f"sqlite:///{tmp_path}/state/hsmsign.db"
    assert config.backends[0].module == tmp_path / "m.so"
    assert config.backends[0].pin is not None
    assert config.backends[0].pin.file == tmp_path / "pin"


def test_the_supervisors_reading_gives_the_same(tmp_path: Path) -> None:
    path = written(tmp_path, '[server]\nlisten = "[::1]:0"\n' + BACKEND)
    assert aside.load(path) == read(path)
    assert aside.load(path).listen == ("::1", 0)


def test_the_supervisors_reading_fails_with_the_same_words(tmp_path: Path) -> None:
    path = written(tmp_path, "[log]\nlevel = 'loud'\n" + BACKEND)
    with pytest.raises(ConfigurationError) as here:
        read(path)
    with pytest.raises(ConfigurationError) as there:
        aside.load(path)
    assert there.value.message == here.value.message


def test_an_unknown_key_is_refused_with_the_one_that_was_meant(tmp_path: Path) -> None:
    said = refused(tmp_path, BACKEND + "sesions = 3\n[server]\nlimits = { max_batch_item = 4 }\n")
    assert "unknown key 'backends.soft.sesions' (did you mean 'sessions'?)" in said
    assert "unknown key 'server.limits.max_batch_item' (did you mean 'max_batch_items'?)" in said


def test_a_pin_in_the_file_itself_is_refused_and_not_repeated(tmp_path: Path) -> None:
    said = refused(tmp_path, BACKEND.replace('{ file = "pin" }', '"hunter2"'))
    assert "backends.soft.pin" in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "backends"),
        ("not toml", "is not TOML"),
        (BACKEND.replace('token_label = "t"\n', ""), "say which token"),
        (BACKEND.replace('pin = { file = "pin" }\n', ""), "say where the PIN comes from"),
        (BACKEND.replace('{ file = "pin" }', '{ file = "pin", env = "P" }'), "exactly one of"),
        (BACKEND + BACKEND.replace("soft]", "other]"), "default = true"),
        ('[server]\nlisten = ""\nunix_socket = ""\n' + BACKEND, "listens nowhere"),
        ('[server]\nlisten = "localhost:99999"\n' + BACKEND, "no port 99999"),
        ("[daemon]\nheartbeat_seconds = 0\n" + BACKEND, "heartbeat_seconds"),
        (BACKEND.replace("soft]", "Soft_1]"), "backends"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, text: str, words: str) -> None:
    assert words in refused(tmp_path, text)


def test_a_login_free_token_needs_no_pin(tmp_path: Path) -> None:
    text = BACKEND.replace('pin = { file = "pin" }\n', "") + '[backends.soft.quirks]\nlogin_as = "none"\n'
    assert read(written(tmp_path, text)).backends[0].pin is None


@pytest.mark.parametrize("folder", ["run/audit", "state", "state/audit", "."])
def test_the_audit_log_lies_where_a_worker_cannot_write(tmp_path: Path, folder: str) -> None:
    text = f'[audit]\nfolder = "{folder}"\n' + BACKEND
    if folder == ".":
        text = '[store]\nurl = "sqlite:///hsmsign.db"\n' + text
    assert "where workers write" in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("cores", "kind", "workers"),
    [(1, "softhsm", 1), (2, "softhsm", 1), (8, "softhsm", 4), (64, "softhsm", 8), (2, "pkcs11", 1), (4, "pkcs11", 3)],
)
def test_auto_leaves_processors_to_devices_that_sign_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, kind: str, workers: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    backend = BACKEND.replace('"softhsm"', f'"{kind}"')
    assert read(written(tmp_path, f'[server]\nworkers = "auto"\n{backend}')).workers == workers


def test_there_is_one_worker_unless_said_and_each_of_several_gets_its_part(tmp_path: Path) -> None:
    assert read(written(tmp_path, BACKEND)).workers == 1
    limits = "limits = { max_in_flight = 10 }\n"
    three = read(written(tmp_path, f"[server]\nworkers = 3\n{limits}{BACKEND}")).for_worker("", (), None)
    assert three.limits.max_in_flight == 3  # never more together than was said
    assert "too little for 16 workers" in refused(tmp_path, f"[server]\nworkers = 16\n{limits}{BACKEND}")

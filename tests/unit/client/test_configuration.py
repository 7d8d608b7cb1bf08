from __future__ import annotations

from pathlib import Path

import pytest

from hsmsign.client import configuration
from hsmsign.model.errors import ConfigurationError

FULL = """
endpoint = "dns:///localhost:7443"
ca = "client/ca.pem"
certificate = "client/client.pem"
key = "/abs/client-key.pem"
server_name = "signer"
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "client.toml"
    path.write_text(text)
    return path


def test_paths_in_a_client_file_are_relative_to_it(tmp_path):
    endpoint = configuration.load(write(tmp_path, FULL))
    assert endpoint.target == "dns:///localhost:7443"
    assert endpoint.tls.ca == tmp_path / "client" / "ca.pem"
    assert endpoint.tls.key == Path("/abs/client-key.pem")
    assert endpoint.tls.server_name == "signer"


def test_an_unknown_key_is_an_error_that_names_its_neighbour(tmp_path):
    with pytest.raises(ConfigurationError) as caught:
        configuration.load(write(tmp_path, 'endpont = "unix:///x"'))
    assert "endpont" in str(caught.value)
    assert "'endpoint'" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "no endpoint"),
        ("endpoint = 3", "string"),
        ("endpoint = [", "not TOML"),
        ('endpoint = "http://x"', "not an endpoint"),
        ('endpoint = "dns:///host"', "no host and port"),
        ('endpoint = "dns:///host:99999"', "no host and port"),
        ('endpoint = "dns:///host:7443"', "TLS"),
        ('endpoint = "dns:///host:7443"\nca = "a"', "certificate, key missing"),
        (f'endpoint = "unix:///{"x" * 120}"', "longer than"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_read(tmp_path, text, word):
    with pytest.raises(ConfigurationError, match=word):
        configuration.load(write(tmp_path, text))


def test_the_environment_names_the_file_unless_a_file_is_named(tmp_path, monkeypatch):
    ours = write(tmp_path, 'endpoint = "unix:///ours"')
    theirs = tmp_path / "theirs.toml"
    theirs.write_text('endpoint = "unix:///theirs"')
    monkeypatch.setenv("HSMSIGN_CLIENT", str(theirs))
    assert configuration.resolve(None, None, None).target == "unix:///theirs"
    assert configuration.resolve(None, None, ours).target == "unix:///ours"
    assert configuration.resolve("unix:///said", None, ours).target == "unix:///said"


def test_without_any_word_the_users_own_file_is_read(tmp_path, monkeypatch):
    monkeypatch.delenv("HSMSIGN_CLIENT", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(ConfigurationError, match="no client file") as caught:
        configuration.resolve(None, None, None)
    assert str(tmp_path / "hsmsign" / "client.toml") in caught.value.hint
    (tmp_path / "hsmsign").mkdir()
    (tmp_path / "hsmsign" / "client.toml").write_text('endpoint = "unix:///mine"')
    assert configuration.resolve(None, None, None).target == "unix:///mine"

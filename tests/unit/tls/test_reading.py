"""A file of rules: checked whole, read again when it changes, never half in force."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from hsmsign.model.errors import ConfigurationError
from hsmsign.tls.reading import RuleFile, parse, read
from hsmsign.tls.rules import Request
from tests.support.tls_site import GREEN, ORANGE, RULES, peer

READ = Request("GET", "/articles/1")


def rule(**keys: str) -> str:
    said = {"peers": '["*"]', "methods": '["GET"]', **keys}
    return "[[rule]]\n" + "\n".join(f"{key} = {value}" for key, value in said.items() if value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no [[rule]]"),
        ("rule = 1", "no [[rule]]"),
        ("rule = [1]", "no [[rule]]"),
        ("[[rule", "not TOML"),
        ("[[rules]]", "unknown key 'rules' (did you mean 'rule'?)"),
        (rule(method='["GET"]'), "rule 1: unknown key 'method' (did you mean 'methods'?)"),
        (rule(peers=""), "about nobody"),
        (rule(peers="[]"), "peers is a list"),
        (rule(peers='"*"'), "peers is a list"),
        (rule(peers="[1]"), "peers is a list"),
        (rule(peers='["green"]'), "'green' is no peer"),
        (rule(peers='["unix:0"]'), "'unix:0' is no peer"),
        (rule(peers='["subject:CN=green"]'), "distinguished name"),
        (rule(peers='["spif*"]'), "is no peer"),
        (rule(methods=""), "allows nothing"),
        (rule(methods='["get"]'), "did you mean 'GET'?"),
        (rule(methods='["*"]'), "is no method"),
        (rule(calls='["/a.B/C"]'), "make it two rules"),
        (rule(paths='["articles"]'), "does not begin"),
        (rule(paths='["/a//b"]'), "an empty part"),
        (rule(paths='["/a/../b"]'), "'.' or '..'"),
        (rule(paths='["/a%20b"]'), "write it decoded"),
        (rule(paths='["/**/a"]'), "'**' stands alone, and last"),
        (rule(paths='["/a**"]'), "'**' stands alone, and last"),
        (rule(paths='["/*a*"]'), "one '*' at most"),
        (rule(paths='[""]'), "1 to 512"),
        (rule(methods="", calls='["Shop/Read"]'), "no gRPC method"),
        (rule(methods="", calls='["/a/b/c"]'), "no gRPC method"),
        (rule(methods="", calls='["/a/**"]'), "no gRPC method"),
        (rule(note="1"), "note is a text"),
    ],
)
def test_a_mistake_is_named(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(text, "rights.toml")
    assert words in caught.value.message
    assert "rights.toml" in caught.value.message


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(rule(methods='["get"]') + "\n" + rule(peers='["x"]', path='["/"]'), "r")
    assert all(words in caught.value.message for words in ("rule 1: methods", "rule 2: unknown key", "rule 2: peers"))


def test_rules_without_a_header_of_their_own_are_counted() -> None:
    made = parse('rule = [{peers = ["*"], methods = ["GET"]}]', "r.toml")
    assert [one.place for one in made.rules] == ["r.toml, [[rule]] number 1"]


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read"):
        read(tmp_path / "none.toml")
    (tmp_path / "bytes").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        read(tmp_path / "bytes")
    (tmp_path / "long").write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(ConfigurationError, match="more than"):
        read(tmp_path / "long")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "rights.toml"
    path.write_text(RULES)
    return path


def replace(path: Path, text: str) -> None:
    new = path.parent / "new"
    new.write_text(text)
    new.replace(path)


def test_a_new_file_is_in_force_a_second_later_and_not_looked_for_before(path: Path, clock: Clock) -> None:
    file = RuleFile(path, clock=clock)
    assert file.decide(peer(ORANGE), READ).allowed
    replace(path, rule(peers=f'["{GREEN}"]'))
    clock.now = 0.9
    assert file.decide(peer(ORANGE), READ).allowed
    clock.now = 1.0
    assert not file.decide(peer(ORANGE), READ).allowed
    assert file.decide(peer(GREEN), READ).allowed


def test_a_bad_file_changes_nothing_and_the_log_says_so_once(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    file = RuleFile(path, clock=clock)
    caplog.set_level(logging.INFO, "hsmsign.tls.rights")
    replace(path, rule(peers='["nobody"]'))
    for clock.now in (1.0, 2.0, 3.0):
        assert file.decide(peer(ORANGE), READ).allowed
    assert len(caplog.messages) == 1
    assert "the rules stay as they were" in caplog.messages[0]
    assert "'nobody' is no peer" in caplog.messages[0]
    replace(path, rule(peers=f'["{GREEN}"]'))
    clock.now = 4.0
    assert not file.decide(peer(ORANGE), READ).allowed
    assert "are in force" in caplog.messages[1]


def test_a_file_that_goes_away_changes_nothing_and_counts_when_it_is_back(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    file = RuleFile(path, clock=clock)
    path.unlink()
    for clock.now in (1.0, 2.0):
        assert file.decide(peer(ORANGE), READ).allowed
    assert [one for one in caplog.messages if "cannot read" in one] == caplog.messages
    assert len(caplog.messages) == 1
    path.write_text(rule(peers=f'["{GREEN}"]'))
    clock.now = 3.0
    assert not file.decide(peer(ORANGE), READ).allowed


def test_a_bad_file_at_the_start_is_an_error(path: Path) -> None:
    path.write_text("")
    with pytest.raises(ConfigurationError):
        RuleFile(path)

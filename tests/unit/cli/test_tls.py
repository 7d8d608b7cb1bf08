"""hsmsign tls check-rules: whether a file of rules is good, and why it allows or denies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.tls_site import GREEN, ORANGE, RULES


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rights.toml"
    path.write_text(RULES)
    return path


def test_a_good_file_is_said_to_be_good(hsmsign, file: Path) -> None:
    said = hsmsign("tls", "check-rules", file)
    assert (said.code, said.text) == (0, f"{file}: good, 3 rules\n")


def test_a_mistake_is_named(hsmsign, file: Path) -> None:
    file.write_text(RULES.replace("methods", "method", 1))
    said = hsmsign("tls", "check-rules", file)
    assert said.code == 78
    assert "unknown key 'method' (did you mean 'methods'?)" in said.err


def test_what_is_allowed_is_so_by_a_rule(hsmsign, file: Path) -> None:
    asked = ("--peer", ORANGE, "--method", "GET", "--path", "/articles/1")
    said = hsmsign("tls", "check-rules", file, *asked)
    assert said.code == 0
    assert said.text.splitlines() == [
        "allowed by rights.toml:7",
        "  rights.toml:7 allows it",
        "  rights.toml:11 does not allow it: about calls of gRPC",
    ]


def test_what_is_denied_is_explained_rule_by_rule(hsmsign, file: Path) -> None:
    said = hsmsign("tls", "check-rules", file, "--peer", GREEN, "--call", "/shop.v1.Shop/Write")
    assert said.code == 1
    assert said.text.splitlines() == [
        "DENIED: no rule allows it",
        "  rights.toml:2 does not allow it: about requests of HTTP",
        "  rights.toml:11 does not allow it: about other calls: /shop.v1.Shop/Read*",
    ]
    asked = ("--peer", GREEN, "--method", "GET", "--path", "/articles/%2e%2e/x")
    answer = json.loads(hsmsign("tls", "check-rules", file, *asked, "--json").text)
    assert answer == {"allowed": False, "rule": None, "why": "a path with a part '.' or '..'", "considered": []}


def test_a_key_may_be_said_beside_the_name(hsmsign, file: Path) -> None:
    file.write_text('[[rule]]\npeers = ["sha256:ab"]\nmethods = ["GET"]\n')
    asked = ("tls", "check-rules", file, "--peer", GREEN, "--method", "GET", "--path", "/")
    assert hsmsign(*asked).code == 1
    assert hsmsign(*asked, "--key", "sha256:ab").code == 0


@pytest.mark.parametrize(
    "words",
    [
        ("--peer", GREEN),
        ("--method", "GET", "--path", "/"),
        ("--peer", GREEN, "--method", "GET"),
        ("--peer", GREEN, "--path", "/"),
        ("--peer", GREEN, "--call", "/a.B/C", "--path", "/"),
        ("--peer", "green", "--call", "/a.B/C"),
        ("--peer", GREEN, "--key", "ab", "--call", "/a.B/C"),
    ],
)
def test_half_a_question_is_a_mistake_of_usage(hsmsign, file: Path, words: tuple[str, ...]) -> None:
    assert hsmsign("tls", "check-rules", file, *words).code == 64

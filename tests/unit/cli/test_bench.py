from __future__ import annotations

import json
import sys

import pytest


@pytest.fixture
def web1(hsmsign, state):
    assert hsmsign("key", "create", "web-1", "--algorithm", "ecdsa-p256").code == 0
    state.calls.clear()
    return "web-1"


SHORT = ("--seconds", "0.1", "--yes")


def test_each_load_is_measured(hsmsign, web1):
    done = hsmsign("bench", web1, *SHORT, "--batch", "1,8", "--callers", "1,4", "--json")
    answer = json.loads(done.text)
    assert (answer["key_version"], answer["scheme"]) == ("keys/web-1/versions/1", "ECDSA_P256_SHA256")
    assert (answer["input"], answer["complete"], answer["device"]) == ("digest", True, None)
    lines = [(one["load"], one["count"]) for one in answer["loads"]]
    assert lines == [("batch", 1), ("batch", 8), ("callers", 1), ("callers", 4), ("alone", 1), ("stream", 1)]
    for one in answer["loads"]:
        assert one["signatures"] >= one["signatures_per_second"] * 0.01
        assert one["signatures"] % (one["count"] if one["load"] == "batch" else 1) == 0
        assert 0 < one["p50_ms"] <= one["p99_ms"]
        assert one["ratio"] is None


def test_a_person_gets_a_table(hsmsign, web1):
    lines = hsmsign("bench", web1, *SHORT, "--loads", "alone,batch", "--batch", "4").text.splitlines()
    assert lines[0] == "keys/web-1/versions/1, ECDSA_P256_SHA256, 0.1 s for each load"
    assert lines[1].split() == ["LOAD", "SIGNATURES/S", "P50", "MS", "P99", "MS"]
    assert [line.rsplit(maxsplit=3)[0].strip() for line in lines[2:]] == [
        "Sign, one after the other",
        "SignBatch of 4, 4 at once",
    ]


@pytest.mark.parametrize("algorithm", ["ed25519", "rsa-2048"])
def test_other_kinds_of_keys_are_measured_too(hsmsign, state, algorithm):
    assert hsmsign("key", "create", "other", "--algorithm", algorithm).code == 0
    answer = json.loads(hsmsign("bench", "other", *SHORT, "--batch", "2", "--callers", "2", "--json").text)
    assert answer["input"] == ("message" if algorithm == "ed25519" else "digest")
    assert len(answer["loads"]) == 4


def test_a_dry_run_says_what_would_be_done_and_signs_nothing(hsmsign, state, web1):
    done = hsmsign("bench", web1, "--dry-run")
    assert done.code == 0
    what = "real signatures of random digests with keys/web-1/versions/1"
    for words in (what, "about 35 s in all", "SignBatch of 256, 4 at once", "sign(), 64 callers", "audit log"):
        assert words in done.text
    assert set(state.calls) == {"GetKey", "GetPublicKey"}
    answer = json.loads(hsmsign("bench", web1, "--dry-run", "--json", "--loads", "alone").text)
    assert (answer["dry_run"], answer["loads"]) == (True, ["Sign, one after the other"])


class Terminal:
    def isatty(self):
        return True


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_it_asks_before_it_signs(hsmsign, state, web1, monkeypatch, words):
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: "n")
    done = hsmsign("bench", web1, *words)
    assert (done.code, done.text) == (130, "")
    assert "This makes real signatures of random digests with keys/web-1/versions/1" in done.err
    assert set(state.calls) == {"GetKey", "GetPublicKey"}


@pytest.mark.parametrize(
    ("missing", "options"),
    [
        ("pydantic", ("--config", "hsmsign.toml")),
        ("pkcs11", ("--module", "m.so", "--token-label", "t", "--pin-file", "pin", "--key-label", "web-1")),
    ],
)
def test_a_client_only_installation_says_what_the_bare_device_wants(
    hsmsign, state, web1, monkeypatch, missing, options
):
    monkeypatch.setitem(sys.modules, missing, None)
    done = hsmsign("bench", web1, *SHORT, *options)
    assert (done.code, "pip install 'hsmsign[server]'" in done.err) == (78, True), done.err
    assert not {"Sign", "SignBatch"} & set(state.calls)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--loads", "batch,bach"), "'bach' is no load; there are batch, callers, alone, stream"),
        (("--batch", "0"), "'0' is no number from 1 to 4096"),
        (("--callers", "1,,2"), "'' is no number"),
        (("--backend", "hsm"), "goes with --config"),
        (("--pin-file", "pin"), "goes with --module"),
        (("--key-id", "0102"), "it goes with --config or --module"),
        (("--module", "m.so"), "--module wants --token-label and --pin-file"),
        (("--module", "m.so", "--config", "c.toml"), "say one of them"),
        (("--seconds", "0"), "--seconds"),
    ],
)
def test_a_wrong_command_line_is_said_before_anything_is_asked(hsmsign, state, web1, words, expected):
    done = hsmsign("bench", web1, "--yes", *words)
    assert (done.code, expected in done.err) == (64, True), done.err
    assert state.calls == []

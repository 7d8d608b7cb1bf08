from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import sys

import pytest

from hsmsign.model import errors


@pytest.fixture
def web1(hsmsign, state):
    assert hsmsign("key", "create", "web-1", "--algorithm", "ecdsa-p256").code == 0
    return "web-1"


def test_a_key_is_made_listed_and_shown(hsmsign, state):
    made = hsmsign("key", "create", "web-1", "--algorithm", "ecdsa-p256", "--label", "team=web")
    assert (made.code, made.err) == (0, "")
    assert "keys/web-1/versions/1" in made.text
    assert "team=web" in hsmsign("key", "list").text
    shown = hsmsign("key", "show", "keys/web-1").text
    assert "the device says: sensitive, not extractable" in shown
    assert "pkcs11:token=fake" in shown


@pytest.mark.parametrize("place", ["before", "after"])
def test_json_may_be_said_before_or_after_the_subcommand(hsmsign, web1, place):
    words = ["key", "list"]
    words = ["--json", *words] if place == "before" else [*words, "--json"]
    answer = json.loads(hsmsign(*words).text)
    assert answer[0]["name"] == "keys/web-1"
    assert answer[0]["algorithm"] == "ecdsa-p256"
    assert answer[0]["versions"][0]["state"] == "ENABLED"


@pytest.mark.parametrize("form", ["der", "raw"])
def test_a_file_is_signed_and_verified(hsmsign, web1, tmp_path, form):
    data, signature = tmp_path / "data", tmp_path / "data.sig"
    data.write_bytes(b"x" * (3 << 20))
    assert hsmsign("sign", web1, data, "--out", signature, "--format", form).code == 0
    valid = hsmsign("verify", web1, data, signature, "--format", form)
    assert (valid.code, valid.text) == (0, "valid, keys/web-1/versions/1\n")
    data.write_bytes(b"y")
    invalid = hsmsign("verify", web1, data, signature, "--format", form)
    assert invalid.code == 1
    assert "NOT VALID" in invalid.text
    assert json.loads(hsmsign("verify", web1, data, signature, "--json").text)["valid"] is False


def test_openssl_accepts_a_signature_of_the_command(hsmsign, web1, tmp_path):
    (tmp_path / "data").write_bytes(b"hello")
    assert hsmsign("sign", web1, tmp_path / "data", "--out", tmp_path / "sig").code == 0
    assert hsmsign("key", "public", web1, "--out", tmp_path / "pub.pem").code == 0
    checked = subprocess.run(
        ["openssl", "dgst", "-sha256", "-verify", "pub.pem", "-signature", "sig", "data"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.stdout == "Verified OK\n"


def test_a_digest_may_be_given_instead_of_a_file(hsmsign, web1, tmp_path):
    digest = hashlib.sha256(b"hello").hexdigest()
    answer = json.loads(hsmsign("sign", web1, "--digest", digest, "--json").text)
    (tmp_path / "sig").write_bytes(base64.b64decode(answer["signature"]))
    (tmp_path / "data").write_bytes(b"hello")
    assert hsmsign("verify", web1, tmp_path / "data", tmp_path / "sig").code == 0
    short = hsmsign("sign", web1, "--digest", "abcd", "--out", tmp_path / "sig")
    assert (short.code, "32 bytes" in short.err) == (65, True)
    assert hsmsign("sign", web1, "--digest", "xyz", "--out", tmp_path / "sig").code == 65


def test_ed25519_signs_the_message_and_says_its_limit(hsmsign, state, tmp_path):
    hsmsign("key", "create", "e", "-a", "ed25519")
    data = tmp_path / "data"
    data.write_bytes(b"hello")
    assert hsmsign("sign", "e", data, "--out", tmp_path / "sig").code == 0
    assert hsmsign("verify", "e", data, tmp_path / "sig").code == 0
    data.write_bytes(bytes((1 << 20) + 1))
    large = hsmsign("sign", "e", data, "--out", tmp_path / "sig2")
    assert (large.code, "1 MiB" in large.err) == (65, True)
    assert not (tmp_path / "sig2").exists()


def test_an_rsa_key_wants_a_scheme_and_the_error_lists_them(hsmsign, state, tmp_path):
    hsmsign("key", "create", "r", "-a", "rsa-2048")
    (tmp_path / "data").write_bytes(b"hello")
    missing = hsmsign("sign", "r", tmp_path / "data", "-o", tmp_path / "sig")
    assert (missing.code, "RSA_PSS_SHA256" in missing.err) == (65, True)
    words = ("--scheme", "rsa-pss-sha384")
    assert hsmsign("sign", "r", tmp_path / "data", "-o", tmp_path / "sig", *words).code == 0
    assert hsmsign("verify", "r", tmp_path / "data", tmp_path / "sig", *words).code == 0


@pytest.mark.parametrize(("algorithm", "more"), [("ecdsa-p384", ()), ("rsa-2048", ("--pss",)), ("ed25519", ())])
def test_openssl_accepts_a_request(hsmsign, state, tmp_path, algorithm, more):
    hsmsign("key", "create", "k", "-a", algorithm)
    names = ("--san", "DNS:web.example", "--san", "IP:127.0.0.1")
    made = hsmsign("csr", "k", "--subject", "CN=web-1,O=Example", *names, *more, "--out", tmp_path / "k.csr")
    assert made.code == 0, made.err
    checked = subprocess.run(
        ["openssl", "req", "-in", tmp_path / "k.csr", "-verify", "-noout", "-text"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0
    assert "verify OK" in checked.stdout + checked.stderr
    assert "O = Example, CN = web-1" in checked.stdout
    assert "DNS:web.example, IP Address:127.0.0.1" in checked.stdout


@pytest.mark.parametrize(
    "words", [("--subject", "web-1"), ("--subject", "CN=a", "--san", "IP:x"), ("--subject", "CN=a", "--san", "x")]
)
def test_a_bad_request_is_a_usage_error(hsmsign, web1, words):
    assert hsmsign("csr", web1, *words).code == 64


def test_rotate_disable_enable_and_primary(hsmsign, web1):
    assert "versions/2 is the primary" in hsmsign("key", "rotate", web1).text
    assert hsmsign("key", "disable", "web-1/versions/1").text == "keys/web-1/versions/1 is disabled\n"
    assert hsmsign("key", "enable", "web-1/versions/1").text == "keys/web-1/versions/1 is enabled\n"
    changed = json.loads(hsmsign("key", "update", web1, "--label", "a=b", "--primary", 1, "--json").text)
    assert (changed["labels"], changed["primary_version"]) == ({"a": "b"}, "keys/web-1/versions/1")
    assert json.loads(hsmsign("key", "update", web1, "--remove-label", "a", "--json").text)["labels"] == {}


def test_destroying_asks_first_and_can_be_tried(hsmsign, web1, state, monkeypatch):
    assert hsmsign("key", "destroy", web1, "--dry-run").text == "would destroy keys/web-1/versions/1\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert hsmsign("key", "destroy", web1).code == 130
    assert state.keys["keys/web-1"].versions[0].state == 1
    assert hsmsign("key", "destroy", web1, "--yes").code == 0
    assert state.keys["keys/web-1"].versions[0].state == 3


def test_an_adopted_key_wants_a_word_about_its_object(hsmsign, state):
    assert hsmsign("key", "create", "a", "-a", "ed25519", "--adopt", "pkcs11:object=x").code == 0
    refused = hsmsign("key", "destroy", "a", "--yes")
    assert (refused.code, "--release" in refused.err) == (65, True)
    assert hsmsign("key", "destroy", "a", "--yes", "--release", "--destroy-object").code == 64
    assert "released" in hsmsign("key", "destroy", "a", "--yes", "--release").text


def test_an_unknown_key_is_answered_with_its_neighbour(hsmsign, web1):
    answer = hsmsign("key", "show", "web1")
    assert answer.code == 65
    assert "'keys/web-1' is near" in answer.err
    assert "hsmsign key create web1" in answer.err
    assert "Traceback" not in answer.err
    as_json = json.loads(hsmsign("key", "show", "web1", "--json").err)["error"]
    assert (as_json["reason"], as_json["exit_code"]) == ("KEY_NOT_FOUND", 65)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), 64),
        (("nonsense",), 64),
        (("key", "create", "x"), 64),
        (("key", "create", "x", "-a", "dsa"), 64),
        (("key", "create", "x", "-a", "ed25519", "--label", "nope"), 64),
        (("key", "show", "Bad Name"), 65),
        (("sign", "web-1"), 64),
        (("sign", "web-1", "/no/such/file", "--out", "/dev/null"), 66),
        (("verify", "web-1", "/dev/null", "/no/such/file"), 66),
        (("key", "public", "web-1", "--out", "/no/such/folder/x"), 73),
        (("--client", "/no/such/client.toml", "key", "list"), 78),
        (("key", "create", "web-1", "-a", "ed25519"), 65),
    ],
)
def test_exit_codes_are_those_of_sysexits(hsmsign, web1, words, code):
    answer = hsmsign(*words)
    assert answer.code == code, answer.err
    assert answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.PermissionDeniedError("no"), 77),
        (errors.UnauthenticatedError("who"), 77),
        (errors.QueueFullError("full"), 75),
        (errors.EtagError("changed"), 75),
        (errors.PinRefusedError("pin"), 69),
        (errors.DeviceError("ckr"), 70),
    ],
)
def test_errors_of_the_daemon_have_their_exit_codes(hsmsign, state, error, code):
    state.fail_next.append(error)
    assert hsmsign("key", "rotate", "web-1").code == code


def test_a_daemon_that_is_not_there_is_69(hsmsign, tmp_path):
    (tmp_path / "c.toml").write_text(f'endpoint = "unix://{tmp_path}/gone.sock"')
    answer = hsmsign("key", "list", "--client", tmp_path / "c.toml")
    assert (answer.code, "gone.sock" in answer.err) == (69, True)


def test_a_traceback_is_shown_only_when_asked_for(hsmsign, monkeypatch, state):
    monkeypatch.setenv("HSMSIGN_DEBUG", "1")
    assert "Traceback" in hsmsign("key", "show", "nobody").err


def test_a_file_is_replaced_whole(hsmsign, web1, tmp_path):
    out = tmp_path / "pub.pem"
    out.write_text("old")
    hsmsign("key", "public", web1, "--out", out)
    assert out.read_text().startswith("-----BEGIN PUBLIC KEY-----")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["client.toml", "d.sock", "pub.pem"]


def test_backends_version_and_completion_are_told(hsmsign, state):
    assert "soft *" in hsmsign("backend", "list").text
    assert json.loads(hsmsign("backend", "list", "--json").text)[0]["state"] == "ready"
    assert "hsmsign" in json.loads(hsmsign("version", "--json").text)
    for shell in ("bash", "zsh", "fish"):
        assert "_HSMSIGN_COMPLETE" in hsmsign("completion", shell).text


def test_help_loads_neither_grpc_nor_cryptography():
    code = (
        "import sys; from hsmsign.cli.main import main; main(['--help']);"
        "sys.exit(any(name in sys.modules for name in ('grpc', 'cryptography', 'rich')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_a_client_only_installation_says_what_to_install(hsmsign, monkeypatch):
    monkeypatch.setitem(sys.modules, "hsmsign.cli.serve", None)
    answer = hsmsign("serve")
    assert (answer.code, "pip install 'hsmsign[server]'" in answer.err) == (69, True)


def test_a_shell_is_told_the_commands_that_are_installed():
    code = "import sys; sys.modules['hsmsign.cli.serve'] = None; from hsmsign.cli.main import run; run()"
    shell = {"_HSMSIGN_COMPLETE": "bash_complete", "COMP_WORDS": "hsmsign ", "COMP_CWORD": "1"}
    answer = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | shell, capture_output=True, text=True, check=False
    )
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "plain,verify" in answer.stdout.splitlines()
    assert "plain,serve" not in answer.stdout.splitlines()


def test_a_reader_that_goes_away_is_no_error(web1, tmp_path):
    code = "import sys; from hsmsign.cli.main import run; run()"
    command = subprocess.Popen(
        [sys.executable, "-c", code, "key", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    command.stdout.close()
    assert (command.stderr.read(), command.wait()) == (b"", 141)

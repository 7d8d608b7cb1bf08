"""`hsmsign bench` against a real daemon: its signatures, its refusals, the device beside it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hsmsign.audit import reading
from hsmsign.model.dual_control import DualControl
from hsmsign.model.purpose import PurposeKind
from tests.support.daemon import eventually, hsmsign
from tests.support.site import Site

RULES = """
[[allow]]
principals = ["spiffe://corp/reader"]
actions = ["sign", "read"]
keys = ["*"]

[[limit]]
principals = ["*"]
keys = ["slow"]
rate = "5/s"
"""
SHORT = ("--seconds", "0.2", "--yes")


class Home:
    """The site, and its owner's command."""

    def __init__(self, folder: Path) -> None:
        self.site = Site(RULES)
        self.daemon = self.site.daemon
        self.owner = self.daemon.folder / "client.toml"
        self.pin = (self.daemon.folder / "softhsm" / "pin").read_text().strip()
        self.softhsm = {"SOFTHSM2_CONF": str(self.daemon.folder / "softhsm" / "softhsm2.conf")}
        self._folder = folder
        with self.daemon.client() as client:
            for name, algorithm in (
                ("ec", "ecdsa-p256"),
                ("slow", "ecdsa-p256"),
                ("p384", "ecdsa-p384"),
                ("rsa", "rsa-2048"),
                ("ed", "ed25519"),
            ):
                client.create_key(name, algorithm)
            client.create_key("root", "ecdsa-p256", dual_control=DualControl(1, signing=True))
            client.create_key("web", "ecdsa-p256", purpose=PurposeKind.TLS_SERVER)

    def __call__(self, *words: str | Path, client: Path | None = None) -> subprocess.CompletedProcess[str]:
        return hsmsign("bench", "--client", client or self.owner, *words, environment=self.softhsm)

    def json(self, *words: str | Path) -> dict[str, Any]:
        """The answer of a run that must go well."""
        done = self(*words, *SHORT, "--json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def bare(self, pin: Path | None = None) -> tuple[str | Path, ...]:
        """The options that say where the device is."""
        module = tomllib.loads(self.daemon.config.read_text())["backends"]["softhsm"]["module"]
        return (
            "--module",
            module,
            "--token-label",
            "hsmsign",
            "--pin-file",
            pin or self.daemon.folder / "softhsm" / "pin",
        )

    def reader(self) -> Path:
        """The client file of a caller who may not sign digests."""
        ends, tls = self.daemon.endpoints, self._folder / "reader"
        self.site.client(tls, self.site.certificate("reader")).close()
        path = tls / "client.toml"
        path.write_text(
            f'endpoint = "dns:///{ends["tcp"]}"\nca = "{self.daemon.tls.ca}"\n'
            f'certificate = "{tls}/certificate.pem"\nkey = "{tls}/key.pem"\n'
        )
        return path

    def signed(self, key: str) -> int:
        """How many signatures with a key are in the audit log."""
        records = map(json.loads, dict(reading.records(self.daemon.folder / "audit", 0)).values())
        return sum(
            1 for one in records if one["event"] == "sign" and str(one.get("key", "")).startswith(f"keys/{key}/")
        )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    made = Home(tmp_path_factory.mktemp("bench"))
    yield made
    made.daemon.remove()


def test_every_load_makes_signatures_and_is_compared_with_the_bare_device(home: Home) -> None:
    said = home.json("ec", "--config", home.daemon.config, "--batch", "16", "--callers", "4", "--device-threads", "2")
    assert [one["load"] for one in said["loads"]] == ["batch", "callers", "alone", "stream"]
    assert said["device"] == {"yardstick": "python-pkcs11", "threads": 2}
    for one in said["loads"]:
        assert one["signatures_per_second"] > 0
        assert one["device_per_second"] > 0
        assert one["ratio"] == pytest.approx(one["signatures_per_second"] / one["device_per_second"], abs=0.001)


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("p384", ("--messages",)),
        ("ed", ()),
        ("rsa", ()),
        ("rsa", ("--scheme", "rsa-pkcs1-sha512")),
        ("rsa", ("--scheme", "rsa-pss-sha256")),
    ],
)
def test_the_device_signs_what_the_daemon_signs(home: Home, key: str, options: tuple[str, ...]) -> None:
    said = home.json(key, "--loads", "alone", *home.bare(), *options)
    (one,) = said["loads"]
    assert one["ratio"] > 0


def test_a_person_is_told_whose_yardstick_it_is(home: Home) -> None:
    done = home("ec", *SHORT, "--loads", "alone", *home.bare(), "--device-threads", "1")
    assert done.returncode == 0, done.stderr
    assert "OF THE DEVICE" in done.stdout
    assert "by python-pkcs11 with 1 thread on this machine" in done.stdout
    assert "Python's yardstick" in done.stdout


def test_nothing_is_signed_until_somebody_says_yes(home: Home) -> None:
    before = home.signed("ec")
    dry = home("ec", "--dry-run", "--config", home.daemon.config)
    assert (dry.returncode, dry.stderr) == (0, "")
    assert "signs with the same key, unrecorded" in dry.stdout
    asked = home("ec")  # nobody is there to answer
    assert asked.returncode == 130
    assert "This makes real signatures of random digests with keys/ec/versions/1" in asked.stderr
    assert home.signed("ec") == before


def test_what_is_signed_is_in_the_audit_log(home: Home) -> None:
    before = home.signed("p384")
    home.json("p384", "--loads", "batch", "--batch", "2")
    assert home.signed("p384") > before


def test_a_limit_ends_it_with_one_error_and_what_to_do(home: Home) -> None:
    for kind in ("batch", "callers", "alone", "stream"):
        done = home("slow", "--seconds", "5", "--yes", "--loads", kind, "--batch", "8", "--callers", "8")
        assert done.returncode == 75, (kind, done.stdout, done.stderr)
        assert done.stderr.count("error:") == 1
        assert "measure as a caller whom no limit holds" in done.stderr


def test_a_right_that_is_missing_is_named(home: Home) -> None:
    reader = home.reader()
    refused = home("ec", *SHORT, client=reader)
    assert refused.returncode == 77
    assert refused.stderr.count("error:") == 1
    assert "sign-digest (--messages: without the last)" in refused.stderr
    assert home("ec", *SHORT, "--messages", "--loads", "alone,batch", "--batch", "2", client=reader).returncode == 0


@pytest.mark.parametrize(("key", "why"), [("root", "others have to approve"), ("web", "it is for 'tls-server'")])
def test_a_key_that_signs_nothing_for_us_is_not_asked_to(home: Home, key: str, why: str) -> None:
    done = home(key, *SHORT)
    assert done.returncode == 65
    assert done.stderr.count("error:") == 1
    assert why in done.stderr
    assert "hsmsign key create bench --algorithm ecdsa-p256 --backend softhsm" in done.stderr
    assert home.signed(key) == 0
    with home.daemon.client() as client:
        assert list(client.approvals(everything=True)) == []


def test_an_object_that_is_another_key_is_noticed(home: Home) -> None:
    with home.daemon.client() as client:
        other = client.get_key("slow").versions[0].pkcs11_uri
    id = next(part for part in other.split(";") if part.startswith("id=")).removeprefix("id=").replace("%", "")
    done = home("ec", *SHORT, *home.bare(), "--key-id", id)
    assert done.returncode == 78
    assert "is not the key of keys/ec/versions/1" in done.stderr
    none = home("ec", *SHORT, *home.bare(), "--key-label", "nobody")
    assert none.returncode == 65
    assert "no private key on the token fits" in none.stderr


def test_a_wrong_pin_is_tried_once_and_not_shown(home: Home, tmp_path: Path) -> None:
    wrong = tmp_path / "pin"
    wrong.write_text("98765432")
    wrong.chmod(0o600)
    done = home("ec", *SHORT, *home.bare(wrong))
    assert done.returncode == 69
    assert "refused the PIN" in done.stderr
    assert "98765432" not in done.stdout + done.stderr
    wrong.chmod(0o644)
    assert "can be read or written by others" in home("ec", *SHORT, *home.bare(wrong)).stderr


def test_a_backend_that_is_not_there_is_said_with_those_that_are(home: Home) -> None:
    done = home("ec", *SHORT, "--config", home.daemon.config, "--backend", "hsm")
    assert done.returncode == 78
    assert "--backend is one of: softhsm" in done.stderr


@pytest.mark.parametrize("kind", ["batch", "callers", "alone", "stream"])
def test_ctrl_c_shows_what_was_measured_so_far(home: Home, kind: str) -> None:
    before = home.signed("rsa")
    words = ["bench", "rsa", "--client", str(home.owner), "--yes", "--json", "--seconds", "200", "--batch", "2"]
    words += ["--loads", f"{kind},{'alone' if kind != 'alone' else 'batch'}", "--callers", "2"]
    with subprocess.Popen(
        [sys.executable, "-m", "hsmsign", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        eventually(lambda: home.signed("rsa") > before + 100, "nothing was signed")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    said = json.loads(out)
    assert said["complete"] is False
    (one,) = said["loads"]
    assert (one["load"], one["complete"]) == (kind, False)
    assert one["signatures"] > 1
    assert "Traceback" not in err


def test_ctrl_c_at_the_device_leaves_no_process_and_no_pin_behind(home: Home) -> None:
    words = ["bench", "ec", "--client", str(home.owner), "--yes", "--loads", "alone", "--seconds", "200"]
    command = [sys.executable, "-m", "hsmsign", *words, *map(str, home.bare())]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **home.softhsm}
    ) as process:
        family = psutil.Process(process.pid)
        (child,) = eventually(family.children, "the device's process was not started")
        eventually(lambda: child.num_threads() > 1, "the device does not sign")
        assert home.pin not in " ".join(family.cmdline() + child.cmdline() + [*child.environ().values()])
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    assert home.pin not in err
    eventually(lambda: not child.is_running(), "the device's process is still there")

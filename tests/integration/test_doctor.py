"""`hsmsign doctor`, on a setup that is well and on some that are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon, hsmsign


def examine(daemon: Daemon) -> tuple[int, list[dict[str, Any]]]:
    done = hsmsign(
        "doctor",
        "--config",
        daemon.config,
        "--json",
        environment={"HSMSIGN_CLIENT": str(daemon.folder / "client.toml")},
    )
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)["findings"]


def failures(findings: list[dict[str, Any]]) -> list[str]:
    return [f"{finding['subject']}: {finding['said']}" for finding in findings if finding["level"] == "fail"]


def test_all_is_well_with_a_daemon_that_runs(shared_daemon: Daemon) -> None:
    code, findings = examine(shared_daemon)
    assert code == 0
    assert failures(findings) == []
    assert {"subject": "daemon", "said": "it answers", "level": "ok", "advice": ""} in findings


@pytest.fixture
def setup() -> Any:
    made = Daemon()
    yield made
    made.remove()


def test_a_key_and_a_pin_that_others_can_read_are_found(setup: Daemon) -> None:
    (setup.folder / "tls" / "server-key.pem").chmod(0o644)
    (setup.folder / "softhsm" / "pin").chmod(0o644)
    code, findings = examine(setup)
    assert code == 1
    said = " ".join(failures(findings))
    assert "server-key.pem: mode 0644" in said
    assert "PIN of softhsm" in said
    assert (setup.folder / "softhsm" / "pin").read_text().strip() not in json.dumps(findings)


@pytest.mark.parametrize("module", ["/no/such.so", "/etc/passwd"])
def test_a_module_that_is_none_is_found(setup: Daemon, module: str) -> None:
    setup.configure(
        lambda text: "\n".join(
            f'module = "{module}"' if line.startswith("module") else line for line in text.splitlines()
        )
    )
    code, findings = examine(setup)
    assert code == 1
    assert any(module in said for said in failures(findings))


def test_a_token_of_another_name_is_found_with_the_names_that_are_there(setup: Daemon) -> None:
    setup.configure(lambda text: text.replace('token_label = "hsmsign"', 'token_label = "other"'))
    code, findings = examine(setup)
    assert code == 1
    assert any("0 tokens fit" in said and "'hsmsign'" in said for said in failures(findings))


def test_a_missing_certificate_is_found(setup: Daemon) -> None:
    Path(setup.folder / "tls" / "server.pem").unlink()
    code, findings = examine(setup)
    assert code == 1
    assert any("server.pem" in said for said in failures(findings))

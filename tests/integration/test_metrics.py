"""The HTTP port of a real daemon: metrics that a parser takes, liveness, readiness."""

from __future__ import annotations

import hashlib
import json
import re
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from hsmsign.model.errors import AuditUnavailableError, HsmsignError, KeyNotFoundError, PurposeError
from tests.support.daemon import Daemon, eventually

DIGEST = hashlib.sha256(b"hello").digest()
DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana.json"


def with_metrics(text: str) -> str:
    return text.replace('[metrics]\nlisten = ""', '[metrics]\nlisten = "127.0.0.1:0"')


@pytest.fixture
def metered() -> Iterator[Daemon]:
    running = Daemon(edit=with_metrics, checkpoint_seconds=1).start()
    yield running
    running.remove()


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(daemon: Daemon) -> Samples:
    status, text = daemon.http("/metrics")
    assert status == 200
    families = text_string_to_metric_families(text)
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def test_what_happens_is_counted(metered: Daemon) -> None:
    with metered.client() as client:
        client.create_key("web", "ecdsa-p256")
        client.create_key("jwt", "ecdsa-p256", purpose="jwt")
        for _ in range(3):
            client.sign("web", digest=DIGEST)
        client.sign_batch("web", [DIGEST, b"short", DIGEST])
        with pytest.raises(PurposeError):
            client.sign("jwt", message=b"no token")
        for number in range(20):
            with pytest.raises(HsmsignError):
                client.sign(f"nobody-{number}", digest=DIGEST)
        found = samples(metered)
        scheme = "ECDSA_P256_SHA256"
        assert value(found, "hsmsign_signatures_total", key="keys/web", scheme=scheme, outcome="OK") == 5
        assert value(found, "hsmsign_signatures_total", key="keys/web", scheme=scheme, outcome="DIGEST_LENGTH") == 1
        assert value(found, "hsmsign_signatures_total", key="keys/jwt", scheme=scheme, outcome="PURPOSE_MISMATCH") == 1
        # what callers make up gets no series of its own
        assert value(found, "hsmsign_signatures_total", key="other", scheme="", outcome="KEY_NOT_FOUND") == 20
        assert not [name for name, labels in found if "nobody" in str(labels)]
        assert value(found, "hsmsign_sign_seconds_count", key="keys/web", outcome="OK") == 4
        assert value(found, "hsmsign_calls_total", method="CreateKey", outcome="OK") == 2
        assert value(found, "hsmsign_device_state", backend="softhsm", hsmsign_device_state="ready") == 1
        assert value(found, "hsmsign_device_sessions", backend="softhsm") > 0
        assert value(found, "hsmsign_certificate_not_after_timestamp_seconds", certificate="server") > 1.7e9
        eventually(lambda: samples(metered).get(("hsmsign_audit_checkpoint_records", frozenset()), 0) > 20)


def test_the_dashboard_shows_metrics_that_there_are(metered: Daemon) -> None:
    with metered.client() as client:
        client.create_key("web", "ecdsa-p256")
        client.sign("web", digest=DIGEST)
    eventually(lambda: (metered.folder / "audit" / "checkpoint").exists())
    there = {name for name, _ in samples(metered)}
    panels = json.loads(DASHBOARD.read_text())["panels"]
    shown = {
        name
        for panel in panels
        for target in panel["targets"]
        for name in re.findall(r"hsmsign_[a-z_]+", re.sub(r"\{.*?\}", "", target["expr"]))
    }
    assert len(shown) >= 8
    assert shown <= there


def test_it_lives_and_is_ready_until_it_cannot_work(metered: Daemon) -> None:
    assert metered.http("/livez")[0] == 200
    eventually(lambda: metered.http("/readyz")[0] == 200)
    segment = metered.folder / "audit" / "records-000000000000.jsonl"
    limit = (segment.stat().st_size, resource.RLIM_INFINITY)
    resource.prlimit(metered.pid("auditor"), resource.RLIMIT_FSIZE, limit)

    with metered.client() as client, pytest.raises(KeyNotFoundError):
        client.get_key("nobody")
    status, text = metered.http("/readyz")
    assert status == 503
    assert "audit" in json.loads(text)["failing"]
    with metered.client() as client, pytest.raises(AuditUnavailableError):
        client.backends()
    assert metered.http("/livez")[0] == 200
    resource.prlimit(metered.pid("auditor"), resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    eventually(lambda: metered.http("/readyz")[0] == 200)


def test_a_device_that_cannot_sign_is_not_ready(metered: Daemon) -> None:
    eventually(lambda: metered.http("/readyz")[0] == 200)
    tokens = metered.folder / "softhsm" / "tokens"
    tokens.rename(tokens.with_name("away"))
    metered.kill("host")
    eventually(lambda: metered.http("/readyz")[0] == 503)
    assert "backends/softhsm" in json.loads(metered.http("/readyz")[1])["failing"]
    tokens.with_name("away").rename(tokens)
    eventually(lambda: metered.http("/readyz")[0] == 200)


def test_the_port_outlives_a_reload_and_a_worker(metered: Daemon) -> None:
    before = metered.pid("worker")
    metered.kill("supervisor", signal.SIGHUP)
    eventually(lambda: metered.pid("worker") != before)
    eventually(lambda: metered.http("/readyz")[0] == 200)
    before = metered.kill("worker")
    eventually(lambda: metered.pid("worker") != before)
    eventually(lambda: metered.http("/readyz")[0] == 200)
    assert metered.http("/nothing")[0] == 404


def test_without_a_word_there_is_no_port(shared_daemon: Daemon) -> None:
    assert shared_daemon.endpoints["metrics"] == ""

"""Several callers on one daemon: each may do what the policy says, for as long as its certificate is good."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import signal
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509

from hsmsign.audit import reading
from hsmsign.client import Client
from hsmsign.model.algorithms import InputKind
from hsmsign.model.errors import (
    CallerLimitError,
    HsmsignError,
    KeyNotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from tests.support.daemon import Daemon, eventually, hsmsign
from tests.support.site import Site

WEB = """
[[allow]]
principals = ["spiffe://corp/web/*"]
actions = ["sign", "read"]
keys = ["web-*"]

[[allow]]
principals = ["spiffe://corp/batch"]
actions = ["sign", "sign-digest", "read"]
labels = { team = "batch" }
"""


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    made = Site(WEB)
    with made.daemon.client() as owner:
        owner.create_key("keys/web-1", algorithm="ecdsa-p256")
        owner.create_key("keys/db-1", algorithm="ecdsa-p256")
        owner.create_key("keys/many", algorithm="ecdsa-p256", labels={"team": "batch"})
    yield made
    made.daemon.remove()


def test_a_caller_may_do_what_its_rule_says_and_nothing_else(site: Site, tmp_path: Path) -> None:
    with site.client(tmp_path, site.certificate("web/1")) as web:
        assert web.sign("keys/web-1", message=b"hello").key_version == "keys/web-1/versions/1"
        assert [key.name for key in web.list_keys()] == ["keys/web-1"]
        for refused in (
            lambda: web.sign("keys/web-1", digest=bytes(32)),
            lambda: web.sign("keys/db-1", message=b"hello"),
            lambda: web.get_key("keys/db-1"),
            lambda: web.public_key("keys/db-1"),
            lambda: web.attest_key("keys/db-1", bytes(16)),
            lambda: web.create_key("keys/web-2", algorithm="ecdsa-p256"),
            lambda: web.rotate_key("keys/web-1"),
            lambda: web.disable_version("keys/web-1/versions/1"),
            lambda: web.update_labels("keys/web-1", {"team": "web"}),
            lambda: web.destroy_key("keys/web-1"),
        ):
            with pytest.raises(PermissionDeniedError) as error:
                refused()
            assert error.value.metadata["principal"] == "spiffe://corp/web/1"


def test_a_refusal_does_not_tell_whether_there_is_such_a_key(site: Site, tmp_path: Path) -> None:
    with site.client(tmp_path, site.certificate("web/1")) as web:
        words = []
        for name in ("keys/db-1", "keys/db-2", "keys/db-1/versions/1", "keys/db-1/versions/9"):
            with pytest.raises(PermissionDeniedError) as error:
                web.sign(name, message=b"hello")
            words.append(str(error.value).replace("db-2", "db-1"))
        assert len(set(words)) == 1
        with pytest.raises(KeyNotFoundError):
            web.sign("keys/web-9", message=b"hello")


def test_a_batch_and_a_stream_are_refused_by_what_they_ask_for(site: Site, tmp_path: Path) -> None:
    with site.client(tmp_path, site.certificate("batch")) as batch:
        assert batch.sign_batch("keys/many", [bytes(32)] * 3).errors == {}
        with pytest.raises(PermissionDeniedError):
            batch.sign_batch("keys/web-1", [bytes(32)] * 3)
        mixed = batch.sign_stream("keys/many", [b"x"], kind=InputKind.MESSAGE)
        assert all(isinstance(answer, bytes) for answer in mixed)
        with pytest.raises(PermissionDeniedError):
            list(batch.sign_stream("keys/web-1", [b"x"], kind=InputKind.MESSAGE))


def test_rights_follow_a_label(site: Site, tmp_path: Path) -> None:
    with site.client(tmp_path, site.certificate("batch")) as batch, site.daemon.client() as owner:
        owner.create_key("keys/labelled", algorithm="ecdsa-p256")
        with pytest.raises(PermissionDeniedError):
            batch.sign("keys/labelled/versions/1", message=b"x")
        owner.update_labels("keys/labelled", {"team": "batch"})
        batch.sign("keys/labelled/versions/1", message=b"x")
        owner.update_labels("keys/labelled", {})
        with pytest.raises(PermissionDeniedError):
            batch.sign("keys/labelled/versions/1", message=b"x")


def test_whom_no_rule_is_about_sees_nothing(site: Site, tmp_path: Path) -> None:
    with site.client(tmp_path, site.certificate("stranger")) as stranger:
        with pytest.raises(PermissionDeniedError, match="may do nothing"):
            stranger.backends()
        assert list(stranger.list_keys()) == []


def test_a_certificate_that_ends_or_is_revoked_stops_the_connection_that_it_made(site: Site, tmp_path: Path) -> None:
    short, long = site.certificate("web/short", lasts=8), site.certificate("web/long")
    with site.client(tmp_path / "a", short) as ending, site.client(tmp_path / "b", long) as revoked:
        for client in (ending, revoked):
            client.sign("keys/web-1", message=b"x")
        with pytest.raises(UnauthenticatedError, match="has expired"):
            eventually(lambda: not ending.sign("keys/web-1", message=b"x"))
        stream = revoked.sign_stream("keys/web-1", _endless(), kind=InputKind.MESSAGE, group_size=1)
        assert isinstance(next(stream), bytes)
        site.revoke(long[1])
        with pytest.raises(UnauthenticatedError, match="was revoked"):
            for _ in stream:
                pass
        stream.close()
        with pytest.raises(UnauthenticatedError, match="was revoked"):
            revoked.sign("keys/web-1", message=b"x")
        site.revoke()
        eventually(lambda: _signs(revoked))
    lines = [json.loads(line) for _, line in reading.records(site.daemon.folder / "audit", 0)]
    refused = [one for one in lines if one.get("method") == "SignStream" and one["outcome"] == "UNAUTHENTICATED"]
    assert refused
    assert refused[0]["principal"] == "spiffe://corp/web/long"


def _endless() -> Iterator[bytes]:
    while True:
        yield b"x"


def _signs(client: Client) -> bool:
    try:
        return bool(client.sign("keys/web-1", message=b"x").value)
    except HsmsignError:
        return False


def test_new_certificates_are_taken_up_without_a_restart_and_bad_ones_are_not(site: Site, tmp_path: Path) -> None:
    tls = site.daemon.folder / "tls"
    host, port = site.daemon.endpoints["tcp"].rsplit(":", 1)
    before = ssl.get_server_certificate((host, int(port)))
    with site.client(tmp_path, site.certificate("web/1")) as client:
        client.sign("keys/web-1", message=b"x")
        key, certificate = site.authority.issue(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        old = (tls / "server.pem").read_bytes()
        (tls / "server.pem").write_bytes(certificate)  # without its key
        eventually(lambda: "is not the key of" in site.daemon.log(), site.daemon.log())
        assert ssl.get_server_certificate((host, int(port))) == before
        (tls / "server-key.pem").write_bytes(key)
        eventually(lambda: ssl.get_server_certificate((host, int(port))).encode() == certificate)
        client.sign("keys/web-1", message=b"x")
        assert old != certificate


def test_a_policy_with_a_mistake_changes_nothing_and_a_good_one_does(site: Site, tmp_path: Path) -> None:
    good = site.policy.read_text()
    with site.client(tmp_path, site.certificate("web/1")) as web:
        site.policy.write_text(good.replace('"spiffe://corp/web/*"', '"web/*"'))
        site.daemon.kill("supervisor", signal.SIGHUP)
        eventually(lambda: "is no principal" in site.daemon.log(), site.daemon.log())
        web.sign("keys/web-1", message=b"x")
        checked = hsmsign("policy", "check", "--config", site.daemon.config)
        assert checked.returncode == 78
        assert "is no principal" in checked.stderr
        site.policy.write_text(good.replace('"spiffe://corp/web/*"', '"spiffe://corp/other"'))
        site.daemon.kill("supervisor", signal.SIGHUP)
        eventually(lambda: not _signs(web))
        asked = hsmsign(
            *("policy", "check", "--config", site.daemon.config, "--as", "spiffe://corp/web/1"),
            *("--action", "sign", "--key", "web-1", "--json"),
        )
        assert asked.returncode == 1
        assert '"allowed": false' in asked.stdout
        site.policy.write_text(good)
        site.daemon.kill("supervisor", signal.SIGHUP)
        eventually(lambda: _signs(web))


def test_a_caller_that_comes_too_often_is_told_when_to_come_again(site: Site, tmp_path: Path) -> None:
    good = site.policy.read_text()
    limited = '\n[[limit]]\nprincipals = ["spiffe://corp/web/slow"]\nrate = "2/h"\nconcurrency = 5\n'
    with site.client(tmp_path / "a", site.certificate("web/slow")) as slow:
        site.policy.write_text(good + limited)
        site.daemon.kill("supervisor", signal.SIGHUP)
        with pytest.raises(CallerLimitError) as refused:
            eventually(lambda: not slow.sign("keys/web-1", message=b"x"))
        assert refused.value.retry_after is not None
        assert 600 < refused.value.retry_after <= 1800
        assert "policy.toml:" in refused.value.message
        with site.client(tmp_path / "b", site.certificate("web/1")) as web:
            web.sign("keys/web-1", message=b"x")
    site.policy.write_text(good)
    site.daemon.kill("supervisor", signal.SIGHUP)


def test_a_noisy_caller_does_not_make_a_quiet_one_wait_for_its_end(site: Site, tmp_path: Path) -> None:
    quiet_pair = site.certificate("web/1")
    with (
        site.client(tmp_path / "a", site.certificate("batch")) as noisy,
        site.client(tmp_path / "b", quiet_pair) as quiet,
        ThreadPoolExecutor(8) as pool,
    ):
        quiet.sign("keys/web-1", message=b"x")
        loads = [pool.submit(noisy.sign_batch, "keys/many", [bytes(32)] * 20_000) for _ in range(2)]
        eventually(lambda: noisy_waits(site) > 8000)
        quiet.sign("keys/web-1", message=b"x")
        assert not any(load.done() for load in loads)
        for load in loads:
            assert load.result().errors == {}


def noisy_waits(site: Site) -> int:
    """Signatures that wait for the device."""
    with site.daemon.client() as owner:
        return owner.backends()[0].in_flight


def test_a_caller_has_only_so_many_connections(new_daemon: Callable[..., Daemon]) -> None:
    limit = "max_connections_per_caller = "
    daemon = new_daemon(edit=lambda text: text.replace(f"{limit}512", f"{limit}3")).start()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(daemon.client()) for _ in range(4)]
        for client in clients[:3]:
            client.backends()
        with pytest.raises(CallerLimitError) as refused:
            clients[3].backends()
        assert refused.value.retry_after
        clients[0].backends()
        clients[1].close()

        def let_in() -> bool:
            with contextlib.suppress(CallerLimitError):
                return bool(clients[3].backends())
            return False

        eventually(let_in)

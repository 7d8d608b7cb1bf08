"""Several front workers of one daemon: what holds for all of them together, and what callers see when one goes away."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from hsmsign.audit import reading
from hsmsign.client import Client
from hsmsign.model.errors import CallerLimitError, KeyExistsError, VersionStateError
from tests.integration.test_lifecycle import Load, check_batch, new_key
from tests.support.daemon import Daemon, eventually, hsmsign

DIGEST = hashlib.sha256(b"hello").digest()
CONNECTIONS = 12
_LIMIT = '\n[[limit]]\nprincipals = ["*"]\nkeys = ["rare"]\nrate = "1/h"\nburst = 6\nper = "key"\n'


def two_workers(text: str) -> str:
    text = text.replace('[metrics]\nlisten = ""', '[metrics]\nlisten = "127.0.0.1:0"')
    text = text.replace("workers = 1 ", "workers = 2 ")
    return text.replace("max_connections_per_caller = 512", f"max_connections_per_caller = {CONNECTIONS}")


@pytest.fixture(scope="module")
def pair() -> Iterator[Daemon]:
    running = Daemon(edit=two_workers, checkpoint_seconds=1)
    policy = running.folder / "policy.toml"
    policy.write_text(policy.read_text() + _LIMIT)
    profiles = running.folder / "ca.toml"
    profiles.write_text(profiles.read_text() + '\n[profiles.web]\nbase = "server"\nnames.dns = ["*.test"]\n')
    running.start()
    yield running
    running.remove()


def served(daemon: Daemon, family: str = "hsmsign_signatures") -> dict[str, float]:
    """What each worker counted."""
    status, text = daemon.http("/metrics")
    assert status == 200
    found: dict[str, float] = {}
    for one in text_string_to_metric_families(text):
        for sample in one.samples:
            if one.name == family and sample.name == f"{family}_total":
                found[sample.labels["worker"]] = found.get(sample.labels["worker"], 0) + sample.value
    return found


def across(daemon: Daemon, stack: ExitStack, key: str) -> list[Client]:
    """Clients over TCP, of which each worker has at least one."""
    before, clients = served(daemon), []
    for _ in range(CONNECTIONS - 1):
        clients.append(stack.enter_context(daemon.client()))
        eventually(lambda client=clients[-1]: _let_in(client, key), "connections of before are still counted")
        now = served(daemon)
        if len(clients) > 3 and all(now.get(number, 0) > before.get(number, 0) for number in ("0", "1")):
            return clients
    raise AssertionError(f"all connections came to one worker: {now}")


def _let_in(client: Client, key: str) -> bool:
    """What a worker has closed counts with the others for a second at most (docs/decisions/0023)."""
    try:
        client.sign(key, digest=DIGEST)
    except CallerLimitError:
        return False
    return True


def test_calls_over_tcp_and_the_unix_socket_are_shared_out(pair: Daemon) -> None:
    assert len(set(pair.endpoints["pids"]["workers"])) == 2
    with ExitStack() as stack:
        over_unix = [stack.enter_context(pair.unix_client()) for _ in range(4)]
        name = new_key(over_unix[0])
        for client in over_unix:
            check_batch(client, name)
        before = served(pair)
        for client in over_unix:
            client.sign(name, digest=DIGEST)
        assert {number: now - before[number] for number, now in served(pair).items()} == {"0": 2, "1": 2}
        across(pair, stack, name)


def test_a_rate_holds_for_all_workers_together(pair: Daemon) -> None:
    with ExitStack() as stack:
        over_unix = [stack.enter_context(pair.unix_client()) for _ in range(4)]
        over_unix[0].create_key("rare", "ecdsa-p256")
        signed = 0
        for client in over_unix * 4:
            try:
                client.sign("rare", digest=DIGEST)
                signed += 1
            except CallerLimitError as refused:
                assert refused.retry_after  # noqa: PT017 - most of them are refused
        assert signed == 6


def test_a_caller_has_so_many_connections_to_all_workers_together(pair: Daemon) -> None:
    with pair.unix_client() as unix:
        name = new_key(unix)
    with ExitStack() as stack:

        def another() -> None:
            client = stack.enter_context(pair.client())
            eventually(lambda: _signs(client, name))  # connections of tests before this one may count for a moment

        for _ in range(CONNECTIONS):
            another()
        with pair.client() as one_too_many, pytest.raises(CallerLimitError, match=f"{CONNECTIONS} connections"):
            one_too_many.sign(name, digest=DIGEST)
    with pair.client() as client:  # the others are closed, and whichever worker had them notices
        assert eventually(lambda: _signs(client, name))


def _signs(client: Client, name: str) -> bool:
    try:
        client.sign(name, digest=DIGEST)
    except CallerLimitError:
        return False
    return True


def test_a_version_that_one_worker_disables_no_worker_uses_any_more(pair: Daemon) -> None:
    with ExitStack() as stack, pair.unix_client() as unix:
        name = new_key(unix)
        clients = across(pair, stack, name)
        for turn in range(6):
            unix.disable_version(f"{name}/versions/1")
            for client in clients:
                with pytest.raises(VersionStateError):
                    client.sign(f"{name}/versions/1", digest=DIGEST)
            clients[turn % len(clients)].enable_version(f"{name}/versions/1")
            for client in clients:
                client.sign(f"{name}/versions/1", digest=DIGEST)


def test_an_authority_that_one_worker_makes_all_know_at_once(pair: Daemon) -> None:
    with ExitStack() as stack, pair.unix_client() as unix:
        clients = across(pair, stack, new_key(unix))
        for turn in range(3):
            unix.ca.create(f"root-{turn}", subject=f"CN=Root {turn}")
            for client in clients:
                assert client.ca.get(f"root-{turn}").name == f"cas/root-{turn}"


def test_a_request_that_comes_to_several_workers_has_one_certificate_and_one_revocation(
    pair: Daemon,
) -> None:
    with ExitStack() as stack, pair.unix_client() as unix:
        name = new_key(unix)
        clients = across(pair, stack, name)[:4]
        unix.ca.create("ca", subject="CN=CA")
        for _ in range(3):
            same = str(uuid.uuid4())
            with ThreadPoolExecutor() as pool:
                made = list(pool.map(lambda client: _issue(client, name, same), clients))  # noqa: B023
            assert len(set(made)) == 1
            clients[-1].ca.revoke(made[0])
            assert all(client.ca.certificate(made[0]).revoked is not None for client in clients)


def _issue(client: Client, key: str, id: str) -> str:
    made = client.ca.issue("ca", key=key, subject="CN=x.test", names=["dns:x.test"], profile="web", request_id=id)
    return made.name


def test_a_name_is_given_once_whichever_worker_is_asked(pair: Daemon) -> None:
    with ExitStack() as stack, pair.unix_client() as unix:
        clients = across(pair, stack, new_key(unix))[:4]
        for turn in range(3):
            with ThreadPoolExecutor() as pool:
                made = list(pool.map(lambda client: _create(client, f"same-{turn}"), clients))  # noqa: B023
            assert sorted(made) == [False] * (len(clients) - 1) + [True]


def _create(client: Client, name: str) -> bool:
    try:
        client.create_key(name, "ecdsa-p256")
    except KeyExistsError:
        return False
    return True


def test_calls_succeed_while_one_worker_after_the_other_is_killed(pair: Daemon) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(pair.unix_client()) for _ in range(2)]
        name = new_key(clients[0])
        clients += across(pair, stack, name)[:3]
        loads = [Load(client, name) for client in clients]
        for turn in range(4):
            pids = pair.endpoints["pids"]["workers"]
            go_on(loads)
            os.kill(pids[turn % 2], signal.SIGKILL)
            now = eventually(lambda: _replaced(pair, pids, turn % 2))  # noqa: B023 - called in this turn
            assert now[1 - turn % 2] == pids[1 - turn % 2]  # the other goes on
        go_on(loads)
        for load in loads:
            load.stop()
        assert [error for load in loads for error in load.errors] == []


def _replaced(daemon: Daemon, before: list[int], which: int) -> list[int]:
    now = daemon.endpoints["pids"]["workers"]
    return list(now) if now[which] != before[which] else []


def go_on(loads: list[Load]) -> None:
    for load in loads:
        load.more(4)


def test_calls_succeed_while_all_workers_are_replaced_and_their_number_changes(pair: Daemon) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(pair.unix_client()) for _ in range(2)]
        name = new_key(clients[0])
        clients += across(pair, stack, name)[:2]
        loads = [Load(client, name) for client in clients]
        for number in (2, 1, 3, 2):
            before = pair.endpoints["pids"]["workers"]
            go_on(loads)
            pair.configure(
                lambda text: "".join(
                    f"workers = {number}\n" if line.startswith("workers = ") else line  # noqa: B023
                    for line in text.splitlines(keepends=True)
                )
            )
            pair.kill("supervisor", signal.SIGHUP)
            eventually(lambda: not set(before) & set(pair.endpoints["pids"]["workers"]))  # noqa: B023
            assert len(pair.endpoints["pids"]["workers"]) == number
        go_on(loads)
        for load in loads:
            load.stop()
        assert [error for load in loads for error in load.errors] == []


def test_the_audit_log_of_all_workers_is_one_and_verifies(pair: Daemon) -> None:
    folder = pair.folder / "audit"
    with ExitStack() as stack, pair.unix_client() as unix:
        name = new_key(unix)
        clients = across(pair, stack, name)
        before = _signed(pair, name)
        loads = [Load(client, name) for client in clients[:3]]
        go_on(loads)
        for load in loads:
            load.stop()
        assert _signed(pair, name) - before >= sum(load.calls for load in loads)
    shown = hsmsign("audit", "key", environment={"HSMSIGN_CLIENT": str(pair.folder / "client.toml")})
    assert shown.returncode == 0, shown.stderr
    assert pair.stop() == 0
    verifier = shown.stdout.strip().splitlines()[-1]
    done = hsmsign("audit", "verify", folder, "--verifier", verifier, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert said["good"]
    assert said["covered"] == said["size"]
    pair.start()


def _signed(daemon: Daemon, name: str) -> int:
    records = [json.loads(line) for _, line in reading.records(daemon.folder / "audit", 0)]
    return sum(record["count"] for record in records if record.get("key") == f"{name}/versions/1")


def test_it_says_what_is_wrong_with_a_number_of_workers(pair: Daemon) -> None:
    for said, words in (("0", "workers"), ("17", "workers"), ('"many"', "workers")):
        config = pair.folder / "wrong.toml"
        config.write_text(pair.config.read_text().replace("workers = 2", f"workers = {said}"))
        done = hsmsign("serve", "--config", config, "--check-config")
        assert done.returncode == 78
        assert words in done.stderr

"""What threads and tasks sign at the same time with a real daemon, and what its audit log says of how it came there."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

import hsmsign
from hsmsign import aio
from hsmsign.model.dual_control import DualControl
from hsmsign.model.errors import (
    ApprovalRequiredError,
    CancelledError,
    DeadlineError,
    DigestLengthError,
    KeyNotFoundError,
    MessageSizeError,
    UnavailableError,
    VersionStateError,
)
from tests.support.daemon import PATIENCE, Daemon, eventually

THREADS = 64


@pytest.fixture(scope="module")
def home() -> Iterator[Daemon]:
    running = Daemon().start()
    with running.client() as client:
        for name in ("web", "other"):
            client.create_key(name, "ecdsa-p256")
        client.create_key("root", "ecdsa-p256", dual_control=DualControl(1, signing=True))
        client.create_key("off", "ecdsa-p256")
        client.disable_version("keys/off/versions/1")
    yield running
    running.remove()


@pytest.fixture
def client(home: Daemon) -> Iterator[hsmsign.Client]:
    with home.client() as made:
        yield made


def digest(number: object) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def at_once(works: list[Callable[[], object]]) -> list[object]:
    """What each gives, or raises, in a thread of its own; they begin together."""
    gate = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> object:
        gate.wait(PATIENCE)
        try:
            return work()
        except hsmsign.HsmsignError as error:
            return error

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, works))


def counts(client: hsmsign.Client, key: str) -> list[int]:
    """How many inputs each batch had that the daemon recorded for a key."""
    records = [json.loads(record) for _, record in client.audit_records(last=1000)]
    return [one["count"] for one in records if one["event"] == "sign" and one["key"].startswith(f"keys/{key}")]


def verified(client: hsmsign.Client, name: str, signature: bytes, signed: bytes) -> bool:
    public = client.public_key(name)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(signature, signed, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
    return True


def test_64_threads_get_their_own_signatures_in_few_batches(client: hsmsign.Client) -> None:
    client.create_key("threads", "ecdsa-p256")

    def run(number: int) -> bool:
        made = [client.sign("threads", digest=digest((number, turn))) for turn in range(5)]
        return all(verified(client, "threads", one.value, digest((number, turn))) for turn, one in enumerate(made))

    assert at_once([lambda number=number: run(number) for number in range(THREADS)]) == [True] * THREADS  # type: ignore[misc]
    found = counts(client, "threads")
    assert sum(found) == 5 * THREADS
    assert len(found) < 5 * THREADS / 4
    assert max(found) <= THREADS


async def test_64_tasks_get_their_own_signatures_in_few_batches(home: Daemon, client: hsmsign.Client) -> None:
    client.create_key("tasks", "ecdsa-p256")
    async with aio.connect(client.endpoint.target, tls=client.endpoint.tls) as tasks:

        async def run(number: int) -> list[bytes]:
            return [(await tasks.sign("tasks", digest=digest((number, turn)))).value for turn in range(5)]

        made = await asyncio.gather(*[run(number) for number in range(THREADS)])
    for number, ones in enumerate(made):
        assert all(verified(client, "tasks", one, digest((number, turn))) for turn, one in enumerate(ones))
    found = counts(client, "tasks")
    assert sum(found) == 5 * THREADS
    assert len(found) < 20


def test_a_private_key_that_many_threads_have_signs_in_batches_by_itself(client: hsmsign.Client) -> None:
    client.create_key("remote", "ecdsa-p256")
    key = client.key("remote")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    made = at_once([lambda n=n: key.sign(digest(n), ec.ECDSA(hashes.SHA256())) for n in range(THREADS)])  # type: ignore[misc]
    for number, signature in enumerate(made):
        assert isinstance(signature, bytes)
        key.public_key().verify(signature, digest(number), ec.ECDSA(hashes.SHA256()))
    assert len(counts(client, "remote")) < THREADS / 2


def test_each_hears_its_own_error_and_spoils_nothing(client: hsmsign.Client) -> None:
    wanted: list[tuple[Callable[[], object], type]] = []
    for number in range(8):
        wanted += [
            (lambda number=number: client.sign("web", digest=digest(number)), hsmsign.client.Signature),  # type: ignore[misc]
            (lambda: client.sign("web", digest=b"short"), DigestLengthError),
            (lambda: client.sign("web", message=b""), MessageSizeError),
            (lambda: client.sign("web", message=b"m"), hsmsign.client.Signature),
            (lambda: client.sign("no-such", digest=digest(0)), KeyNotFoundError),
            (lambda: client.sign("off", digest=digest(0)), VersionStateError),
        ]
    found = at_once([work for work, _ in wanted])
    assert [type(one) for one in found] == [kind for _, kind in wanted]


def test_what_others_approve_is_asked_for_input_by_input(client: hsmsign.Client) -> None:
    found = at_once([lambda number=number: client.sign("root", digest=digest(number)) for number in range(12)])  # type: ignore[misc]
    assert {type(one) for one in found} == {ApprovalRequiredError}
    assert len({one.metadata["approval"] for one in found if isinstance(one, ApprovalRequiredError)}) == 12


def test_a_daemon_that_takes_small_batches_gets_small_ones(new_daemon: Callable[..., Daemon]) -> None:
    def edit(text: str) -> str:
        return text.replace("max_batch_items = 10_000", "max_batch_items = 20").replace(
            "max_request_bytes = 20_971_520", "max_request_bytes = 200_000"
        )

    with new_daemon(edit=edit).start().client() as client:
        client.create_key("web", "ecdsa-p256")
        made = at_once([lambda number=number: client.sign("web", digest=digest(number)) for number in range(THREADS)])  # type: ignore[misc]
        assert {type(one) for one in made} == {hsmsign.client.Signature}
        assert max(counts(client, "web")) <= 20
        large = at_once([lambda: client.sign("web", message=bytes(60_000)) for _ in range(16)])
        assert {type(one) for one in large} == {hsmsign.client.Signature}


def test_a_deadline_that_passes_is_one_callers_only(client: hsmsign.Client) -> None:
    works = [lambda number=number: client.sign("web", digest=digest(number)) for number in range(20)]  # type: ignore[misc]
    works += [lambda: client.sign("web", digest=digest(0), deadline=0.0) for _ in range(20)]
    found = at_once(works)
    assert {type(one) for one in found[:20]} == {hsmsign.client.Signature}
    assert {type(one) for one in found[20:]} == {DeadlineError}


async def test_a_cancelled_task_takes_nobody_with_it(client: hsmsign.Client) -> None:
    async with aio.connect(client.endpoint.target, tls=client.endpoint.tls) as tasks:
        for hops in range(12):
            both = [asyncio.create_task(tasks.sign("web", digest=digest(number))) for number in range(20)]
            for _ in range(hops):
                await asyncio.sleep(0)
            for task in both[1::2]:
                task.cancel()
            found = await asyncio.gather(*both, return_exceptions=True)
            assert {type(one) for one in found[::2]} == {hsmsign.client.Signature}


def test_nobody_waits_for_ever_for_a_daemon_that_died_and_all_sign_with_the_next(daemon: Daemon) -> None:
    with daemon.unix_client() as client:
        client.create_key("web", "ecdsa-p256")
        again = threading.Event()

        def run() -> bool:
            while not again.is_set():
                with contextlib.suppress(UnavailableError):
                    client.sign("web", digest=digest(0))
            return bool(client.sign("web", digest=digest(1)))

        with ThreadPoolExecutor(16) as pool:
            running = [pool.submit(run) for _ in range(16)]
            daemon.kill("worker")
            eventually(lambda: signs(client))
            again.set()
            assert all(future.result(PATIENCE) for future in running)


def signs(client: hsmsign.Client) -> bool:
    with contextlib.suppress(UnavailableError):
        return bool(client.sign("web", digest=digest(0)))
    return False


def _in_a_child(client: hsmsign.Client, said: multiprocessing.SimpleQueue[object]) -> None:
    try:
        made = at_once([lambda number=number: client.sign("web", digest=digest(number)) for number in range(8)])  # type: ignore[misc]
        said.put([type(one).__name__ for one in made])
    except BaseException as error:  # noqa: BLE001 - the parent is to see it
        said.put(repr(error))


def test_a_child_does_not_wait_for_flights_of_its_parent(home: Daemon) -> None:
    """gRPC promises little to a child that uses its parent's channel; what is ours must not make it worse."""
    with home.unix_client() as client:
        client.sign("web", digest=digest(0))
        threads = client._threads()
        threads._mutex.acquire()  # as if another thread had been in there when the process was copied
        lane = threads._coalescer.lane("web", None, hsmsign.InputKind.DIGEST, hsmsign.SignatureFormat.DER, str)
        lane.flights = 2
        fork = multiprocessing.get_context("fork")
        said = fork.SimpleQueue()
        child = fork.Process(target=_in_a_child, args=(client, said))
        child.start()
        child.join(PATIENCE)
        lane.flights = 0
        threads._mutex.release()
        assert child.exitcode == 0
        assert said.get() == ["Signature"] * 8
        assert client.sign("web", digest=digest(1))


def test_closing_ends_what_waits_and_what_comes_later_with_a_clear_error(home: Daemon) -> None:
    client = home.client()
    client.sign("web", digest=digest(0))

    def run() -> int:
        made = 0
        while True:
            client.sign("web", digest=digest(made))
            made += 1

    with ThreadPoolExecutor(THREADS) as pool:
        running = [pool.submit(run) for _ in range(THREADS)]
        eventually(lambda: all(future.running() for future in running))
        client.close()
        errors = [future.exception(PATIENCE) for future in running]
    assert {type(error) for error in errors} == {CancelledError}
    with pytest.raises(CancelledError, match="closed"):
        client.sign("web", digest=digest(0))


async def test_closing_an_asyncio_client_ends_all_that_wait(home: Daemon) -> None:
    with home.client() as settings:
        endpoint = settings.endpoint
    client = aio.connect(endpoint.target, tls=endpoint.tls)

    async def run() -> None:
        while True:
            await client.sign("web", digest=digest(0))

    running = [asyncio.create_task(run()) for _ in range(THREADS)]
    for _ in range(3):
        await client.sign("web", digest=digest(1))
    await client.close()
    found = await asyncio.wait_for(asyncio.gather(*running, return_exceptions=True), PATIENCE)
    assert {type(one) for one in found} <= {CancelledError, asyncio.CancelledError}
    with pytest.raises(CancelledError, match="closed"):
        await client.sign("web", digest=digest(0))

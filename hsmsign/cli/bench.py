"""hsmsign bench: what your daemon does with your key, measured from here."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import click

from hsmsign.cli.common import Session, pass_session, shared, table
from hsmsign.cli.signing import SCHEMES

if TYPE_CHECKING:
    from hsmsign.client import Client
    from hsmsign.model.algorithms import Scheme

_WARM_UP = 5


@click.command()
@click.argument("name")
@click.option("--seconds", type=click.FloatRange(min=0.05), default=3.0, show_default=True, help="For each figure.")
@click.option("--batch", type=click.IntRange(1, 4096), default=256, show_default=True, help="Items in a SignBatch.")
@click.option("--threads", type=click.IntRange(1, 256), default=1, show_default=True, help="Callers at a time.")
@click.option("--scheme", type=click.Choice(list(SCHEMES)), help="For RSA; else the key's first.")
@shared
@pass_session
def bench(session: Session, name: str, seconds: float, batch: int, threads: int, scheme: str | None) -> None:
    """Measure Sign and SignBatch of one key. It makes real signatures."""
    client, full = session.client, session.name(name)
    info = client.public_key_info(full)
    chosen = info.algorithm.scheme(SCHEMES[scheme] if scheme else info.algorithm.schemes[0])
    quiet = session.as_json
    with _progress(quiet, f"Sign, {threads} at a time"):
        single = _measure(_signer(client, info.key_version, chosen), 1, seconds, threads)
    with _progress(quiet, f"SignBatch of {batch}, {threads} at a time"):
        many = _measure(_batcher(client, info.key_version, chosen, batch), batch, seconds, threads)
    ratio = round(many["signatures_per_second"] / single["signatures_per_second"], 2)
    result = {
        "key_version": info.key_version,
        "scheme": chosen.name,
        "threads": threads,
        "batch": batch,
        "sign": single,
        "sign_batch": many,
        "batch_to_single": ratio,
    }

    def lines() -> list[str]:
        rows = [
            [word, f"{one['signatures_per_second']:.0f}", f"{one['p50_ms']:.2f}", f"{one['p99_ms']:.2f}"]
            for word, one in (("Sign", single), (f"SignBatch({batch})", many))
        ]
        head = f"{info.key_version}, {chosen.name}, {threads} caller{'s' if threads > 1 else ''}"
        return [
            head,
            *table(["CALL", "SIGNATURES/S", "P50 MS", "P99 MS"], rows),
            f"a batch signs {ratio} times as fast",
        ]

    session.show(result, lines)


def _signer(client: Client, version: str, scheme: Scheme) -> Callable[[], object]:
    if scheme.hash is None:
        return lambda: client.sign(version, message=os.urandom(32), scheme=scheme)
    size = scheme.hash.size
    return lambda: client.sign(version, digest=os.urandom(size), scheme=scheme)


def _batcher(client: Client, version: str, scheme: Scheme, count: int) -> Callable[[], object]:
    from hsmsign.model.algorithms import InputKind

    kind = InputKind.DIGEST if scheme.hash else InputKind.MESSAGE
    inputs = [os.urandom(scheme.hash.size if scheme.hash else 32) for _ in range(count)]
    return lambda: client.sign_batch(version, inputs, kind=kind, scheme=scheme).signatures()


def _measure(call: Callable[[], object], signatures: int, seconds: float, threads: int) -> dict[str, float]:
    """Calls for so many seconds from so many threads; the first error ends it and is raised."""
    for _ in range(_WARM_UP):
        call()
    times: list[float] = []
    failures: list[Exception] = []
    end = time.monotonic() + seconds

    def work() -> None:
        mine = []
        try:
            while not failures and (begun := time.monotonic()) < end:
                call()
                mine.append(time.monotonic() - begun)
        except Exception as error:  # noqa: BLE001 - raised again by the thread that waits
            failures.append(error)
        times.extend(mine)

    begun = time.monotonic()
    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    took = time.monotonic() - begun
    if failures:
        raise failures[0]
    cuts = statistics.quantiles(times, n=100, method="inclusive") if len(times) > 1 else times * 99
    return {
        "calls": len(times),
        "signatures_per_second": round(len(times) * signatures / took, 1),
        "p50_ms": round(cuts[49] * 1000, 3),
        "p99_ms": round(cuts[98] * 1000, 3),
    }


def _progress(quiet: bool, words: str) -> AbstractContextManager[Any]:
    if quiet:
        return nullcontext()
    from rich.console import Console

    return Console(stderr=True).status(words)

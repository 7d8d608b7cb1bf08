"""Many full handshakes of Python's own `ssl` with a key on a device, both sides in this process: in threads, in forked
children, with contexts that come and go. Prints what became of it, as JSON.

    python -m tests.soak.inprocess CHAIN REFERENCE CA HANDSHAKES CHILDREN
"""

from __future__ import annotations

import gc
import json
import os
import ssl
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from hsmsign.tls import client_context, provider, server_context

_THREADS = 4
_ROUNDS = 10
"""Of each thread of a child."""
_CHILD_SECONDS = 60.0


def shake(server: ssl.SSLContext, client: ssl.SSLContext) -> bool:
    """One handshake; whether it went well."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (client.wrap_bio(down, up, server_hostname="localhost"), server.wrap_bio(up, down, server_side=True))
    try:
        for _ in range(4):
            for side in sides:
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    continue
    except ssl.SSLError as error:
        print(error, file=sys.stderr)
        return False
    return sides[0].version() == sides[1].version() is not None


def shake_many(server: ssl.SSLContext, client: ssl.SSLContext, count: int) -> int:
    """So many, by some threads; how many went wrong."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return sum(not good for good in pool.map(lambda _: shake(server, client), range(count)))


def fork_one(server: ssl.SSLContext, client: ssl.SSLContext) -> int:
    """A child that makes handshakes in threads of its own; its process id."""
    child = os.fork()
    if not child:
        os._exit(min(shake_many(server, client, _THREADS * _ROUNDS), 255))
    return child


def wait_for(child: int) -> bool:
    """Whether it ended well, in time."""
    end = time.monotonic() + _CHILD_SECONDS
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status == 0
        time.sleep(0.02)
    os.kill(child, 9)
    os.waitpid(child, 0)
    print("a child hangs", file=sys.stderr)
    return False


def fork_some(server: ssl.SSLContext, client: ssl.SSLContext, count: int, children: int) -> tuple[int, int]:
    """Children and their parent at work; how many handshakes of the parent and how many children went wrong.

    No handshake is under way at the moment of the fork: gRPC does not survive that in the child.
    """
    ids = [fork_one(server, client) for _ in range(children)]
    failures = shake_many(server, client, count)
    return failures, sum(not wait_for(child) for child in ids)


def main() -> None:
    """Run it."""
    chain, reference, ca = map(Path, sys.argv[1:4])
    count, children = map(int, sys.argv[4:6])
    server, client = server_context(chain, reference), client_context(ca=ca)
    process = psutil.Process()
    failures, bad = fork_some(server, client, count // 4, children)  # connected by each for itself
    before = process.memory_info().rss
    failures += shake_many(server, client, count)
    grown = process.memory_info().rss - before
    kept = len(provider._opened)
    for _ in range(50):
        failures += not shake(server_context(chain, reference), client)
    gc.collect()
    left = len(provider._opened) - kept
    failed, lost = fork_some(server, client, count // 4, children)  # a connection is inherited
    print(json.dumps({"failures": failures + failed, "bad": bad + lost, "grown": grown, "left": left}))


if __name__ == "__main__":
    main()

"""Single Sign calls of clients that put nothing together: h2load, and gRPC for Python as it is."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import time
from pathlib import Path

from bench.loads import USUAL, Figures
from bench.rows import Report
from bench.scene import KEY, Scene
from bench.signing import CORES, YARDSTICK
from hsmsign.client.channel import open_aio_channel
from hsmsign.client.configuration import Endpoint
from hsmsign.v1 import signing_pb2

_PATH = "/hsmsign.v1.SigningService/Sign"
_GOAL = 0.27


def report(out: Report, scene: Scene, key_id: str) -> None:
    """h2load knows no client certificates: it takes the Unix socket."""
    seconds = out.extent.seconds
    group = out.group("unary", YARDSTICK, scene)

    def raw() -> float:
        return scene.raw(key_id, CORES, seconds)

    sizes = out.extent.sizes((1, 16, 64), short=(64,))
    if shutil.which("h2load"):
        for count in sizes:
            group.add(
                f"Sign, {count} in flight, h2load, Unix socket",
                raw,
                lambda n=count: _h2load(scene, n, seconds),  # type: ignore[misc]
                series="h2load, Unix socket",
                x=("callers", count),
                goal=_GOAL if count == 64 else None,
            )
    elif out.wants("unary"):
        print("h2load is not here (Debian: nghttp2-client): its loads are left out")
    with scene.tcp() as client:
        endpoint = client.endpoint
    for count in sizes:
        group.add(
            f"Sign, {count} in flight, gRPC for Python, mTLS",
            raw,
            lambda n=count: _grpc(endpoint, n, seconds),  # type: ignore[misc]
            series="gRPC for Python, mTLS",
            x=("callers", count),
        )


def _request() -> signing_pb2.SignRequest:
    return signing_pb2.SignRequest(name=KEY, digest=USUAL.inputs(1)[0])


def _h2load(scene: Scene, in_flight: int, seconds: float) -> Figures:
    """One connection, one thread. Latencies are those that it logs, in microseconds."""
    body, log = scene.folder / "sign.grpc", scene.folder / "h2load.log"
    message = _request().SerializeToString()
    body.write_bytes(bytes(1) + len(message).to_bytes(4, "big") + message)  # not compressed; how long it is
    log.unlink(missing_ok=True)
    command = ["h2load", "--clients=1", f"--max-concurrent-streams={in_flight}", f"--duration={seconds * 1000:.0f}ms"]
    headers = ["--header=content-type: application/grpc", "--header=te: trailers"]
    where = [f"--base-uri={scene.unix_target.replace('unix://', 'unix:')}", f"http://localhost{_PATH}"]
    options = [f"--data={body}", f"--log-file={log}", *headers, *where]
    done = subprocess.run([*command, *options], check=True, capture_output=True, text=True)
    return _figures(done.stdout, log, len(message))


def _figures(said: str, log: Path, length: int) -> Figures:
    rate, failed = re.search(r"([0-9.]+) req/s", said), re.search(r"(\d+) failed, (\d+) errored", said)
    status, data = re.search(r"status codes: (\d+) 2xx", said), re.search(r"\((\d+)\) data", said)
    if not (rate and failed and status and data) or int(failed[1]) or int(failed[2]):
        raise RuntimeError(said)
    count = int(status[1])
    if int(data[1]) < count * length:  # an error is 200, too, but brings no message
        raise RuntimeError("the daemon did not sign: " + said)
    rows = (line.split("\t") for line in log.read_text().splitlines())
    return Figures(float(rate[1]), tuple(int(took) / 1e6 for _, _, took in rows), count)


def _grpc(endpoint: Endpoint, in_flight: int, seconds: float) -> Figures:
    """One channel of gRPC's asyncio client, without ours."""
    latencies: list[float] = []
    request = _request()

    async def run() -> float:
        async with open_aio_channel(endpoint) as channel:
            sign = channel.unary_unary(
                _PATH, signing_pb2.SignRequest.SerializeToString, signing_pb2.SignResponse.FromString
            )
            await sign(request)
            end = time.perf_counter() + seconds

            async def caller() -> None:
                while (began := time.perf_counter()) < end:
                    await sign(request)
                    latencies.append(time.perf_counter() - began)

            began = time.perf_counter()
            await asyncio.gather(*(caller() for _ in range(in_flight)))
            return time.perf_counter() - began

    took = asyncio.run(run())
    return Figures(len(latencies) / took, tuple(latencies), len(latencies))

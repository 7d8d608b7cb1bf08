"""Reads an issuer's keys as bytes, from its host or from a file. Blocks: it is called in a thread.

PyJWKClient of PyJWT would fetch too, but reads an answer of any size for as long as it takes.
"""

from __future__ import annotations

import http.client
import os
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

SIZE_MAX = 1 << 20
_CHUNK = 1 << 16
_REASON_MAX = 200

Stamp = tuple[int, int, int]
"""By which a file is known to be the same: when it was changed (ns), its size, its inode."""


class NotRead(Exception):
    """Why there are no keys, in words."""


class _Stay(urllib.request.HTTPRedirectHandler):
    """An issuer's keys are where the configuration says, and nowhere else."""

    def redirect_request(self, *_args: Any) -> None:
        return None


def fetch(url: str, trusted: Path | None, seconds: float) -> bytes:
    """Get what is at a URL that `issuers.check_url` allows. Raises NotRead.

    `trusted` are certificates (PEM) that stand in for the system's. `seconds` is for the whole answer, its first byte
    included. Proxies are as the environment has them (https_proxy), but none is asked for this machine itself.
    """
    deadline = time.monotonic() + seconds
    handlers: list[urllib.request.BaseHandler] = [_Stay()]
    try:
        if url.startswith("https:"):
            context = ssl.create_default_context(cafile=trusted)
            handlers.append(urllib.request.HTTPSHandler(context=context))
        else:
            handlers.append(urllib.request.ProxyHandler({}))
        request = urllib.request.Request(url, headers={"Accept": "application/json", "User-Agent": "hsmsign"})  # noqa: S310 - checked
        with urllib.request.build_opener(*handlers).open(request, timeout=seconds) as answer:
            return _within_limits(answer, deadline)
    except urllib.error.HTTPError as error:
        error.close()
        moved = "; redirects are not followed" if 300 <= error.code < 400 else ""
        raise NotRead(f"{url} answers with status {error.code}{moved}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise NotRead(f"{url} cannot be fetched: {_words(reason)}") from error


def read(path: Path, known: Stamp | None) -> tuple[Stamp, bytes] | None:
    """Read a file, unless it is the one that is known; then None. Raises NotRead."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp == known:
                return None
            data = file.read(SIZE_MAX + 1)
    except OSError as error:
        raise NotRead(f"{path} cannot be read: {error.strerror or error}") from error
    if len(data) > SIZE_MAX:
        raise NotRead(f"{path} has more than {SIZE_MAX} bytes")
    return stamp, data


def _within_limits(answer: http.client.HTTPResponse, deadline: float) -> bytes:
    data = bytearray()
    while piece := answer.read1(_CHUNK):
        data += piece
        if len(data) > SIZE_MAX:
            raise ValueError(f"it has more than {SIZE_MAX} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError("it takes too long")
    return bytes(data)


def _words(reason: object) -> str:
    return ascii(str(reason))[1:-1][:_REASON_MAX] or type(reason).__name__

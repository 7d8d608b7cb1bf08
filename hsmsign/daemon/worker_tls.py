"""Certificates are renewed and revoked while the daemon runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

import structlog

from hsmsign.model.errors import HsmsignError
from hsmsign.server.tls_files import TlsFiles

if TYPE_CHECKING:
    from hsmsign.web.server import WebServer

_LOOK_EVERY = 1.0
"""Seconds between two looks at the files of TLS."""
log = structlog.get_logger()


async def watch(tls: TlsFiles, webs: Iterable[WebServer]) -> None:
    """Read the files anew where they changed, for ever."""
    said = ""
    while True:
        await asyncio.sleep(_LOOK_EVERY)
        try:
            if await asyncio.to_thread(tls.look):
                for web in webs:
                    web.renew()
                log.info("certificates or CRLs were read anew")
            said = ""
        except HsmsignError as error:
            if error.message != said:  # it is tried again and again: half of the files may be written only
                log.error("what changed of the certificates or CRLs is no good: the old stay", error=error.message)
            said = error.message

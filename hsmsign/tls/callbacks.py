"""What becomes of exceptions in functions that C calls: they cannot go further up."""

from __future__ import annotations

import _thread
import logging

_log = logging.getLogger("hsmsign.tls")


def unexpected(kind: type[BaseException], error: BaseException, trace: object) -> None:
    """For cffi's `onerror`: the handshake fails, and says why in the log. A Ctrl-C is made again where Python runs."""
    if isinstance(error, KeyboardInterrupt):
        _thread.interrupt_main()
    else:
        _log.error("a handshake fails for an error of ours", exc_info=error)

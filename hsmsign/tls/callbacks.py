"""What becomes of exceptions in functions that C calls: they cannot go further up."""

from __future__ import annotations

import _thread
import logging
import time

_log = logging.getLogger("hsmsign.tls")
_MOMENT = 0.01
"""Seconds after which C has its answer."""


def unexpected(kind: type[BaseException], error: BaseException, trace: object) -> None:
    """For cffi's `onerror`: the handshake fails, and says why in the log. A Ctrl-C is made again where Python runs."""
    if isinstance(error, KeyboardInterrupt):
        _thread.start_new_thread(_interrupt, ())
    else:
        _log.error("a handshake fails for an error of ours", exc_info=error)


def _interrupt() -> None:
    """From a thread of its own: raised at once, it would end in `unexpected`."""
    time.sleep(_MOMENT)
    _thread.interrupt_main()

"""What a process of the daemon does not load."""

from __future__ import annotations

import sys


def import_structlog() -> None:
    """Import structlog without rich, which it takes, where it is installed, for tracebacks in colours: 3 to 4 MiB of
    each process, for a log that services and files read. To be called before anything that imports structlog; who
    wants rich itself can have it afterwards."""
    absent = "rich" not in sys.modules
    if absent:
        # what is None there is not found (the import system, 5.3.1)
        sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        import structlog  # noqa: F401
    finally:
        if absent:
            del sys.modules["rich"]

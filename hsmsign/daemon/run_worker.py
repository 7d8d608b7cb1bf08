"""Runs a front worker: see hsmsign.daemon.worker."""

from __future__ import annotations

import sys

from hsmsign.daemon.lean import import_structlog


def main() -> int:
    """Its exit code."""
    import_structlog()
    from hsmsign.daemon import worker  # only now: what it imports imports structlog

    return worker.main()


if __name__ == "__main__":
    sys.exit(main())

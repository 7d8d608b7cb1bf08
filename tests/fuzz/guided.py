"""Fuzz one target with coverage as the guide: python -m tests.fuzz.guided TARGET [options of libFuzzer]

Wants `pip install '.[fuzz]'`. Begins with the corpus, keeps what it finds in build/fuzz, and ends with libFuzzer's exit
code; what shows a defect is a file that `tests.fuzz.run --replay` takes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["hsmsign"]):
    from tests.fuzz.targets import TARGETS

import contextlib

from tests.fuzz.run import CORPUS


def main() -> None:
    """Run until libFuzzer ends the process."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"say which target: {', '.join(TARGETS)}")
    name = sys.argv[1]
    target = TARGETS[name]
    found = Path("build/fuzz") / name
    found.mkdir(parents=True, exist_ok=True)

    def once(data: bytes) -> None:
        with contextlib.suppress(target.clean):
            target.run(data)

    options = [f"-artifact_prefix={found.parent}/{name}-", "-timeout=10", *sys.argv[2:]]
    atheris.Setup([sys.argv[0], *options, str(found), str(CORPUS / name)], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

"""What `make demo` says on a machine that lacks something, and that it may not install."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

SETUP = Path(__file__).parents[2] / "scripts" / "setup"


def test_it_names_the_packages_that_are_missing_where_it_may_not_install(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "dirname", "tr", "id", "cat", "ls", "grep"):
        (tools / name).symlink_to(str(shutil.which(name)))
    (tools / "python3").symlink_to(Path(sys.base_prefix) / "bin" / "python3")  # no apt-get, no sudo, no compiler
    done = subprocess.run(
        [tools / "sh", SETUP, "server"], env={"PATH": str(tools)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 69
    assert "gcc" in done.stderr
    assert "apt-get install" in done.stderr

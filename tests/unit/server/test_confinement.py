"""What a worker can no longer do, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.kernel import confines

ROOT = Path(__file__).parents[3]
SCRIPT = """
import os, pathlib, socket, sqlite3, subprocess, sys, threading
from hsmsign.server.confinement import confine
base = pathlib.Path(sys.argv[1])
readable, writable, secret = base / "readable", base / "writable", base / "secret"
assert confine([readable, base / "not there", secret / "one"], [writable]) == []

def may(what):
    try:
        what()
    except PermissionError:
        return False
    return True

found = {
    "read": may(lambda: (readable / "file").read_text()),
    "read below": may(lambda: (readable / "below" / "file").read_text()),
    "read a file that was named": may(lambda: (secret / "one").read_text()),
    "read another": may(lambda: (secret / "pin").read_text()),
    "see another": may(lambda: os.listdir(secret)),
    "by way of a link": may(lambda: (writable / "link").read_text()),
    "write what is to be read": may(lambda: (readable / "file").write_text("x")),
    "make a file there": may(lambda: (readable / "new").write_text("x")),
    "write": may(lambda: (writable / "new").write_text("x")),
    "remove": may((writable / "new").unlink),
    "make a socket": may(lambda: socket.socket(socket.AF_UNIX).bind(str(writable / "socket"))),
    "connect": may(lambda: socket.create_server(("127.0.0.1", 0)).close()),
    "start a program": may(lambda: subprocess.run(["/bin/true"], check=True)),
}
later = []
thread = threading.Thread(target=lambda: later.append(may(lambda: (secret / "pin").read_text())))
thread.start()
thread.join()
found["read another in a thread"] = later[0]
print(sorted(what for what, could in found.items() if could))
"""


@pytest.mark.skipif(not confines(), reason="this kernel lacks Landlock or seccomp")
def test_a_confined_process_reaches_what_it_was_given_and_nothing_else(tmp_path: Path) -> None:
    for folder in ("readable", "readable/below", "writable", "secret"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").write_text("x")
    (tmp_path / "secret" / "pin").write_text("1234")
    (tmp_path / "secret" / "one").write_text("x")
    (tmp_path / "writable" / "link").symlink_to(tmp_path / "secret" / "pin")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(
        [
            "connect",
            "make a socket",
            "read",
            "read a file that was named",
            "read below",
            "remove",
            "write",
        ]
    )

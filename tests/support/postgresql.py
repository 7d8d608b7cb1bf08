"""A PostgreSQL server of the tests' own, on a Unix socket in a folder of its own."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path

_BINARIES = ("/usr/lib/postgresql", "/usr/local/pgsql")


class PostgreSQL:
    """Starts when it is made; `stop` ends it and removes its folder. Raises AssertionError where none is installed."""

    def __init__(self) -> None:
        # not pytest's folder: a Unix socket's path has 107 bytes at most, and the server's user must get there
        self.folder = Path(tempfile.mkdtemp(prefix="hsmsign-pg-"))
        self._program = find_program("postgres").parent
        self._user: str | None = None
        if os.geteuid() == 0:  # the server refuses to be root
            self._user = "postgres"
            account = pwd.getpwnam(self._user)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        data = self.folder / "data"
        self._run("initdb", "-D", data, "-U", "hsmsign", "-A", "trust", "-N", "-E", "UTF8", "--locale=C.UTF-8")
        options = f"-k {self.folder} -c listen_addresses= -c fsync=off"
        self._run("pg_ctl", "-D", data, "-l", self.folder / "log", "-w", "-t", "60", "-o", options, "start")

    def _run(self, program: str, *words: str | Path) -> None:
        command = [str(self._program / program), *map(str, words)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, user=self._user, cwd=self.folder, timeout=120
        )
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"t{secrets.token_hex(6)}"
        self._run("createdb", "-h", self.folder, "-U", "hsmsign", name)
        return f"postgresql+psycopg://hsmsign@/{name}?host={self.folder}"

    def stop(self) -> None:
        """End the server."""
        self._run("pg_ctl", "-D", self.folder / "data", "-m", "immediate", "-w", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)


def find_program(name: str) -> Path:
    """Where Debian has PostgreSQL's programs, which are not on the PATH."""
    found = sorted(Path(root) for base in _BINARIES for root in Path(base).glob(f"**/bin/{name}"))
    there = found[-1] if found else shutil.which(name)
    assert there, f"{name} was not found: apt-get install postgresql"
    return Path(there)

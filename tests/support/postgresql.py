"""A PostgreSQL server of the tests' own on a Unix socket, or the one that HSMSIGN_TEST_POSTGRES names."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa

_BINARIES = ("/usr/lib/postgresql", "/usr/local/pgsql")


class PostgreSQL(Protocol):
    """A server on which databases can be made."""

    def new_database(self) -> str:
        """The URL of an empty database."""
        ...

    def stop(self) -> None:
        """Leave nothing behind."""
        ...


def start_postgresql() -> PostgreSQL:
    """The server at the URL in HSMSIGN_TEST_POSTGRES, whose user may create databases; without it, a new one."""
    url = os.environ.get("HSMSIGN_TEST_POSTGRES")
    return Given(url) if url else Own()


class Given:
    """Somebody's server: only the databases made here are touched, and they are dropped at the end."""

    def __init__(self, url: str) -> None:
        self._url = sa.make_url(url).set(drivername="postgresql+psycopg")
        self._engine = sa.create_engine(self._url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        self._made: list[str] = []

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"hsmsign_test_{secrets.token_hex(6)}"
        with self._engine.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE template0"))
        self._made.append(name)
        return self._url.set(database=name).render_as_string(hide_password=False)

    def stop(self) -> None:
        """Drop what was made."""
        with self._engine.connect() as connection:
            for name in self._made:
                connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))


class Own:
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

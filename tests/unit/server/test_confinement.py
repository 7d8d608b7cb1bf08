"""What a worker can no longer do, in a process of its own."""

from __future__ import annotations

import ctypes
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.kernel import confines

ROOT = Path(__file__).parents[3]
needs_kernel = pytest.mark.skipif(not confines(), reason="this kernel lacks Landlock or seccomp")

MAY = """
import ctypes, fcntl, os, pathlib, platform, socket, sqlite3, stat, subprocess, sys, termios, threading
base = pathlib.Path(sys.argv[1])
readable, writable, secret = base / "readable", base / "writable", base / "secret"
libc = ctypes.CDLL(None, use_errno=True)

def may(what):
    try:
        what()
    except PermissionError:
        return False
    except OSError:
        pass
    return True

def call(x86, arm, *arguments):
    number = x86 if platform.machine() == "x86_64" else arm
    if libc.syscall(number, *map(ctypes.c_long, arguments)) < 0:
        raise OSError(ctypes.get_errno(), "refused")

def process(flags):  # a child that ends at once
    if (number := libc.syscall(56 if platform.machine() == "x86_64" else 220, flags | 17, 0, 0, 0, 0)) == 0:
        os._exit(0)
    if number < 0:
        raise OSError(ctypes.get_errno(), "refused")
    os.waitpid(number, 0)

def through(path, flags, what):
    opened = os.open(path, flags)
    try:
        what(opened)
    finally:
        os.close(opened)
"""
CONFINED = (
    MAY
    + """
from hsmsign.server.confinement import confine
assert confine([readable, base / "not there", secret / "one", pathlib.Path("/dev")], [writable]) == []
"""
)
FILES = """
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
    "cut off what is written": may(lambda: through(writable / "new", os.O_WRONLY, lambda fd: os.ftruncate(fd, 0))),
    "remove": may((writable / "new").unlink),
    "make a device": may(lambda: os.mknod(writable / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 3))),
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


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for folder in ("readable", "readable/below", "writable", "secret"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").write_text("x")
    (tmp_path / "secret" / "pin").write_text("1234")
    (tmp_path / "secret" / "one").write_text("x")
    (tmp_path / "writable" / "link").symlink_to(tmp_path / "secret" / "pin")
    return tmp_path


@needs_kernel
def test_a_confined_process_reaches_what_it_was_given_and_nothing_else(base: Path) -> None:
    assert run(CONFINED + FILES, base) == str(
        [
            "connect",
            "cut off what is written",
            "make a socket",
            "read",
            "read a file that was named",
            "read below",
            "remove",
            "write",
        ]
    )


CHANGES = {
    "truncate": "os.truncate(target, 0)",
    "truncate by opening": "os.close(os.open(target, os.O_RDONLY | os.O_TRUNC))",
    "truncate by opening in an odd mode": "os.close(os.open(target, os.O_ACCMODE | os.O_TRUNC))",
    "chmod": "os.chmod(target, 0o777)",
    "chmod of a folder": "os.chmod(target.parent, 0o777)",
    "fchmod": "through(target, os.O_RDONLY, lambda fd: os.fchmod(fd, 0o777))",
    "fchmod of a folder": "through(target.parent, os.O_RDONLY, lambda fd: os.fchmod(fd, 0o777))",
    "fchmodat": "through(target.parent, os.O_PATH, lambda fd: os.chmod('file', 0o777, dir_fd=fd))",
    "fchmodat2": "through(target, os.O_PATH, lambda fd: call(452, 452, fd, empty, 0o777, 0x1000))",
    "chown": "os.chown(target, os.getuid(), os.getgid())",
    "lchown": "os.lchown(target, os.getuid(), os.getgid())",
    "fchown": "through(target, os.O_RDONLY, lambda fd: os.fchown(fd, os.getuid(), os.getgid()))",
    "fchownat": "through(target.parent, os.O_PATH, lambda fd: os.chown('file', os.getuid(), os.getgid(), dir_fd=fd))",
    "setxattr": "os.setxattr(target, 'user.hsmsign', b'x')",
    "lsetxattr": "os.setxattr(target, 'user.hsmsign', b'x', follow_symlinks=False)",
    "fsetxattr": "through(target, os.O_RDONLY, lambda fd: os.setxattr(fd, 'user.hsmsign', b'x'))",
    "removexattr": "os.removexattr(target, 'user.hsmsign')",
    "lremovexattr": "os.removexattr(target, 'user.hsmsign', follow_symlinks=False)",
    "fremovexattr": "through(target, os.O_RDONLY, lambda fd: os.removexattr(fd, 'user.hsmsign'))",
    "file_setattr": "call(469, 469, -100, name, 0, 0, 0)",
}
CHANGE = """
target, left = readable / "file", writable / "file"
held = [ctypes.create_string_buffer(b""), ctypes.create_string_buffer(os.fsencode(target))]
empty, name = map(ctypes.addressof, held)
assert not may(lambda: {change})
assert target.read_text() == "x" and stat.S_IMODE(target.stat().st_mode) == 0o600
"""


@needs_kernel
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_confined_process_changes_no_file_that_it_may_only_read(change: str, base: Path) -> None:
    (base / "readable" / "file").chmod(0o600)
    run(CONFINED + CHANGE.format(change=change), base)


TRUNCATIONS = [change for what, change in CHANGES.items() if what.startswith("truncate")]


@needs_kernel
@pytest.mark.parametrize("change", TRUNCATIONS)
def test_the_filter_alone_refuses_to_truncate_for_kernels_whose_landlock_does_not(change: str, base: Path) -> None:
    alone = """
import hsmsign._native._front as front
assert front.lib.hsm_harden_process() == 0
assert front.lib.hsm_filter_system_calls(front.lib.HSM_REFUSE_MODES) == 0
"""
    (base / "readable" / "file").chmod(0o600)
    run(MAY + alone + CHANGE.format(change=change), base)


def landlock() -> int:
    """Its version on this kernel."""
    return ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1)  # type: ignore[no-any-return]


@pytest.mark.skipif(landlock() < 3, reason="this kernel's Landlock does not see truncation")
@pytest.mark.parametrize("change", TRUNCATIONS)
def test_landlock_alone_refuses_to_truncate_what_may_not_be_written(change: str, base: Path) -> None:
    alone = """
import hsmsign._native._front as front
may_read, may_write = (front.ffi.new("char[]", os.fsencode(path)) for path in (readable, writable))
assert front.lib.hsm_harden_process() == 0
assert front.lib.hsm_restrict_files([may_read], 1, [may_write], 1) == 0
os.truncate(writable / "file", 0)
(writable / "file").write_text("x")
"""
    (base / "readable" / "file").chmod(0o600)
    run(MAY + alone + CHANGE.format(change=change), base)


@needs_kernel
@pytest.mark.parametrize(
    "flag", [0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000, 0x50000000]
)
def test_no_filtered_process_makes_a_namespace(flag: int) -> None:
    script = f"""
from hsmsign.backends import native
native.harden_process()
process(0)
assert native.filter_system_calls(programs=True, network=True)
process(0)  # a device host whose library may start programs
assert not may(lambda: process({flag}))
assert libc.syscall(435, 0, 0) == -1 and ctypes.get_errno() == 38  # clone3
subprocess.run(["true"], check=True)
"""
    run(MAY + script, ".")


@needs_kernel
@pytest.mark.parametrize(
    "start",
    [
        "os.fork()",
        "process(0)",
        "process(0x4100)",
        "call(57, -1)",
        "call(58, -1)",
        "os.posix_spawn('/bin/true', ['true'], {})",
    ],
)
def test_a_confined_process_starts_threads_and_no_process_that_could_outlive_it(start: str, base: Path) -> None:
    script = f"""
assert not may(lambda: {start}) or {start!r}.startswith("call") and platform.machine() != "x86_64"
threads = [threading.Thread(target=str) for _ in range(3)]
for thread in threads:
    thread.start()
    thread.join()
"""
    run(CONFINED + script, base)


@pytest.mark.skipif(landlock() < 6, reason="this kernel's Landlock does not see signals")
def test_a_confined_process_reaches_no_other_by_signals_or_abstract_addresses(base: Path) -> None:
    name = f"hsmsign-test-{base.name}-{socket.gethostname()}"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0{name}")
        listening.listen()
        script = f"""
def connect(name):
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(name)
assert not may(lambda: os.kill(os.getppid(), 0))
assert not may(lambda: connect("\\0{name}"))
os.kill(os.getpid(), 0)
with socket.socket(socket.AF_UNIX) as own:
    own.bind("\\0{name}-own")
    own.listen()
    connect("\\0{name}-own")
"""
        run(CONFINED + script, base)


@pytest.mark.skipif(landlock() < 5, reason="this kernel's Landlock does not see commands to devices")
def test_a_confined_process_commands_no_device_that_it_may_read(base: Path) -> None:
    command = "through('/dev/zero', os.O_RDONLY, lambda fd: fcntl.ioctl(fd, termios.TIOCSTI, b'x'))"
    run(MAY + f"assert may(lambda: {command})", base)
    run(CONFINED + f"assert not may(lambda: {command})", base)


@needs_kernel
@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_a_confined_process_opens_and_changes_a_database(mode: int, base: Path) -> None:
    """SQLite would give what it makes beside the database the database's mode; it goes on where it may not."""
    script = f"""
import asyncio
from hsmsign.store import Store
os.umask(0o077)
database = writable / "store.db"
with contextlib.closing(sqlite3.connect(database)) as first:
    first.execute("PRAGMA journal_mode = WAL")
    first.execute("CREATE TABLE rows (x)")
database.chmod({mode})
assert sorted(path.name for path in writable.glob("store.db*")) == ["store.db"]
from hsmsign.server.confinement import confine
confine([pathlib.Path("/usr"), pathlib.Path(sys.prefix), pathlib.Path(sys.base_prefix), pathlib.Path.cwd()], [writable])
with contextlib.closing(sqlite3.connect(database)) as one, contextlib.closing(sqlite3.connect(database)) as other:
    with one:
        one.execute("INSERT INTO rows VALUES (1)")
    assert (writable / "store.db-wal").exists() and (writable / "store.db-shm").exists()
    assert other.execute("SELECT x FROM rows").fetchall() == [(1,)]
    one.execute("PRAGMA wal_checkpoint(TRUNCATE)")
Store.open(f"sqlite:///{{writable / 'new.db'}}").close()
"""
    run("import contextlib" + MAY + script, base)

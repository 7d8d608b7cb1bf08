"""The native core through its Python wrapper, on a real SoftHSM token. A process has one module: each test forks."""

from __future__ import annotations

import _socket
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from hsmsign._native import _host
from hsmsign.backends import native
from hsmsign.model.algorithms import InputKind, Scheme, SignatureFormat
from hsmsign.model.device import JobStatus
from hsmsign.model.errors import DeviceUnavailableError
from hsmsign.softhsm.provision import Provisioned
from tests.support import softhsm
from tests.support.kernel import confines

ROOT = Path(__file__).resolve().parents[3]
PREAMBLE = """
import socket, sys
from pathlib import Path
import pkcs11
from pkcs11 import Attribute, KeyType
from pkcs11.util.ec import encode_ec_public_key, encode_named_curve_parameters
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from hsmsign.backends import native
from hsmsign.model.algorithms import InputKind, Scheme, SignatureFormat
from hsmsign.model.device import JobStatus
from tests.support.frames import SignConnection

P256 = Scheme.ECDSA_P256_SHA256
LOCATOR = bytes([1, 7, 0])
native.open_module(sys.argv[1])
library = pkcs11.lib(native.module_path())
token = next(t for t in library.get_tokens() if t.label == "test")
session = token.open(rw=True, user_pin=Path(sys.argv[2]).read_text().strip())

def make_key(curve="secp256r1", id=b"\\x07"):
    parameters = {Attribute.EC_PARAMS: encode_named_curve_parameters(curve)}
    domain = session.create_domain_parameters(KeyType.EC, parameters, local=True)
    public, private = domain.generate_keypair(store=True, id=id, label="key")
    return private, public, serialization.load_der_public_key(encode_ec_public_key(public))

def new_pool(sessions=2, exclusive=False):
    return native.SigningPool(token.slot.slot_id, sessions, 1 << 20, exclusive)

def connect(pool):
    ours, theirs = socket.socketpair()
    connection = SignConnection(ours)
    theirs.recv(12)  # the hello, which the host reads before it hands the connection over
    pool.serve(theirs)
    return connection
"""


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Provisioned:
    return softhsm.make_token(tmp_path_factory.mktemp("token") / "token")


def run(token: Provisioned, script: str) -> str:
    """Run a script on the token, in a process of its own; what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(script), str(softhsm.find_module()), str(token.pin_file)],
        cwd=ROOT,
        env={**os.environ, "SOFTHSM2_CONF": str(token.conf)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_python_pkcs11_and_the_pool_share_one_module(token: Provisioned) -> None:
    run(
        token,
        """
        private, public, verifier = make_key()
        pool = new_pool()
        connection = connect(pool)
        pool.running()
        results = connection.sign(LOCATOR, P256, [b"one", b"two"])
        for message, result in zip([b"one", b"two"], results, strict=True):
            assert result.status is JobStatus.OK
            verifier.verify(result.signature, message, ec.ECDSA(hashes.SHA256()))
        stats = pool.stats()
        assert (stats.mode.name, stats.connections, stats.sessions, stats.signed_total) == ("RUNNING", 1, 2, 2), stats
        private.destroy()
        public.destroy()
        pool.forget(LOCATOR)
        [gone] = connection.sign(LOCATOR, P256, [b"three"])
        assert gone.status is JobStatus.KEY_NOT_FOUND
        pool.close()
        """,
    )


@pytest.mark.parametrize("curve", ["P256", "P384", "P521"])
def test_every_curve_gives_der_and_raw_signatures(token: Provisioned, curve: str) -> None:
    run(
        token,
        f"""
        name, scheme = "secp{curve[1:]}r1", next(s for s in Scheme if "_{curve}_" in s.name)
        _, _, verifier = make_key(name, b"{curve}")
        pool = new_pool()
        connection = connect(pool)
        pool.running()
        hash = getattr(hashes, scheme.hash.name)()
        locator = bytes([4]) + b"{curve}" + bytes([3]) + b"key"
        [der] = connection.sign(locator, scheme, [b"m"])
        verifier.verify(der.signature, b"m", ec.ECDSA(hash))
        [raw] = connection.sign(locator, scheme, [b"m"], form=SignatureFormat.RAW)
        half = (verifier.curve.key_size + 7) // 8
        assert len(raw.signature) == 2 * half
        numbers = int.from_bytes(raw.signature[:half], "big"), int.from_bytes(raw.signature[half:], "big")
        verifier.verify(utils.encode_dss_signature(*numbers), b"m", ec.ECDSA(hash))
        pool.close()
        """,
    )


@pytest.mark.parametrize("exclusive", ["True", "native.Exclusion.LOOKUPS"])
def test_keys_come_and_go_while_others_sign(token: Provisioned, exclusive: str) -> None:
    run(
        token,
        f"""
        import threading
        _, _, verifier = make_key()
        pool = new_pool(3, {exclusive})
        connection = connect(pool)
        pool.running()
        def sign():
            for _ in range(20):
                assert all(r.status is JobStatus.OK for r in connection.sign(LOCATOR, P256, [b"x"] * 20))
        failures = []
        threading.excepthook = lambda it: failures.append(it.exc_value)
        [first] = connection.sign(LOCATOR, P256, [b"x"])
        signer = threading.Thread(target=sign)
        signer.start()
        while signer.is_alive():
            with pool.managing():
                private, public, _ = make_key(id=b"other")
                private.destroy()
                public.destroy()
        assert not failures, failures
        pool.close()
        for key in session.get_objects({{Attribute.ID: b"\\x07"}}):
            key.destroy()
        """,
    )


def test_a_failing_pool_answers_with_the_status_it_was_given(token: Provisioned) -> None:
    run(
        token,
        """
        pool = new_pool()
        connection = connect(pool)
        number = connection.send(LOCATOR, P256, [b"x"] * 40)
        pool.failing(JobStatus.PIN_LOCKED)
        [results] = connection.wait({number: 40})
        assert {r.status for r in results} == {JobStatus.PIN_LOCKED}
        assert pool.drain(10)
        pool.close()
        """,
    )


def test_finalize_by_python_pkcs11_does_not_end_the_module(token: Provisioned) -> None:
    run(
        token,
        """
        _, _, verifier = make_key(id=b"still")
        pool = new_pool()
        connection = connect(pool)
        pool.running()
        locator = bytes([5]) + b"still" + bytes([0])
        assert connection.sign(locator, P256, [b"x"])[0].status is JobStatus.OK
        library.finalize()
        assert connection.sign(locator, P256, [b"x"])[0].status is JobStatus.OK
        pool.close()
        """,
    )


def test_a_closed_pool_says_so(token: Provisioned) -> None:
    run(
        token,
        """
        pool = new_pool()
        pool.close()
        pool.close()
        for call in (pool.running, pool.stats, pool.fault_fd, lambda: pool.drain(1), lambda: pool.forget(b"x")):
            try:
                call()
            except ValueError as error:
                assert "closed" in str(error)
            else:
                raise AssertionError(call)
        """,
    )


def refused(path: Path) -> str:
    with pytest.raises(DeviceUnavailableError) as caught:
        native.open_module(path)
    assert "module" in caught.value.hint
    return caught.value.message


def test_a_module_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "none.so")


def test_a_file_that_is_no_library_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.so"
    path.write_text("not a library")
    assert "cannot be loaded as a shared library" in refused(path)


def test_a_library_that_is_no_module_is_refused() -> None:
    assert "has no C_GetFunctionList" in refused(Path(_socket.__file__))


def test_the_forwarder_does_not_forward_to_itself() -> None:
    assert "the forwarder of hsmsign itself" in refused(Path(native.module_path()))


def test_a_pool_without_a_module_is_refused() -> None:
    with pytest.raises(DeviceUnavailableError, match="no PKCS #11 module is open"):
        native.SigningPool(0, 1, 1024, False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((-1, 1, 1, False), "slot id"),
        ((1 << 64, 1, 1, False), "slot id"),
        ((0, -1, 1, False), "at most 1024 sessions"),
        ((0, 1025, 1, False), "at most 1024 sessions"),
        ((0, 1, 0, False), "max_queued_bytes"),
        ((0, 1, 1 << 32, False), "max_queued_bytes"),
        ((0, 1, 1, 3), "Exclusion"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: tuple[int, int, int, bool], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        native.SigningPool(*arguments)


def test_the_numbers_of_c_and_python_agree() -> None:
    elements = {name: number for number, name in _host.ffi.typeof("hsm_status").elements.items()}
    spelt = {"HSM_E_DEVICE": "DEVICE_ERROR", "HSM_OK": "OK"}
    statuses = {spelt.get(name, name.removeprefix("HSM_E_")): n for name, n in elements.items() if n < 100}
    assert statuses == {status.name: status.value for status in JobStatus}
    modes = _host.ffi.typeof("hsm_pool_mode").elements
    assert {n: name.removeprefix("HSM_POOL_") for n, name in modes.items()} == {
        m.value: m.name for m in native.PoolMode
    }
    exclusions = _host.ffi.typeof("hsm_exclusion").elements
    assert {n: name.removeprefix("HSM_EXCLUDE_") for n, name in exclusions.items()} == {
        e.value: e.name for e in native.Exclusion
    }


def test_the_numbers_of_the_wire_agree_with_frame_h() -> None:
    text = (ROOT / "native" / "core" / "frame.h").read_text()
    numbers = {name: int(number) for name, number in re.findall(r"\bHSM_(\w+) = (\d+)", text)}
    for scheme in Scheme:
        assert numbers[scheme.name] == scheme.value
    for kind in InputKind:
        assert numbers[f"INPUT_{kind.name}"] == kind.value
    for form in SignatureFormat:
        assert numbers[f"FORMAT_{form.name}"] == form.value


def test_a_hardened_process_cannot_dump_core() -> None:
    script = (
        "import resource\nfrom hsmsign.backends import native\nnative.harden_process()\n"
        "assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)\n"
        "status = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
        "assert status['NoNewPrivs'].strip() == '1'\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)


REFUSED = """
import ctypes, os, socket, subprocess, sys, threading
from hsmsign.backends import native
native.harden_process()
waiting, go = threading.Event(), threading.Event()
seen = []
def look():
    waiting.set()
    go.wait()
    seen.append(attempt())
libc = ctypes.CDLL(None, use_errno=True)
def attempt():
    ctypes.set_errno(0)
    return (libc.unshare(0x10000000), ctypes.get_errno())
thread = threading.Thread(target=look)
thread.start()
waiting.wait()
assert native.filter_system_calls(programs={programs}, network={network})
go.set()
thread.join()
assert seen == [(-1, 1)], seen  # a thread that was there before is filtered, too
assert libc.ptrace(0, 0, 0, 0) == -1
def may(what):
    try:
        what()
    except PermissionError:
        return False
    return True
assert may(lambda: socket.socket(socket.AF_UNIX).close())
assert may(lambda: socket.socket(socket.AF_INET).close()) is {network}
assert may(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close()) is {network}
assert may(lambda: subprocess.run(["true"], check=True)) is {programs}
"""


@pytest.mark.skipif(not confines(), reason="this kernel lacks Landlock or seccomp")
@pytest.mark.parametrize(("programs", "network"), [(True, True), (False, True), (True, False), (False, False)])
def test_a_filtered_process_is_refused_what_it_has_no_business_with(programs: bool, network: bool) -> None:
    script = REFUSED.format(programs=programs, network=network)
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)

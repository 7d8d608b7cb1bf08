"""The certificate authority from the command line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509 import ocsp

from tests.support.daemon import Daemon, eventually, hsmsign
from tests.support.pki import PROFILES, Files, make_csr, openssl, with_ca

Run = Callable[..., "subprocess.CompletedProcess[str]"]
SHORT = '\n[profiles.short]\nbase = "server"\nvalidity = { default = "30s", max = "1h", backdate = "0s" }\n'


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    running = with_ca(PROFILES + SHORT)(Daemon()).start()
    yield running
    running.remove()


@pytest.fixture(scope="module")
def run(daemon: Daemon) -> Run:
    at = {"HSMSIGN_CLIENT": str(daemon.folder / "client.toml")}

    def work(*words: str | Path, good: bool = True) -> subprocess.CompletedProcess[str]:
        done = hsmsign(*words, environment=at)
        assert not good or done.returncode == 0, done.stderr
        return done

    work("ca", "init", "root", "--subject", "CN=Root,O=Example", "--path-len", "1")
    work("ca", "init", "issuing", "--subject", "CN=Issuing,O=Example", "--parent", "root")
    return work


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_a_hierarchy_is_made_and_shown(run: Run, files: Files) -> None:
    shown = run("ca", "list").stdout
    assert "cas/root" in shown
    assert "CN=Issuing,O=Example" in shown
    chain, cert = files.folder / "chain.pem", files.folder / "cert.pem"
    run("ca", "show", "issuing", "--chain", chain, "--cert", cert)
    assert len(x509.load_pem_x509_certificates(chain.read_bytes())) == 2
    assert len(x509.load_pem_x509_certificates(cert.read_bytes())) == 1
    said = json.loads(run("ca", "show", "issuing", "--json").stdout)
    assert said["primary_version"] == "cas/issuing/versions/1"
    would = run("ca", "init", "dry", "--subject", "CN=Dry", "--dry-run").stdout
    assert would == "would make cas/dry\n"
    assert "cas/dry" not in run("ca", "list").stdout
    missing = run("ca", "show", "issuing", "--csr", files.folder / "no.csr", good=False)
    assert missing.returncode == 1
    assert "has no request" in missing.stderr


def test_a_certificate_from_issue_to_revocation(run: Run, files: Files) -> None:
    csr = files.put("web.csr", make_csr("web.example.org").public_bytes(_pem()))
    out = files.folder / "web.pem"
    dry = run("cert", "issue", "issuing", "-p", "server", "--csr", csr, "--dry-run").stdout
    assert "dns:web.example.org" in dry
    run("cert", "issue", "issuing", "-p", "server", "--csr", csr, "--out", out)
    leaf, above = x509.load_pem_x509_certificates(out.read_bytes())
    leaf.verify_directly_issued_by(above)
    assert f"{leaf.serial_number:x}" in run("cert", "list", "--text", "web.example").stdout
    assert "good" in run("ocsp", "check", out).stdout
    shown = run("cert", "show", out).stdout
    assert "name       dns:web.example.org" in shown
    asked = hsmsign_input(run, "n\n", "cert", "revoke", str(out))
    assert asked.returncode == 130
    done = run("cert", "revoke", out, "--reason", "superseded", "--yes").stdout
    assert "is revoked (superseded)" in done
    checked = run("ocsp", "check", out, good=False)
    assert checked.returncode == 1
    assert "revoked since" in checked.stdout
    again = run("cert", "revoke", out, "--reason", "privilegeWithdrawn", "--yes", good=False)
    assert again.returncode == 65
    assert "only keyCompromise" in again.stderr
    crl = files.folder / "issuing.crl"
    assert "full" in run("crl", "publish", "issuing").stdout
    run("crl", "get", "issuing", "--out", crl)
    found = x509.load_der_x509_crl(crl.read_bytes())
    assert found.get_revoked_certificate_by_serial_number(leaf.serial_number) is not None


def _pem():  # type: ignore[no-untyped-def]
    from cryptography.hazmat.primitives.serialization import Encoding

    return Encoding.PEM


def hsmsign_input(run: Run, text: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run it with somebody who types."""
    at = next(cell.cell_contents for cell in run.__closure__ or () if isinstance(cell.cell_contents, dict))
    command = [sys.executable, "-m", "hsmsign", *words]
    return subprocess.run(
        command, input=text, capture_output=True, text=True, check=False, env={**os.environ, **at}, timeout=60
    )


def test_what_is_wrong_is_said_with_an_exit_code(run: Run, files: Files) -> None:
    csr = files.put("bad.csr", make_csr("www.example.com").public_bytes(_pem()))
    refused = run("cert", "issue", "issuing", "-p", "server", "--csr", csr, good=False)
    assert refused.returncode == 65
    assert "www.example.com" in refused.stderr
    assert run("cert", "issue", "issuing", "-p", "server", good=False).returncode == 64
    assert run("ca", "init", "x", "--subject", "CN=X", "--validity", "soon", good=False).returncode == 64
    said = run("--json", "cert", "show", "abc123", good=False)
    assert json.loads(said.stderr)["error"]["reason"] == "CERTIFICATE_NOT_FOUND"


def test_a_new_version_a_retired_one_and_the_profiles(run: Run) -> None:
    run("ca", "init", "turn", "--subject", "CN=Turn,O=Example", "--parent", "root")
    assert "cas/turn/versions/2  active" in run("ca", "rotate", "turn", "--staged").stdout
    changed = run("ca", "update", "turn", "--primary", "2", "--retire", "1").stdout
    assert "cas/turn/versions/1  retired" in changed
    assert "issues     cas/turn/versions/2" in changed
    profiles = run("ca", "profiles").stdout
    assert "dns:*.example.org" in profiles
    assert "short" in profiles


@pytest.mark.parametrize("where", ["device", "file"])
def test_a_certificate_is_renewed_in_its_file_and_a_hook_is_run(run: Run, files: Files, where: str) -> None:
    path, mark = files.folder / "web.pem", files.folder / "mark"
    if where == "device":
        run("key", "create", "renewed", "-a", "ecdsa-p256", "--purpose", "tls-server")
        key: tuple[str | Path, ...] = ("--key", "renewed")
        run("cert", "issue", "issuing", "-p", "server", *key, "--name", "dns:web.example.org", "--out", path)
    else:
        pem = files.folder / "key.pem"
        made = openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=web.example.org", "-addext",
                       "subjectAltName=DNS:web.example.org", "-keyout", pem, "-out", files.folder / "csr")  # fmt: skip
        assert made.returncode == 0
        key = ("--key-file", pem)
        run("cert", "issue", "issuing", "-p", "server", "--csr", files.folder / "csr", "--out", path)
    path.chmod(0o640)
    before = x509.load_pem_x509_certificate(path.read_bytes())
    renew = ("cert", "renew", path, "--authority", "issuing", "-p", "server", *key)
    assert "not yet" in run(*renew).stderr
    assert x509.load_pem_x509_certificate(path.read_bytes()) == before
    run(*renew, "--now", "--hook", f'cp "$HSMSIGN_CERTIFICATE" {mark}')
    after = x509.load_pem_x509_certificate(path.read_bytes())
    assert after.serial_number != before.serial_number
    assert after.public_key() == before.public_key()
    assert mark.read_bytes() == path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o640
    failing = run(*renew, "--now", "--hook", "exit 3", good=False)
    assert "the hook failed with 3" in failing.stderr


@contextlib.contextmanager
def following(daemon: Daemon, *words: str | Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A command that goes on, and the file with what it tells on stderr."""
    with tempfile.NamedTemporaryFile("w+") as told:
        environment = {**os.environ, "HSMSIGN_CLIENT": str(daemon.folder / "client.toml")}
        command = [sys.executable, "-m", "hsmsign", *map(str, words), "--follow"]
        process = subprocess.Popen(command, env=environment, stderr=told, stdout=subprocess.DEVNULL, text=True)
        try:
            yield process, Path(told.name)
            assert process.poll() is None, Path(told.name).read_text()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def certified(run: Run, files: Files, profile: str = "server") -> tuple[Path, tuple[str, ...]]:
    """A certificate in a file, and how it is renewed."""
    path = files.folder / "web.pem"
    run("key", "create", name := f"k{os.urandom(4).hex()}", "-a", "ecdsa-p256")
    words = ("--key", name, "--name", "dns:web.example.org")
    run("cert", "issue", "issuing", "-p", profile, *words, "--out", path)
    return path, ("--authority", "issuing", "-p", profile, "--key", name)


def test_a_hook_that_fails_is_run_again_until_it_succeeds(daemon: Daemon, run: Run, files: Files) -> None:
    path, how = certified(run, files)
    before, ready, runs = path.read_bytes(), files.folder / "ready", files.folder / "runs"
    hook = f'echo "$HSMSIGN_CERTIFICATE" >>{runs}; test -e {ready} || exit 3'
    with following(daemon, "cert", "renew", path, *how, "--now", "--hook", hook) as (_, told):
        eventually(lambda: "the hook failed with 3; again in 5 s" in told.read_text(), "nothing is said of it")
        after = path.read_bytes()
        assert after != before
        ready.touch()
        eventually(lambda: runs.exists() and len(runs.read_text().splitlines()) == 2, "it is not run again")
        assert runs.read_text().splitlines() == [str(path)] * 2
    assert path.read_bytes() == after


def test_the_first_renewal_is_tried_again_too(daemon: Daemon, run: Run, files: Files) -> None:
    path, how = certified(run, files)
    good = path.read_bytes()
    path.write_text("what somebody left there")
    with following(daemon, "cert", "renew", path, *how, "--now") as (_, told):
        eventually(lambda: "not renewed, again in 5 s" in told.read_text(), "nothing is said of it")
        assert "holds no certificate" in told.read_text()
        path.write_bytes(good)
        eventually(lambda: path.read_bytes() != good, "it is not renewed")
    failing = run("cert", "renew", path, *how[:-1], "nobody", "--now", good=False)
    assert failing.returncode not in (0, None)


def test_an_answer_to_staple_is_asked_for_again_and_its_hook_run_again(daemon: Daemon, run: Run, files: Files) -> None:
    path, _ = certified(run, files)
    good, out, runs = path.read_bytes(), files.folder / "staple.der", files.folder / "runs"
    path.write_text("what somebody left there")
    words = ("ocsp", "staple", path, "--out", out, "--hook", f"echo >>{runs}; test $(wc -l <{runs}) -gt 1 || exit 3")
    with following(daemon, *words) as (_, told):
        eventually(lambda: "not renewed, again in 5 s" in told.read_text(), "nothing is said of it")
        path.write_bytes(good)
        eventually(lambda: "the hook failed with 3; again in 5 s" in told.read_text(), "the hook is not run")
        assert ocsp.load_der_ocsp_response(out.read_bytes()).certificate_status is ocsp.OCSPCertStatus.GOOD
        eventually(lambda: len(runs.read_text().splitlines()) == 2, "it is not run again")
    failing = run("ocsp", "staple", path, "--out", out, "--hook", "exit 3", good=False)
    assert failing.returncode == 1
    assert "the hook failed with 3" in failing.stderr


def test_a_private_key_that_cannot_be_read_is_said_in_words(run: Run, files: Files) -> None:
    path, how = certified(run, files)
    bad = files.put("bad.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    failing = run("cert", "renew", path, *how[:4], "--key-file", bad, "--now", good=False)
    assert failing.returncode == 1
    assert "holds no private key" in failing.stderr
    assert "AAAA" not in failing.stderr


def test_followed_files_stay_fresh(daemon: Daemon, run: Run, files: Files) -> None:
    """A certificate of half a minute, the OCSP answer of another, and what to trust."""
    short, staple, bundle = (files.folder / name for name in ("short.pem", "staple.der", "bundle.pem"))
    run("key", "create", "followed", "-a", "ecdsa-p256")
    names = ("--key", "followed", "--name", "dns:web.example.org")
    run("cert", "issue", "issuing", "-p", "short", *names, "--out", short)
    first = x509.load_pem_x509_certificate(short.read_bytes())
    commands = [
        ("cert", "renew", short, "--authority", "issuing", "-p", "short", "--key", "followed", "--follow"),
        ("ocsp", "staple", short, "--out", staple, "--follow"),
        ("ca", "bundle", "--out", bundle, "--follow"),
    ]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "hsmsign", *map(str, words)],
            env={**os.environ, "HSMSIGN_CLIENT": str(daemon.folder / "client.toml")},
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for words in commands
    ]
    try:
        eventually(lambda: staple.exists() and bundle.exists(), "nothing was written")
        answer = ocsp.load_der_ocsp_response(staple.read_bytes())
        assert answer.certificate_status is ocsp.OCSPCertStatus.GOOD
        one = bundle.read_text()
        run("ca", "init", "second-root", "--subject", "CN=Second Root")
        eventually(lambda: bundle.read_text() != one, "the bundle was not written anew")
        renewed = eventually(
            lambda: new if (new := x509.load_pem_x509_certificate(short.read_bytes())) != first else None,
            "it was not renewed",
        )
        assert renewed.public_key() == first.public_key()
        assert all(process.poll() is None for process in running)
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
            process.communicate()

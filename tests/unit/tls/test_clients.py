"""Clients that a server takes, and those that were revoked."""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509 import ocsp

from hsmsign.model.errors import ConfigurationError, UnauthenticatedError, UnavailableError
from hsmsign.tls.clients import check_client, crls_until, require_clients
from hsmsign.tls.ocsp import from_responder
from hsmsign.tls.sni import Follower, Host, ServerNames
from tests.support.daemon import eventually
from tests.support.tls_serving import Certificates, ask, serving
from tests.support.tls_site import handshake

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture
def files(tmp_path: Path) -> Certificates:
    made = Certificates(tmp_path)
    made.issue("web", "localhost")
    for name in ("green", "orange"):
        made.issue(name, f"uri:spiffe://example.org/{name}")
    revoke(made)
    return made


def leaf(files: Certificates, name: str) -> bytes:
    return files.chain(name).partition(files.authority.pem)[0]


def revoke(files: Certificates, *names: str, lasts: float = 3600) -> None:
    """Put a new CRL in the place of the old one."""
    aside = files.folder / "new.crl"
    aside.write_bytes(files.authority.crl(*(leaf(files, one) for one in names), lasts=dt.timedelta(seconds=lasts)))
    aside.replace(files.folder / "clients.crl")


def make(files: Certificates) -> Callable[[], ssl.SSLContext]:
    def context() -> ssl.SSLContext:
        made = files.server("web")
        require_clients(made, files.folder / "ca.pem", files.folder / "clients.crl")
        return made

    return context


@pytest.mark.parametrize("newest", VERSIONS)
def test_a_revoked_client_is_refused_and_its_sessions_end(files: Certificates, newest: ssl.TLSVersion) -> None:
    names = ServerNames([Host((), make(files))])
    green, orange = files.client("green", newest), files.client("orange", newest)
    with serving(names.context) as port:
        first, other = ask(port, green), ask(port, orange)
        assert first.words == ["new", "green", "CERT_REQUIRED"]
        assert ask(port, green, session=first.session).words[0] == "resumed"
        revoke(files, "green")
        names.reload()
        with pytest.raises(OSError):
            ask(port, green)
        with pytest.raises(OSError):
            ask(port, green, session=first.session)
        again = ask(port, orange, session=other.session)
        assert again.words[:2] == ["new", "orange"]
        assert ask(port, orange, session=again.session).words[:2] == ["resumed", "orange"]


def test_a_crl_is_followed_while_the_server_runs(files: Certificates) -> None:
    names = ServerNames([Host((), make(files))])
    green = files.client("green")
    follower = Follower(names, [files.folder / "clients.crl"], look_every=0.02)

    def refused() -> bool:
        try:
            ask(port, green)
        except OSError:
            return True
        return False

    try:
        with serving(names.context) as port:
            assert not refused()
            revoke(files, "green")
            eventually(refused)
            assert ask(port, files.client("orange")).words[1] == "orange"
    finally:
        follower.stop()


@pytest.mark.parametrize("newest", VERSIONS)
def test_nobody_is_let_in_by_a_crl_that_is_out_of_date(files: Certificates, newest: ssl.TLSVersion) -> None:
    ahead = [0.0]
    now = dt.datetime.now(dt.UTC).timestamp()
    names = ServerNames([Host((), make(files))], clock=lambda: now + ahead[0])
    with serving(names.context) as port:
        green = files.client("green", newest)
        first = ask(port, green)
        assert ask(port, green, session=first.session).words[0] == "resumed"
        ahead[0] = 3700.0
        # OpenSSL's clock says that it is good, so that the handshake goes well: but it is one
        assert ask(port, green, session=first.session).words[0] == "new"
        revoke(files, lasts=-60)
        ahead[0] = 0.0
        names.reload()
        for session in (None, first.session):
            with pytest.raises(OSError):
                ask(port, green, session=session)


def test_a_ca_without_a_crl_lets_nobody_in(files: Certificates, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Certificates(tmp_path / "other", "other")
    other.issue("blue", "uri:spiffe://example.org/blue")
    (files.folder / "both.pem").write_bytes(files.authority.pem + other.authority.pem)
    context = files.server("web")
    require_clients(context, files.folder / "both.pem", files.folder / "clients.crl")
    client = files.client()
    client.load_cert_chain(other.folder / "blue.pem", other.folder / "blue.key")
    with serving(context) as port:
        assert ask(port, files.client("green")).words[1] == "green"
        with pytest.raises(OSError):
            ask(port, client)


def test_without_a_crl_every_client_of_the_ca_is_let_in(files: Certificates) -> None:
    context = files.server("web")
    require_clients(context, files.folder / "ca.pem")
    assert crls_until(context) is None
    with serving(context) as port:
        assert ask(port, files.client("green")).words[1] == "green"
        with pytest.raises(OSError):
            ask(port, files.client())


def test_health_says_until_when_the_crls_hold(files: Certificates) -> None:
    until = crls_until(make(files)())
    crl = x509.load_pem_x509_crl((files.folder / "clients.crl").read_bytes())
    assert until == crl.next_update_utc


def test_what_cannot_be_believed_is_refused_when_it_is_read(files: Certificates, tmp_path: Path) -> None:
    context, ca, crl = files.server("web"), files.folder / "ca.pem", files.folder / "clients.crl"
    (tmp_path / "other").mkdir()
    other = Certificates(tmp_path / "other", "other").authority
    for content, words in (
        (b"", "no CRL in the file"),
        (other.crl(), "signed by none of the client CAs"),
        (crl.read_bytes().replace(b"MI", b"XX", 1), "cannot be read"),
    ):
        crl.write_bytes(content)
        with pytest.raises(ConfigurationError, match=words):
            require_clients(context, ca, crl)
    with pytest.raises(ConfigurationError, match="No such file"):
        require_clients(context, ca, files.folder / "none.crl")
    with pytest.raises(ConfigurationError, match="no certificates in PEM"):
        require_clients(context, crl)
    assert context.verify_mode is ssl.CERT_NONE


def test_a_client_can_be_asked_about_after_its_handshake(files: Certificates) -> None:
    context = files.server("web")
    require_clients(context, files.folder / "ca.pem")
    theirs, _ = handshake(context, files.client("green"))
    good = files.answer(leaf(files, "green"))
    assert check_client(theirs, files.authority.pem, lambda _: good).der == good
    for bad, words in (
        (files.answer(leaf(files, "green"), ocsp.OCSPCertStatus.REVOKED), "CN=green is not known to be good.*revoked"),
        (files.answer(leaf(files, "orange")), "another certificate"),
    ):
        with pytest.raises(UnauthenticatedError, match=words):
            check_client(theirs, files.authority.pem, lambda _, bad=bad: bad)
    with pytest.raises(ConfigurationError, match="names no OCSP responder"):
        check_client(theirs, files.authority.pem)
    with pytest.raises(UnavailableError):
        check_client(theirs, files.authority.pem, from_responder("http://127.0.0.1:1/"))
    nobody, _ = handshake(files.server("web"), files.client("green"))
    with pytest.raises(UnauthenticatedError, match="did not prove"):
        check_client(nobody, files.authority.pem, lambda _: good)

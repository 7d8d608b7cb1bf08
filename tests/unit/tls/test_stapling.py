"""OCSP answers beside the certificate: which are sent, until when, and how they are kept fresh."""

from __future__ import annotations

import contextlib
import datetime as dt
import gc
import http.server
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID

from hsmsign.model.errors import ConfigurationError, StapleError, UnauthenticatedError, UnavailableError
from hsmsign.tls import native
from hsmsign.tls.stapling import Stapler, ask_for_staples, check_staple, from_file, from_responder, staple, staple_of
from tests.support.authority import Authority
from tests.support.daemon import eventually
from tests.support.tls_serving import MUST_STAPLE, SIGNS_OCSP, Certificates, ask, s_client, serving
from tests.support.tls_site import handshake

GOOD, REVOKED, UNKNOWN = ocsp.OCSPCertStatus.GOOD, ocsp.OCSPCertStatus.REVOKED, ocsp.OCSPCertStatus.UNKNOWN


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    made = Certificates(tmp_path_factory.mktemp("ca"))
    made.issue("web", "localhost")
    made.issue("strict", "localhost", extensions=[MUST_STAPLE])
    return made


def leaf(files: Certificates, name: str = "web") -> bytes:
    return files.chain(name).partition(files.authority.pem)[0]


def wishing(files: Certificates, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = files.client(newest=newest)
    ask_for_staples(context)
    return context


def stapled(server: ssl.SSLContext, client: ssl.SSLContext) -> bytes | None:
    """What a client gets."""
    _, ours = handshake(server, client)
    assert ours.version() is not None
    return staple_of(ours)


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_that_asks_gets_the_answer_that_is_in_force(files: Certificates, newest: ssl.TLSVersion) -> None:
    server, client = files.server("web"), wishing(files, newest)
    assert stapled(server, client) is None
    first, second = (files.answer(leaf(files), until=until) for until in (600, 700))
    assert staple(server, first, files.chain("web")).next_update > dt.datetime.now(dt.UTC)
    assert stapled(server, client) == first
    staple(server, second, files.chain("web"))
    assert stapled(server, client) == second
    assert staple_of(handshake(server, files.client())[1]) is None  # which did not ask


def test_openssl_believes_what_is_stapled(files: Certificates) -> None:
    server = files.server("web")
    with serving(server) as port:
        assert "OCSP response: no response sent" in s_client(port, "-status")
        staple(server, files.answer(leaf(files)), files.chain("web"))
        for version in ("-tls1_2", "-tls1_3"):
            said = s_client(port, "-status", version, "-CAfile", files.folder / "ca.pem")
            assert "OCSP Response Status: successful (0x0)" in said
            assert "Cert Status: good" in said
            assert "Verify return code: 0 (ok)" in said


def test_each_connection_has_its_own_staple(files: Certificates) -> None:
    server, client = files.server("web"), wishing(files)
    answers = [files.answer(leaf(files), until=600 + number) for number in range(5)]
    connections = []
    for answer in answers:
        staple(server, answer, files.chain("web"))
        connections.append(handshake(server, client))
    assert [staple_of(ours) for _, ours in connections] == answers
    del connections[2], answers[2]
    gc.collect()
    assert [staple_of(ours) for _, ours in connections] == answers


def test_a_socket_tells_too(files: Certificates) -> None:
    server = files.server("web")
    answer = files.answer(leaf(files))
    staple(server, answer, files.chain("web"))
    with serving(server) as port:
        assert staple_of(ask(port, wishing(files)).connection) is None  # it is closed, and its answer gone
        assert stapled(server, wishing(files)) == answer


def refusal(files: Certificates, answer: bytes) -> str:
    server = files.server("web")
    with pytest.raises(StapleError) as caught:
        staple(server, answer, files.chain("web"))
    assert stapled(server, wishing(files)) is None
    return caught.value.message


def test_only_answers_that_help_a_client_are_stapled(files: Certificates, tmp_path: Path) -> None:
    pem = leaf(files)
    other = Certificates(tmp_path, "other")
    assert "revoked" in refusal(files, files.answer(pem, REVOKED))
    assert "does not know the certificate" in refusal(files, files.answer(pem, UNKNOWN))
    assert "it held until" in refusal(files, files.answer(pem, since=-7200, until=-3600))
    assert "of the future" in refusal(files, files.answer(pem, since=1800))
    assert "does not say until when" in refusal(files, files.answer(pem, until=None))
    assert "about another certificate" in refusal(files, files.answer(leaf(files, "strict")))
    assert "signed neither by" in refusal(files, other.answer(pem, issuer=files.authority.certificate))
    assert "signed neither by" in refusal(files, files.answer(pem, issuer=other.authority.certificate))
    assert "cannot be read" in refusal(files, b"")
    assert "cannot be read" in refusal(files, files.answer(pem) + b"\x00")
    later = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER)
    assert "refused (tryLater)" in refusal(files, later.public_bytes(Encoding.DER))
    changed = bytearray(files.answer(pem))
    changed[-1] ^= 1
    assert "signed neither by" in refusal(files, bytes(changed))


def test_a_delegate_answers_only_if_its_issuer_said_so(files: Certificates, tmp_path: Path) -> None:
    pem = leaf(files)
    delegate = files.authority.issue(subject="responder", extensions=[SIGNS_OCSP])
    plain = files.authority.issue(subject="web server")
    stranger = Certificates(tmp_path, "other").authority.issue(subject="responder", extensions=[SIGNS_OCSP])
    past = files.authority.issue(subject="old", lasts=dt.timedelta(minutes=-1), extensions=[SIGNS_OCSP])
    staple(files.server("web"), files.answer(pem, by=delegate), files.chain("web"))
    for by in (plain, stranger, past):
        assert "signed neither by" in refusal(files, files.answer(pem, by=by))


def test_an_answer_may_name_its_certificate_by_another_hash(files: Certificates) -> None:
    staple(files.server("web"), files.answer(leaf(files), hash=hashes.SHA256()), files.chain("web"))


def test_an_answer_that_is_out_of_date_is_not_sent(files: Certificates) -> None:
    server, client = files.server("web"), wishing(files)
    answer = files.answer(leaf(files), until=2)
    until = staple(server, answer, files.chain("web")).next_update
    assert stapled(server, client) == answer
    while dt.datetime.now(dt.UTC) < until:
        time.sleep(0.1)
    assert stapled(server, client) is None


def test_a_chain_of_another_certificate_is_refused(files: Certificates) -> None:
    answer = files.answer(leaf(files))
    with pytest.raises(ConfigurationError, match="another certificate"):
        staple(files.server("strict"), answer, files.chain("web"))
    with pytest.raises(ConfigurationError, match="issuer"):
        staple(files.server("web"), answer, leaf(files))
    staple(files.server("web"), answer, leaf(files), issuer=files.authority.pem)
    with pytest.raises(ConfigurationError, match="no certificate"):
        staple(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), answer, files.chain("web"))
    with pytest.raises(TypeError):
        staple(object(), answer, files.chain("web"))  # type: ignore[arg-type]


def test_an_answer_is_not_sent_with_the_certificate_that_came_after(files: Certificates) -> None:
    server, client = files.server("web"), wishing(files)
    staple(server, files.answer(leaf(files)), files.chain("web"))
    server.load_cert_chain(files.folder / "strict.pem", files.folder / "strict.key")
    assert stapled(server, client) is None


def test_contexts_and_connections_take_their_answers_with_them(files: Certificates) -> None:
    for _ in range(50):
        server, client = files.server("web"), wishing(files)
        staple(server, files.answer(leaf(files)), files.chain("web"))
        theirs, ours = handshake(server, client)
        del server, client
        gc.collect()
        assert staple_of(ours) is not None
        del theirs, ours


def test_a_file_that_is_replaced_is_stapled(files: Certificates, tmp_path: Path) -> None:
    server, client, path = files.server("web"), wishing(files), tmp_path / "web.ocsp"
    first, second = (files.answer(leaf(files), until=until) for until in (600, 700))
    path.write_bytes(first)
    with Stapler(server, files.chain("web"), from_file(path), look_every=0.02) as stapler:
        assert stapled(server, client) == first
        assert stapler.health().stapled
        path.write_bytes(b"no answer")
        eventually(lambda: "cannot be read" in stapler.health().error)
        assert stapled(server, client) == first
        assert stapler.health().ok
        path.write_bytes(second)
        eventually(lambda: stapled(server, client) == second)
        assert stapler.health().error == ""


def test_an_older_answer_does_not_take_the_place_of_a_newer_one(files: Certificates) -> None:
    server, client = files.server("web"), wishing(files)
    newer, older = (files.answer(leaf(files), since=since) for since in (-60, -600))
    given = [newer, older, older, newer]
    stapler = Stapler(server, files.chain("web"), lambda _: given.pop(0))
    for _ in range(3):
        stapler._renew()
        assert stapled(server, client) == newer


def test_a_revoked_certificate_is_no_longer_said_to_be_good(files: Certificates) -> None:
    server, client = files.server("web"), wishing(files)
    given = [files.answer(leaf(files)), files.answer(leaf(files), REVOKED)]
    stapler = Stapler(server, files.chain("web"), lambda _: given.pop(0))
    stapler._renew()
    assert stapled(server, client) is not None
    stapler._renew()
    assert stapled(server, client) is None
    assert "revoked" in stapler.health().error


def test_a_certificate_that_promises_a_staple_is_not_served_without(files: Certificates, tmp_path: Path) -> None:
    server, path = files.server("strict"), tmp_path / "strict.ocsp"
    stapler = Stapler(server, files.chain("strict"), from_file(path))
    with pytest.raises(StapleError, match=r"CN=strict must come with an OCSP answer \(RFC 7633\).*cannot read"):
        stapler.start()
    health = stapler.health()
    assert (health.ok, health.stapled, health.must_staple) == (False, False, True)
    path.write_bytes(files.answer(leaf(files, "strict")))
    with Stapler(server, files.chain("strict"), from_file(path)) as stapler:
        assert stapler.health().ok
        assert stapled(server, wishing(files)) == path.read_bytes()


def test_health_says_that_a_promised_staple_is_out_of_date(files: Certificates) -> None:
    ahead = [0.0]
    server, answer = files.server("strict"), files.answer(leaf(files, "strict"), until=3600)
    stapler = Stapler(server, files.chain("strict"), lambda _: answer, clock=lambda: time.time() + ahead[0])
    with stapler:
        assert stapler.health().ok
        ahead[0] = 4000.0
        assert not stapler.health().ok
        stapler._renew()
        assert "it held until" in stapler.health().error


def test_another_certificate_is_served_without_and_health_says_why(files: Certificates) -> None:
    def fails(_: object) -> bytes:
        raise RuntimeError("a fetch of somebody else")

    server = files.server("web")
    with Stapler(server, files.chain("web"), fails) as stapler:
        health = stapler.health()
        assert (health.ok, health.stapled, health.error) == (True, False, "a fetch of somebody else")


def test_the_thread_ends_with_its_context(files: Certificates) -> None:
    server = files.server("web")
    stapler = Stapler(server, files.chain("web"), lambda _: files.answer(leaf(files))).start()
    gone = weakref.ref(server)
    del server
    gc.collect()
    assert gone() is None
    thread = stapler._thread
    assert thread is not None
    thread.join(10)
    assert not thread.is_alive()


@contextmanager
def responder(answer: Callable[[bytes], tuple[int, bytes]], pause: float = 0.0) -> Iterator[str]:
    """An OCSP responder; `pause` is in seconds, after each byte."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, body = answer(self.rfile.read(int(self.headers["Content-Length"])))
            with contextlib.suppress(ConnectionError):  # who asked has gone
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                for piece in (body[at : at + 1] for at in range(len(body))) if pause else (body,):
                    self.wfile.write(piece)
                    time.sleep(pause)

        def log_message(self, *words: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()


def test_the_responder_that_the_certificate_names_is_asked(files: Certificates) -> None:
    asked: list[ocsp.OCSPRequest] = []
    pems: list[bytes] = []

    def answer(request: bytes) -> tuple[int, bytes]:
        asked.append(ocsp.load_der_ocsp_request(request))
        return 200, files.answer(pems[0])

    with responder(answer) as url:
        place = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(url))
        pems.append(files.issue("asking", "localhost", extensions=[x509.AuthorityInformationAccess([place])]))
        server = files.server("asking")
        with Stapler(server, files.chain("asking")) as stapler:
            assert stapler.health().stapled
            assert stapled(server, wishing(files)) is not None
    assert [one.serial_number for one in asked] == [x509.load_pem_x509_certificate(pems[0]).serial_number]


def test_a_responder_that_fails_is_named(files: Certificates) -> None:
    server = files.server("web")
    with responder(lambda _: (503, b"")) as url:
        stapler = Stapler(server, files.chain("web"), from_responder(url))
        stapler._renew()
        assert f"{url} answers 503" in stapler.health().error
        assert stapler._pause.left > 0
    stapler._renew()
    assert f"{url} cannot be asked" in stapler.health().error
    without = Stapler(server, files.chain("web"))
    without._renew()
    assert "names no OCSP responder" in without.health().error
    with pytest.raises(ConfigurationError):
        from_responder("file:///etc/passwd")


def test_a_silent_responder_holds_nobody_up_for_long(files: Certificates) -> None:
    wait = threading.Event()

    def hang(_: bytes) -> tuple[int, bytes]:
        wait.wait(20)
        return 500, b""

    server = files.server("web")
    with responder(hang) as url:
        stapler = Stapler(server, files.chain("web"), from_responder(url, seconds=0.1))
        assert isinstance(stapler._renew(), UnavailableError)
        wait.set()


def test_a_responder_that_answers_byte_by_byte_is_not_waited_for(files: Certificates) -> None:
    server, answer = files.server("web"), files.answer(leaf(files))
    with responder(lambda _: (200, answer), pause=0.02) as url:
        stapler = Stapler(server, files.chain("web"), from_responder(url, seconds=0.2))
        stapler._renew()
        assert "it answers too slowly" in stapler.health().error


def test_handshakes_go_on_while_answers_change(files: Certificates) -> None:
    server, client = files.server("web"), wishing(files)
    answers = [files.answer(leaf(files), until=600 + number) for number in range(2)]
    chain, over = files.chain("web"), threading.Event()

    def swap() -> None:
        while not over.is_set():
            for answer in answers:
                staple(server, answer, chain)

    staple(server, answers[0], chain)
    thread = threading.Thread(target=swap)
    thread.start()
    try:
        assert {stapled(server, client) for _ in range(200)} <= set(answers)
    finally:
        over.set()
        thread.join()


def test_an_authority_of_the_same_name_and_another_key_is_another(files: Certificates) -> None:
    twin = Authority("ca")
    pem = leaf(files)
    with pytest.raises(ConfigurationError, match="issuer"):
        staple(files.server("web"), files.answer(pem), pem, issuer=twin.pem)


def test_a_client_checks_what_was_stapled(files: Certificates) -> None:
    ca = files.authority.pem
    for name in ("web", "strict"):
        server, client = files.server(name), wishing(files)
        if name == "web":
            assert check_staple(handshake(server, client)[1], ca) is None
        else:
            with pytest.raises(StapleError, match="promises an OCSP answer"):
                check_staple(handshake(server, client)[1], ca)
        staple(server, files.answer(leaf(files, name)), files.chain(name))
        found = check_staple(handshake(server, client)[1], ca)
        assert found is not None
        assert found.der == staple_of(handshake(server, client)[1])
    # what an honest server would not send
    native.put_staple(server, files.answer(leaf(files)), 4e9, ssl.PEM_cert_to_DER_cert(leaf(files, "strict").decode()))
    with pytest.raises(StapleError, match="about another certificate"):
        check_staple(handshake(server, client)[1], ca)
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(UnauthenticatedError):
        check_staple(handshake(server, blind)[1], ca)

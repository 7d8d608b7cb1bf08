"""Rights on a real wsgiref, and what other servers put into the environ."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest

from hsmsign.tls.rules import Rules
from hsmsign.tls.wsgi import PeerHandler, RightsMiddleware
from tests.support.tls_site import GREEN, ORANGE, Site, handshake, running


class Handler(PeerHandler, WSGIRequestHandler):
    def log_message(self, *_) -> None:
        """Quiet."""


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


def app(environ, start_response):
    start_response("200 OK", [("content-type", "text/plain")])
    return [f"{environ['hsmsign.peer'].name} {environ['wsgi.url_scheme']}".encode()]


@pytest.fixture(scope="module")
def port(site: Site, rules: Rules) -> Iterator[int]:
    server = make_server("localhost", 0, RightsMiddleware(app, rules), Server, Handler)
    server.socket = site.server().wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    with running(server.serve_forever, server.shutdown):
        yield server.server_port
    server.server_close()


def test_green_writes_and_orange_reads(port: int, site: Site) -> None:
    assert site.ask(port, "green", "POST", "/articles/1")[::2] == (200, f"{GREEN} https".encode())
    assert site.ask(port, "orange", "GET", "/articles/1?a=b")[::2] == (200, f"{ORANGE} https".encode())
    status, headers, body = site.ask(port, "orange", "POST", "/articles/1")
    assert (status, headers["content-type"]) == (403, "application/problem+json")
    assert json.loads(body)["detail"] == f"{ORANGE} may not POST /articles/1"


def test_who_has_no_certificate_is_told_so_and_headers_prove_nothing(port: int, site: Site) -> None:
    pem = site.pair("green")[1].decode().replace("\n", "%0A")
    for forged in ({}, {"SSL-Client-Cert": pem, "SSL_CLIENT_VERIFY": "SUCCESS", "hsmsign.peer": GREEN}):
        status, headers, _ = site.ask(port, "", "GET", "/articles/1", forged)
        assert (status, headers["www-authenticate"]) == (401, "ClientCertificate")


@pytest.mark.parametrize(
    "target", ["/articles/../prices", "/articles/%2e%2e/prices", "/articles%2f1", "/articles//1", "/articles/%ff"]
)
def test_a_path_that_may_mean_several_things_is_refused(port: int, site: Site, target: str) -> None:
    assert site.ask(port, "green", "GET", target)[0] == 403


def test_a_refused_head_has_no_content(rules: Rules) -> None:
    sent = []
    for method in ("HEAD", "GET"):
        environ = {"REQUEST_METHOD": method, "PATH_INFO": "/articles/1"}
        sent.append(b"".join(RightsMiddleware(app, rules)(environ, lambda *_: None)))
    assert sent[0] == b""
    assert json.loads(sent[1])["status"] == 401


def ask(rules: Rules, environ: dict, **options: bool) -> str:
    """The status that a server other than wsgiref would send."""
    said = []
    asked = {"REQUEST_METHOD": "POST", "SCRIPT_NAME": "/articles", "PATH_INFO": "/1", **environ}
    list(RightsMiddleware(app, rules, **options)({"wsgi.url_scheme": "https", **asked}, lambda *a: said.append(a[0])))
    return said[0][:3]


@pytest.mark.parametrize("key", ["gunicorn.socket", "werkzeug.socket"])
def test_the_connection_is_found_where_servers_put_it(rules: Rules, site: Site, key: str) -> None:
    verified, _ = handshake(site.server(), site.client("green"))
    assert ask(rules, {key: verified}) == "200"
    assert ask(rules, {key: verified, "RAW_URI": "/articles%2f1"}) == "403"
    anonymous, _ = handshake(site.server(ssl.CERT_OPTIONAL), site.client())
    assert ask(rules, {key: anonymous}) == "401"
    assert ask(rules, {}) == "401"


def test_a_peer_in_the_environ_is_not_believed(rules: Rules) -> None:
    assert ask(rules, {"hsmsign.peer": GREEN}) == "401"


def test_the_word_of_a_web_server_is_taken_only_where_that_was_said(rules: Rules, site: Site) -> None:
    pem = site.pair("green")[1].decode()
    said = {"SSL_CLIENT_CERT": pem, "SSL_CLIENT_VERIFY": "SUCCESS"}
    assert ask(rules, said) == "401"
    assert ask(rules, said, trust_environ=True) == "200"
    assert ask(rules, {**said, "SSL_CLIENT_VERIFY": "FAILED:expired"}, trust_environ=True) == "401"
    assert ask(rules, {"SSL_CLIENT_CERT": pem}, trust_environ=True) == "401"
    assert ask(rules, {"SSL_CLIENT_VERIFY": "SUCCESS"}, trust_environ=True) == "401"

"""Certificates on the word of a platform's token, through the daemon."""

from __future__ import annotations

import ipaddress
import json
import ssl
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from hsmsign.model.errors import (
    IdentityTokenError,
    IdentityUnavailableError,
    ProfileError,
    TokenSpentError,
)
from tests.support.authority import Authority
from tests.support.daemon import Daemon, eventually
from tests.support.pki import make_csr, make_hierarchy, with_ca
from tests.support.token_issuer import AUDIENCE, TokenIssuer

CA = """
[profiles.node]
base = "server"
identity = ["cloud"]
names.dns = ["*.shop.internal"]

[profiles.server]
names.dns = ["*.example.org"]

[identity.cloud]
kind = "oidc"
issuer = "ISSUER"
jwks_url = "JWKS"
audience = "AUDIENCE"
algorithms = ["ES256"]
required = { project = ["shop"] }
claims = { instance_name = "instance.name", project = "instance.project" }
names.dns = ["{instance_name}.{project}.internal"]
"""


@pytest.fixture(scope="module")
def issuer() -> Iterator[TokenIssuer]:
    with TokenIssuer() as running:
        yield running


@pytest.fixture(scope="module")
def daemon(issuer: TokenIssuer) -> Iterator[Daemon]:
    text = CA.replace("ISSUER", issuer.url).replace("JWKS", issuer.jwks_url).replace("AUDIENCE", AUDIENCE)
    running = with_ca(text)(Daemon())
    running.configure(lambda config: config.replace('[enroll]\nlisten = ""', '[enroll]\nlisten = "127.0.0.1:0"'))
    with (running.folder / "policy.toml").open("a") as policy:
        policy.write('[[allow]]\nprincipals = ["token:cloud:node-*"]\nactions = ["issue"]\nkeys = ["issuing"]\n')
    running.start()
    with running.client() as client:
        make_hierarchy(client)
    yield running
    running.remove()


def token(issuer: TokenIssuer, **more: Any) -> str:
    """Of the machine node-1."""
    instance = {"name": "node-1", "project": "shop"}
    given = {"instance": instance, "sub": "node-1", "jti": str(uuid.uuid4()), **more}
    return issuer.token(issuer.claims(**given))


def test_a_token_says_which_name_a_machine_may_have(daemon: Daemon, issuer: TokenIssuer) -> None:
    with daemon.client() as client:
        made = client.ca.issue("issuing", make_csr(), profile="node", identity_token=token(issuer))
        assert made.names == ("dns:node-1.shop.internal",)
        assert made.identity == "token:cloud:node-1"
        asked = make_csr("node-1.shop.internal")
        assert client.ca.issue("issuing", asked, profile="node", identity_token=token(issuer)).names == made.names
        with pytest.raises(ProfileError, match="node-2"):
            client.ca.issue("issuing", make_csr("node-2.shop.internal"), profile="node", identity_token=token(issuer))


def test_a_token_is_used_once_and_a_refused_request_does_not_use_it(daemon: Daemon, issuer: TokenIssuer) -> None:
    used, again = token(issuer), str(uuid.uuid4())
    with daemon.client() as client:
        with pytest.raises(ProfileError):
            client.ca.issue("issuing", make_csr("www.example.com"), profile="node", identity_token=used)
        csr = make_csr()
        made = client.ca.issue("issuing", csr, profile="node", identity_token=used, request_id=again)
        # the same request, whose answer was lost
        assert client.ca.issue("issuing", csr, profile="node", identity_token=used, request_id=again) == made
        with pytest.raises(TokenSpentError):
            client.ca.issue("issuing", make_csr(), profile="node", identity_token=used)


def test_a_token_outlives_no_restart_unspent(daemon: Daemon, issuer: TokenIssuer) -> None:
    used = token(issuer)
    with daemon.client() as client:
        client.ca.issue("issuing", make_csr(), profile="node", identity_token=used)
    daemon.stop()
    daemon.start()
    with daemon.client() as client, pytest.raises(TokenSpentError):
        client.ca.issue("issuing", make_csr(), profile="node", identity_token=used)


def test_bad_tokens_vouch_for_nothing(daemon: Daemon, issuer: TokenIssuer) -> None:
    wrong = {
        "audience": token(issuer, aud="https://other.example.org"),
        "expired": token(issuer, exp=1_000_000_000),
        "claims": token(issuer, instance={"name": "node-1", "project": "other"}),
        "garbage": "eyJhbGciOiJub25lIn0.e30.",
    }
    with daemon.client() as client:
        for name, bad in wrong.items():
            with pytest.raises(IdentityTokenError):
                client.ca.issue("issuing", make_csr(), profile="node", identity_token=bad)
            assert bad not in daemon.log(), name
        records = [json.loads(record) for _, record in client.audit_records(last=8)]
    assert len([one for one in records if one.get("outcome") == "IDENTITY_TOKEN_INVALID"]) == 4
    assert not any(bad in json.dumps(records) for bad in wrong.values())


def test_a_profile_that_wants_a_token_gets_one_and_others_get_none(daemon: Daemon, issuer: TokenIssuer) -> None:
    with daemon.client() as client:
        with pytest.raises(ProfileError, match="identity token"):
            client.ca.issue("issuing", make_csr("node-1.shop.internal"), profile="node")
        csr = make_csr("web.example.org")
        with pytest.raises(ProfileError, match="takes no identity tokens"):
            client.ca.issue("issuing", csr, profile="server", identity_token=token(issuer))


def test_keys_turn_and_an_issuer_goes_away(daemon: Daemon, issuer: TokenIssuer) -> None:
    with daemon.client() as client:
        issuer.reachable = False
        try:
            known = client.ca.issue("issuing", make_csr(), profile="node", identity_token=token(issuer))
            assert known.names == ("dns:node-1.shop.internal",)
        finally:
            issuer.reachable = True


def test_an_issuer_that_was_never_reached_is_a_delay_not_a_yes(new_daemon, issuer: TokenIssuer) -> None:  # type: ignore[no-untyped-def]
    text = CA.replace("ISSUER", issuer.url).replace("JWKS", "http://127.0.0.1:1/jwks").replace("AUDIENCE", AUDIENCE)
    fresh = with_ca(text)(new_daemon()).start()
    with fresh.client() as client:
        make_hierarchy(client)
        with pytest.raises(IdentityUnavailableError):
            client.ca.issue("issuing", make_csr(), profile="node", identity_token=token(issuer))


def enroll(daemon: Daemon, body: object, path: str = "/enroll") -> tuple[int, dict[str, Any]]:
    """What HTTPS answers to somebody without a certificate."""
    context = ssl.create_default_context(cafile=daemon.folder / "tls" / "ca.pem")
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"https://{daemon.endpoints['enroll']}{path}", data)
    try:
        with urllib.request.urlopen(request, timeout=20, context=context) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        content = error.read()
        return error.code, json.loads(content) if content.startswith(b"{") else {}


def wanted(issuer: TokenIssuer, **more: object) -> dict[str, object]:
    csr = make_csr().public_bytes(Encoding.PEM).decode()
    return {"authority": "issuing", "profile": "node", "csr": csr, "token": token(issuer), **more}


def test_who_has_a_token_and_nothing_else_gets_a_certificate_over_https(daemon: Daemon, issuer: TokenIssuer) -> None:
    asked = wanted(issuer, validity_seconds=600)
    status, answer = enroll(daemon, asked)
    assert status == 200, answer
    leaf, above = x509.load_pem_x509_certificates(answer["certificate"].encode())
    leaf.verify_directly_issued_by(above)
    assert f"{leaf.serial_number:x}" == answer["serial"]
    with daemon.client() as client:
        made = client.ca.certificate(answer["serial"])
        assert (made.requester, made.names) == ("token:cloud:node-1", ("dns:node-1.shop.internal",))
        records = [json.loads(record) for _, record in client.audit_records(last=4)]
    assert ("Enroll", "token:cloud:node-1", "OK") in [
        (one.get("method"), one.get("principal"), one.get("outcome")) for one in records
    ]
    assert enroll(daemon, asked)[1]["error"]["reason"] == "IDENTITY_TOKEN_SPENT"


def test_https_refuses_in_words_and_with_a_status(daemon: Daemon, issuer: TokenIssuer) -> None:
    refused = {
        "INVALID_ARGUMENT": (400, wanted(issuer, token="")),
        "IDENTITY_TOKEN_INVALID": (403, wanted(issuer, token=token(issuer, aud="https://elsewhere"))),
        "PERMISSION_DENIED": (403, wanted(issuer, token=token(issuer, sub="other-1"))),
        "PROFILE_NOT_FOUND": (404, wanted(issuer, profile="nothing")),
        "PROFILE_MISMATCH": (400, wanted(issuer, profile="server")),
        "CSR_INVALID": (400, wanted(issuer, csr="nonsense")),
    }
    for reason, (code, body) in refused.items():
        status, answer = enroll(daemon, body)
        assert (status, answer["error"]["reason"]) == (code, reason)
        assert str(body["token"]) not in json.dumps(answer) or not body["token"]
    for bad in (b"", b"[]", b"{", b'{"authority": 1}', b'{"surprise": ""}', b"[" * 100_000):
        assert enroll(daemon, bad)[0] == 400, bad[:20]
    assert enroll(daemon, bytes(200_000))[0] == 413
    assert enroll(daemon, b"{}", "/other")[0] == 404
    for body in refused.values():
        assert str(body[1]["token"] or "none at all") not in daemon.log()


def test_the_https_port_shows_the_certificate_that_was_renewed(daemon: Daemon, issuer: TokenIssuer) -> None:
    folder = daemon.folder / "tls"

    def seen() -> bytes:
        host, _, port = daemon.endpoints["enroll"].rpartition(":")
        return ssl.get_server_certificate((host, int(port))).encode()

    before, kept = seen(), ((folder / "server.pem").read_bytes(), (folder / "server-key.pem").read_bytes())
    authority = Authority()
    authority.adopt((folder / "ca.pem").read_bytes(), (folder / "ca-key.pem").read_bytes())
    key, certificate = authority.issue(
        x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")), subject="server"
    )
    try:
        (folder / "server-key.pem").write_bytes(key)
        (folder / "server.pem").write_bytes(certificate)
        assert eventually(lambda: new if (new := seen()) != before else None, "it still shows the old one")
        assert enroll(daemon, wanted(issuer))[0] == 200
    finally:
        (folder / "server.pem").write_bytes(kept[0])
        (folder / "server-key.pem").write_bytes(kept[1])

"""Certificates on the word of a platform's token, through the daemon."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from hsmsign.model.errors import (
    IdentityTokenError,
    IdentityUnavailableError,
    ProfileError,
    TokenSpentError,
)
from tests.support.daemon import Daemon
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
    running = with_ca(text)(Daemon()).start()
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

"""Tokens as the platforms document them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from hsmsign.model.errors import IdentityTokenError
from hsmsign.pki.identity.reading import read_issuers
from hsmsign.pki.identity.verifying import Identities, Vouched
from tests.support.token_issuer import TokenIssuer, spki

SPKI = spki(ec.generate_private_key(ec.SECP256R1()))
AUDIENCE = "https://ca.example.org"


@pytest.fixture
def rsa_issuer() -> Iterator[TokenIssuer]:
    """Google, Kubernetes and GitHub sign with RS256."""
    with TokenIssuer("RS256") as found:
        yield found


async def asked(issuer: TokenIssuer, table: dict[str, Any], claims: dict[str, Any]) -> Vouched:
    rules = read_issuers({"platform": {"audience": AUDIENCE, "jwks_url": issuer.jwks_url, **table}})
    now = int(time.time())
    token = issuer.token({"aud": AUDIENCE, "iat": now, "exp": now + 600, **claims})
    return await Identities(rules).verify(token, SPKI)


async def refused(issuer: TokenIssuer, table: dict[str, Any], claims: dict[str, Any]) -> str:
    with pytest.raises(IdentityTokenError) as error:
        await asked(issuer, table, claims)
    return error.value.metadata["check"]


GCE = {
    "iss": "https://accounts.google.com",
    "azp": "111111111111111111111",
    "sub": "111111111111111111111",
    "email": "222222222222-compute@developer.gserviceaccount.com",
    "email_verified": True,
    "google": {
        "compute_engine": {
            "instance_creation_timestamp": 1530000000,
            "instance_id": "3333333333333333333",
            "instance_name": "web-1",
            "instance_confidentiality": 1,
            "license_id": ["1000204"],
            "project_id": "my-project",
            "project_number": 222222222222,
            "zone": "us-central1-a",
        }
    },
}
GCE_TABLE = {
    "kind": "gce",
    "required": {"project_id": ["my-project"]},
    "names": {
        "dns": ["{instance_name}.{zone}.c.{project_id}.internal"],
        "uri": ["spiffe://example.org/gce/{project_number}/{instance_name}"],
        "email": ["{email}"],
    },
}


async def test_an_instance_of_gce_is_vouched_for(rsa_issuer: TokenIssuer) -> None:
    found = await asked(rsa_issuer, GCE_TABLE, GCE)
    assert found.names == (
        x509.DNSName("web-1.us-central1-a.c.my-project.internal"),
        x509.UniformResourceIdentifier("spiffe://example.org/gce/222222222222/web-1"),
        x509.RFC822Name("222222222222-compute@developer.gserviceaccount.com"),
    )
    assert found.principal == "token:platform:111111111111111111111"


async def test_a_token_of_google_that_is_no_instances_is_refused(rsa_issuer: TokenIssuer) -> None:
    assert await refused(rsa_issuer, GCE_TABLE, {**GCE, "google": None}) == "claims"
    flat = {"google.compute_engine.project_id": "my-project", "google": {"compute_engine.project_id": "my-project"}}
    assert await refused(rsa_issuer, GCE_TABLE, {**GCE, **flat}) == "claims"


async def test_an_instance_of_another_project_is_refused(rsa_issuer: TokenIssuer) -> None:
    other = json.loads(json.dumps(GCE).replace("my-project", "evil-project"))
    assert await refused(rsa_issuer, GCE_TABLE, other) == "claims"


KUBERNETES = {
    "iss": "https://kubernetes.default.svc.cluster.local",
    "jti": "aed34954-b33a-4142-b1ec-389d6bbb4936",
    "sub": "system:serviceaccount:shop:web",
    "aud": [AUDIENCE],
    "kubernetes.io": {
        "namespace": "shop",
        "node": {"name": "node-1", "uid": "646e7c5e-32d6-4d42-9dbd-e504e6cbe6b1"},
        "pod": {"name": "web-6d5f", "uid": "5e0bd49b-f040-43b0-99b7-22765a53f7f3"},
        "serviceaccount": {"name": "web", "uid": "14ee3fa4-a7e2-420f-9f9a-dbc4507c3798"},
        "warnafter": 1700081020,
    },
}
KUBERNETES_TABLE = {
    "kind": "kubernetes",
    "issuer": "https://kubernetes.default.svc.cluster.local",
    "required": {"kubernetes.io": {"namespace": ["shop", "bank-*"]}},
    "names": {
        "dns": ["{service_account}.{namespace}.svc.cluster.local"],
        "uri": ["spiffe://cluster.local/ns/{namespace}/sa/{service_account}"],
        "common_name": "{pod} on {node}",
    },
}


async def test_a_service_account_of_kubernetes_is_vouched_for(rsa_issuer: TokenIssuer) -> None:
    found = await asked(rsa_issuer, KUBERNETES_TABLE, KUBERNETES)
    assert [str(one.value) for one in found.names] == [
        "web.shop.svc.cluster.local",
        "spiffe://cluster.local/ns/shop/sa/web",
    ]
    assert found.common_name == "web-6d5f on node-1"
    assert found.principal == "token:platform:system:serviceaccount:shop:web"


async def test_a_service_account_of_another_namespace_is_refused(rsa_issuer: TokenIssuer) -> None:
    claims = {**KUBERNETES, "kubernetes.io": {"namespace": "evil"}, "kubernetes": {"io": {"namespace": "shop"}}}
    assert await refused(rsa_issuer, KUBERNETES_TABLE, claims) == "claims"


async def test_a_token_of_a_service_account_without_pod_cannot_name_one(rsa_issuer: TokenIssuer) -> None:
    inner = {"namespace": "shop", "serviceaccount": {"name": "web", "uid": "14ee3fa4"}}
    assert await refused(rsa_issuer, KUBERNETES_TABLE, {**KUBERNETES, "kubernetes.io": inner}) == "claims"


GITHUB = {
    "iss": "https://token.actions.githubusercontent.com",
    "jti": "example-id",
    "sub": "repo:octo-org/octo-repo:environment:prod",
    "environment": "prod",
    "ref": "refs/heads/main",
    "sha": "example-sha",
    "repository": "octo-org/octo-repo",
    "repository_owner": "octo-org",
    "actor_id": "12",
    "repository_visibility": "private",
    "repository_id": "74",
    "repository_owner_id": "65",
    "run_id": "example-run-id",
    "run_number": "10",
    "run_attempt": "2",
    "runner_environment": "github-hosted",
    "actor": "octocat",
    "workflow": "example-workflow",
    "head_ref": "",
    "base_ref": "",
    "event_name": "workflow_dispatch",
    "ref_type": "branch",
    "job_workflow_ref": "octo-org/octo-automation/.github/workflows/oidc.yml@refs/heads/main",
}
GITHUB_TABLE = {
    "kind": "github",
    "required": {"repository": "octo-org/octo-repo", "ref": ["refs/heads/main", "refs/tags/v*"], "environment": "prod"},
    "names": {
        "uri": ["https://github.com/{repository}", "spiffe://example.org/github/{repository_owner}/{repository_id}"],
        "common_name": "{repository}",
    },
}


async def test_a_workflow_of_github_is_vouched_for(rsa_issuer: TokenIssuer) -> None:
    found = await asked(rsa_issuer, GITHUB_TABLE, GITHUB)
    assert [str(one.value) for one in found.names] == [
        "https://github.com/octo-org%2Focto-repo",
        "spiffe://example.org/github/octo-org/74",
    ]
    assert found.common_name == "octo-org/octo-repo"


@pytest.mark.parametrize(
    "change",
    [
        {"repository": "octo-org/octo-repo-2"}, {"repository": "evil/octo-repo"}, {"ref": "refs/pull/1/merge"},
        {"environment": "test"}, {"environment": ""}, {"repository": "OCTO-ORG/octo-repo"},
    ],
)  # fmt: skip
async def test_a_workflow_that_is_not_ours_is_refused(change: dict[str, str], rsa_issuer: TokenIssuer) -> None:
    assert await refused(rsa_issuer, GITHUB_TABLE, {**GITHUB, **change}) == "claims"


SPIFFE = {"sub": "spiffe://example.org/ns/shop/sa/web", "aud": [AUDIENCE], "iat": None}
SPIFFE_TABLE = {"kind": "spiffe", "issuer": "spiffe://example.org"}


async def test_a_workload_with_a_jwt_svid_is_vouched_for(issuer: TokenIssuer) -> None:
    """Keys as a SPIFFE bundle has them: their use is jwt-svid, and those of the X.509 authorities stand beside."""
    x509_key = issuer.keys[0].jwk(use="x509-svid", kid=None)
    issuer.answer = json.dumps({"spiffe_sequence": 1, "keys": [x509_key, issuer.keys[0].jwk(use="jwt-svid")]}).encode()
    found = await asked(issuer, SPIFFE_TABLE, SPIFFE)
    assert found.names == (x509.UniformResourceIdentifier("spiffe://example.org/ns/shop/sa/web"),)
    assert found.subject == "spiffe://example.org/ns/shop/sa/web"


async def test_keys_of_x509_authorities_verify_no_jwt_svid(issuer: TokenIssuer) -> None:
    issuer.answer = json.dumps({"keys": [issuer.keys[0].jwk(use="x509-svid")]}).encode()
    assert await refused(issuer, SPIFFE_TABLE, SPIFFE) == "key"


@pytest.mark.parametrize(
    ("sub", "check"),
    [
        ("spiffe://evil.org/ns/shop/sa/web", "issuer"), ("spiffe://example.org.evil.org/a", "issuer"),
        ("spiffe://example.org", "subject"), ("spiffe://example.org/", "subject"), ("someone", "issuer"),
        ("spiffe://example.org/a/../b", "subject"), ("spiffe://EXAMPLE.org/a", "issuer"), (7, "issuer"),
        ("spiffe://example.org/a?b", "subject"), (["spiffe://example.org/a"], "issuer"),
    ],
)  # fmt: skip
async def test_a_jwt_svid_of_another_trust_domain_or_of_none_is_refused(
    sub: Any, check: str, issuer: TokenIssuer
) -> None:
    assert await refused(issuer, SPIFFE_TABLE, {**SPIFFE, "sub": sub}) == check


async def test_a_jwt_svid_with_an_issuer_is_held_to_it(issuer: TokenIssuer) -> None:
    table = {"kind": "spiffe", "issuer": "https://oidc.example.org", "required": {"sub": "spiffe://example.org/*"}}
    claims = {**SPIFFE, "iss": "https://oidc.example.org"}
    assert await asked(issuer, table, claims)
    assert await refused(issuer, table, SPIFFE) == "issuer"
    assert await refused(issuer, SPIFFE_TABLE, claims) == "issuer"
    assert await refused(issuer, table, {**claims, "sub": "spiffe://evil.org/a"}) == "claims"
    # without iss it is of its trust domain, and no other issuer's configuration takes it
    assert await refused(issuer, {**SPIFFE_TABLE, "issuer": "spiffe://a.org"}, {**claims, "iss": None}) == "issuer"
    sneaky = {**SPIFFE, "iss": "spiffe://example.org", "sub": "spiffe://evil.org/a"}
    assert await refused(issuer, SPIFFE_TABLE, sneaky) == "subject"

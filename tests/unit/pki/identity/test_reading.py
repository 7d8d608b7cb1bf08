"""[identity.NAME]: what is taken, what is refused, and in which words."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from hsmsign.model.errors import ConfigurationError
from hsmsign.model.hostwire import from_json, to_json
from hsmsign.pki.identity.issuers import IssuerRules, Kind, NameTemplates, check_url
from hsmsign.pki.identity.reading import read_issuers

EXAMPLE = """
[identity.gce]
kind = "gce"
audience = "https://ca.example.org/{key}"
required = { project_id = ["my-project"] }
names.dns = ["{instance_name}.{zone}.c.{project_id}.internal"]
names.uri = ["spiffe://example.org/gce/{project_id}/{instance_name}"]
once = true

[identity.cluster]
kind = "kubernetes"
issuer = "https://kubernetes.default.svc"
jwks_file = "keys/cluster.json"
audience = "ca"
algorithms = ["RS256"]
required."kubernetes.io".namespace = "shop"
required.service_account = ["web", "db-*"]
names.common_name = "{pod}"
max_age_seconds = 0

[identity.own]
kind = "oidc"
issuer = "https://login.example.org"
jwks_url = "https://login.example.org/keys"
jwks_ca = "/etc/ssl/own.pem"
audience = "ca"
claims = { host = '"https://example.org/claims".host' }
required = { '"https://example.org/claims".env' = ["prod"], realm = "a" }
names.dns = ["{host}.example.org"]
leeway_seconds = 5
once = false

[identity.mesh]
kind = "spiffe"
issuer = "spiffe://example.org"
jwks_url = "http://127.0.0.1:8081/keys"
audience = "ca"
"""
GCE: dict[str, Any] = {
    "kind": "gce",
    "audience": "ca",
    "required": {"project_id": ["p"]},
    "names": {"dns": ["{instance_name}.example.org"]},
}
OIDC: dict[str, Any] = {
    "kind": "oidc",
    "issuer": "https://a",
    "jwks_url": "https://a/keys",
    "audience": "ca",
    "names": {"dns": ["{sub}.example.org"]},
}


def refused(table: Any, name: str = "a") -> str:
    with pytest.raises(ConfigurationError) as error:
        read_issuers({name: table})
    return error.value.message


def test_an_example_becomes_values_that_cross_a_process_wall() -> None:
    found = read_issuers(tomllib.loads(EXAMPLE)["identity"], Path("/etc/hsmsign"))
    gce, cluster, own, mesh = found
    assert (gce.issuer, gce.jwks_url) == ("https://accounts.google.com", "https://www.googleapis.com/oauth2/v3/certs")
    assert gce.required == (("google.compute_engine.project_id", ("my-project",)),)
    assert gce.bound
    assert gce.algorithms == ("RS256", "ES256")
    assert (gce.max_age_seconds, gce.leeway_seconds, gce.once) == (3600, 60, True)
    assert cluster.required == (
        ('"kubernetes.io".namespace', ("shop",)),
        ('"kubernetes.io".serviceaccount.name', ("web", "db-*")),
    )
    assert cluster.jwks_file == Path("/etc/hsmsign/keys/cluster.json")
    assert cluster.max_age_seconds == 0
    assert own.required == (('"https://example.org/claims".env', ("prod",)), ("realm", ("a",)))
    assert dict(own.claims)["host"] == '"https://example.org/claims".host'
    assert own.jwks_ca == Path("/etc/ssl/own.pem")
    assert (own.leeway_seconds, own.once) == (5, False)
    assert mesh.kind is Kind.SPIFFE
    assert mesh.names == NameTemplates(uri=("{sub}",))
    assert from_json(tuple[IssuerRules, ...], json.loads(json.dumps(to_json(found)))) == found


def test_nothing_is_no_issuer() -> None:
    assert read_issuers({}) == ()


def test_another_issuer_than_the_known_one_has_other_keys() -> None:
    assert "jwks_url or jwks_file" in refused({**GCE, "issuer": "https://accounts.example.org"})
    table = {**GCE, "jwks_file": "keys/keys.json"}
    assert read_issuers({"a": table})[0].jwks_url == ""


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown key": ({"audeince": "a"}, "identity.a: unknown key 'audeince' (did you mean 'audience'?)"),
    "an unknown kind of name": ({"names": {"dsn": ["a"]}}, "unknown key 'names.dsn' (did you mean 'dns'?)"),
    "none": ({"algorithms": ["none"]}, "algorithms.0: tokens are signed with one of RS256"),
    "HS256": ({"algorithms": ["RS256", "HS256"]}, "algorithms.1: tokens are signed with one of RS256"),
    "no algorithm": ({"algorithms": []}, "identity.a.algorithms"),
    "no audience": ({"audience": ""}, "identity.a.audience"),
    "an audience with another field": ({"audience": "https://a/{sub}"}, "audience: 'https://a/{sub}' has {key}"),
    "an audience with two keys": ({"audience": "{key}{key}"}, "audience: '{key}{key}' has {key} in it once"),
    "http": ({"jwks_url": "http://a.example/keys"}, "jwks_url: keys are fetched by https"),
    "a file by URL": ({"jwks_url": "file:///etc/keys"}, "jwks_url: it is no URL"),
    "two places of keys": ({"jwks_file": "a"}, "jwks_url or jwks_file, one of them"),
    "no place of keys": ({"jwks_url": None}, "jwks_url or jwks_file, one of them"),
    "a CA for http": ({"jwks_url": "http://[::1]/k", "jwks_ca": "a"}, "jwks_ca: it is for a jwks_url with https"),
    "no issuer": ({"issuer": None}, "say whose tokens they are"),
    "no names": ({"names": None}, "it vouches for no name"),
    "empty names": ({"names": {}}, "it vouches for no name"),
    "an unknown field": ({"names": {"dns": ["{host}.a"]}}, "names.dns: '{host}.a': there is no field 'host'"),
    "no template": ({"names": {"dns": ["{sub!r}.a"]}}, "names.dns: '{sub!r}.a': '{sub!r}.a' is no template"),
    "a host name that cannot be": ({"names": {"dns": ["{sub}_.a"]}}, "one label of a host name"),
    "a wildcard": ({"names": {"dns": ["*.{sub}.a"]}}, "one label of a host name"),
    "a URI without scheme": ({"names": {"uri": ["example.org/{sub}"]}}, "a URI with a scheme and a host"),
    "a mail address without @": ({"names": {"email": ["{sub}.a"]}}, "a mail address"),
    "a long common name": ({"names": {"common_name": "a" * 65}}, "printable text of 1 to 64 characters"),
    "a common name in two lines": ({"names": {"common_name": "a\n{sub}"}}, "printable text of 1 to 64 characters"),
    "a path that is none": ({"claims": {"x": "a..b"}}, "claims.x: 'a..b' is no path"),
    "a field's name": ({"claims": {"X": "a"}}, "identity.a.claims.X"),
    "a required path that is none": ({"required": {"a..b": "x"}}, "required: 'a..b' is no path"),
    "a required number": ({"required": {"sub": 7}}, "required: sub is a text, or a list of texts"),
    "nothing required": ({"required": {"sub": []}}, "required: sub is a text, or a list of texts"),
    "a negative age": ({"max_age_seconds": -1}, "identity.a.max_age_seconds"),
    "a long leeway": ({"leeway_seconds": 301}, "identity.a.leeway_seconds"),
    "a kind": ({"kind": "aws"}, "identity.a.kind"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said(name: str) -> None:
    change, words = WRONG[name]
    assert words in refused({key: value for key, value in {**OIDC, **change}.items() if value is not None})


@pytest.mark.parametrize("name", ["", "A", "a:b", "-a", "a" * 64, "a b"])
def test_a_name_is_one_that_principals_can_hold(name: str) -> None:
    assert "its name has 1 to 63 of a-z 0-9 -" in refused(OIDC, name)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ConfigurationError) as error:
        read_issuers({"a": {**OIDC, "once": "maybe", "x": 1}, "b": {**GCE, "required": {}, "audience": "{"}, "c": 7})
    for words in ("identity.a.once", "identity.a: unknown key 'x'", "identity.b: everybody", "identity.b: audience",
                  "identity.c:"):  # fmt: skip
        assert words in error.value.message


@pytest.mark.parametrize(
    ("kind", "required", "good"),
    [
        ("gce", {}, False), ("gce", {"project_id": "*"}, False), ("gce", {"zone": "a"}, False),
        ("gce", {"project_id": ["a", "**"]}, False), ("gce", {"project_number": "1"}, True),
        ("gce", {"google": {"compute_engine": {"project_id": "a"}}}, True), ("gce", {"project_id": "a-*"}, True),
        ("github", {}, False), ("github", {"ref": "refs/heads/main"}, False), ("github", {"repository": "*"}, False),
        ("github", {"repository_owner": "me"}, True), ("github", {"sub": "repo:me/*"}, True),
    ],
)  # fmt: skip
def test_who_gets_tokens_of_a_public_issuer_has_to_be_said(kind: str, required: dict[str, Any], good: bool) -> None:
    table = {"kind": kind, "audience": "ca", "required": required, "names": {"common_name": "{sub}"}}
    if good:
        assert read_issuers({"a": table})
    else:
        assert "everybody gets tokens of this issuer" in refused(table)


@pytest.mark.parametrize(
    ("issuer", "required", "good"),
    [
        ("spiffe://example.org", {}, True), ("spiffe://example.org/", {}, False), ("spiffe://example.org/a", {}, False),
        ("spiffe://Example.org", {}, False), ("spiffe://", {}, False), ("https://a", {}, False),
        ("https://a", {"sub": "spiffe://example.org*"}, False), ("https://a", {"sub": "*"}, False),
        ("https://a", {"sub": ["spiffe://example.org/*"]}, True),
        ("https://a", {"sub": ["spiffe://example.org/*", "*"]}, False),
    ],
)  # fmt: skip
def test_a_trust_domain_has_to_be_said(issuer: str, required: dict[str, Any], good: bool) -> None:
    table = {"kind": "spiffe", "issuer": issuer, "jwks_url": "https://a", "audience": "ca", "required": required}
    if good:
        assert read_issuers({"a": table})
    else:
        assert "trust domain" in refused(table)


def test_two_issuers_differ_in_their_audience() -> None:
    with pytest.raises(ConfigurationError, match=r"identity\.b: it has the issuer and the audience of identity\.a"):
        read_issuers({"a": OIDC, "b": OIDC})
    assert len(read_issuers({"a": OIDC, "b": {**OIDC, "audience": "other"}})) == 2


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("https://a.example/keys?x=1", True), ("https://a:8443/", True), ("https://[2001:db8::1]/", True),
        ("http://localhost/", True), ("http://127.0.0.1:80/a", True), ("http://127.9.9.9/", True),
        ("http://[::1]:1/", True), ("http://10.0.0.1/", False), ("http://localhost.evil.org/", False),
        ("http://127.0.0.1.evil.org/", False), ("http://127.0.0.1@evil.org/", False), ("https://u:p@a/", False),
        ("https://a/#b", False), ("https:///a", False), ("https://a b/", False), ("https://a/\n", False),
        ("https://a:99999/", False), ("https://[::1/", False), ("ftp://a/", False), ("a", False), ("", False),
        ("https://b\u00fc/", False), ("HTTP://a/", False), ("HTTPS://a/", True),
    ],
)  # fmt: skip
def test_keys_are_fetched_by_https_or_from_this_machine(url: str, good: bool) -> None:
    if good:
        check_url(url)
    else:
        with pytest.raises(ValueError):
            check_url(url)


@pytest.mark.parametrize("file", ["keys.json", "./keys.json", "../keys.json", "keys/../keys.json"])
def test_keys_do_not_lie_beside_the_configuration(file: str) -> None:
    """Their folder is open to the worker, which must not see the PIN."""
    table = {**GCE, "issuer": "https://accounts.example.org", "jwks_file": file}
    assert "beside the configuration" in refused(table)

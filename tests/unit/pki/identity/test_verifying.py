"""Tokens: what makes a good one, and each way in which one is not, all else being well."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsmsign.model.errors import IdentityTokenError
from hsmsign.model.hostwire import from_json, to_json
from hsmsign.pki.identity.issuers import IssuerRules, Kind, NameTemplates
from hsmsign.pki.identity.verifying import Identities, Vouched
from tests.support.clock import Clock
from tests.support.token_issuer import AUDIENCE, SigningKey, TokenIssuer, b64, signed, spki

KEY, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
SPKI = spki(KEY)
DIGEST = base64.urlsafe_b64encode(hashlib.sha256(SPKI).digest()).decode().rstrip("=")
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


async def vouched(token: str, *rules: IssuerRules, **more: Any) -> Vouched:
    return await Identities(rules).verify(token, SPKI, **more)


async def refused(token: str, *rules: IssuerRules, **more: Any) -> str:
    """The check that it fails. The error has neither the token nor its signature in it."""
    with pytest.raises(IdentityTokenError) as caught:
        await vouched(token, *rules, **more)
    error = caught.value
    said = f"{error.message} {error.hint} {error.metadata}"
    assert token[-40:] not in said or len(token) < 40
    assert len(error.message) < 1000
    assert set(error.metadata) == {"issuer", "check"}
    return error.metadata["check"]


# --- good ones


async def test_a_good_token_vouches_for_the_names_of_its_templates(issuer: TokenIssuer) -> None:
    names = NameTemplates(dns=("{sub}.example.org",), uri=("spiffe://example.org/{sub}",), common_name="{sub}")
    found = await vouched(issuer.token(), issuer.rules(names=names))
    assert found.names == (
        x509.DNSName("someone.example.org"),
        x509.UniformResourceIdentifier("spiffe://example.org/someone"),
    )
    assert (found.issuer, found.subject, found.common_name) == ("platform", "someone", "someone")
    assert found.principal == "token:platform:someone"
    assert found.once
    assert not found.bound


@pytest.mark.parametrize(
    "algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
)
async def test_a_token_of_each_algorithm_that_is_configured_is_taken(algorithm: str) -> None:
    with TokenIssuer(algorithm) as issuer:
        assert await vouched(issuer.token(), issuer.rules(algorithms=(algorithm,)))
        others = ("ES384",) if algorithm == "ES256" else ("ES256",)
        assert await refused(issuer.token(), issuer.rules(algorithms=others)) == "algorithm"


async def test_rules_that_crossed_a_process_wall_verify_the_same(issuer: TokenIssuer) -> None:
    rules = issuer.rules(required=(("sub", ("some*", "other")),), jwks_url="", jwks_file=Path("/etc/jwks.json"))
    assert from_json(IssuerRules, json.loads(json.dumps(to_json(rules)))) == rules


async def test_a_token_is_good_where_it_names_us_among_others(issuer: TokenIssuer) -> None:
    assert await vouched(issuer.token(issuer.claims(["https://a", AUDIENCE])), issuer.rules())


async def test_a_token_for_the_hash_of_the_key_is_bound_to_it(issuer: TokenIssuer) -> None:
    rules = issuer.rules(audience=AUDIENCE + "/{key}")
    token = issuer.token(issuer.claims(f"{AUDIENCE}/{DIGEST}"))
    assert (await vouched(token, rules)).bound
    with pytest.raises(IdentityTokenError) as error:
        await Identities([rules]).verify(token, spki(OTHER))
    assert error.value.metadata == {"issuer": "platform", "check": "audience"}


async def test_a_token_without_kid_is_taken_where_one_key_fits(issuer: TokenIssuer) -> None:
    token = issuer.token(headers={"kid": None})
    issuer.keys.append(SigningKey.make("RS256"))
    assert await vouched(token, issuer.rules())
    issuer.keys.append(SigningKey.make("ES256"))
    assert await refused(token, issuer.rules()) == "key"


async def test_a_key_in_the_tokens_own_header_is_not_looked_at(issuer: TokenIssuer) -> None:
    stranger = SigningKey.make(kid=issuer.keys[0].kid)
    headers = {"jwk": stranger.jwk(), "jku": issuer.jwks_url}
    assert await refused(issuer.token(key=stranger, headers=headers), issuer.rules()) == "signature"


# --- each check, failed alone

HEADERS: dict[str, tuple[str, dict[str, Any]]] = {
    "another type": ("type", {"typ": "at+jwt"}),
    "a type that is no text": ("type", {"typ": 7}),
    "an extension": ("header", {"crit": ["exp"], "exp": 1}),
    "no base64": ("header", {"crit": ["b64"], "b64": True}),
    "b64 alone": ("header", {"b64": True}),
    "no algorithm": ("algorithm", {"alg": None}),
    "an algorithm that is no text": ("algorithm", {"alg": ["ES256"]}),
    "none": ("algorithm", {"alg": "none"}),
    "None": ("algorithm", {"alg": "None"}),
    "HS256": ("algorithm", {"alg": "HS256"}),
    "the algorithm of another kind of key": ("algorithm", {"alg": "RS256"}),
    "an unknown key": ("key", {"kid": "unknown"}),
    "the kid of nobody": ("key", {"kid": "../../etc/passwd"}),
    "a kid that is no text": ("header", {"kid": 7}),
}


@pytest.mark.parametrize("name", HEADERS)
async def test_a_token_with_a_header_that_is_not_right_is_refused(name: str, issuer: TokenIssuer) -> None:
    check, headers = HEADERS[name]
    assert await refused(issuer.token(headers=headers), issuer.rules()) == check


def _claims(**more: Any) -> Callable[[], dict[str, Any]]:
    def now() -> dict[str, Any]:
        began = int(time.time())
        return {name: began + value[0] if isinstance(value, tuple) else value for name, value in more.items()}

    return now


CLAIMS: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "no issuer": ("issuer", _claims(iss=None)),
    "another issuer": ("issuer", _claims(iss="https://evil.example")),
    "an issuer that is no text": ("issuer", _claims(iss=["http://127.0.0.1"])),
    "no audience": ("audience", _claims(aud=None)),
    "another audience": ("audience", _claims(aud="https://other.example.org")),
    "an audience that begins like ours": ("audience", _claims(aud=AUDIENCE + "/x")),
    "an audience in another case": ("audience", _claims(aud=AUDIENCE.upper())),
    "an audience that is a number": ("audience", _claims(aud=7)),
    "an audience that is an object": ("audience", _claims(aud={AUDIENCE: 1})),
    "audiences in audiences": ("audience", _claims(aud=[[AUDIENCE]])),
    "expired": ("expired", _claims(exp=(-61,), iat=(-900,))),
    "no expiry": ("expired", _claims(exp=None)),
    "an expiry that is text": ("claims", _claims(exp="9999999999")),
    "an expiry that is true": ("claims", _claims(exp=True)),
    "an expiry beyond all time": ("claims", _claims(exp=10**400)),
    "a negative expiry": ("claims", _claims(exp=-1)),
    "not yet good": ("not-before", _claims(nbf=(120,))),
    "a beginning that is a list": ("claims", _claims(nbf=[])),
    "of the future": ("issued-at", _claims(iat=(120,))),
    "too old": ("age", _claims(iat=(-3700,), exp=(9000,))),
    "of no age": ("age", _claims(iat=None)),
    "no subject": ("subject", _claims(sub=None)),
    "an empty subject": ("subject", _claims(sub="")),
    "a subject that is a number": ("subject", _claims(sub=7)),
    "a subject with a newline": ("subject", _claims(sub="a\nb")),
    "a subject with NUL": ("subject", _claims(sub="a\0b")),
    "a subject with half a character": ("subject", _claims(sub="a\ud800b")),
    "a huge subject": ("subject", _claims(sub="a" * 10_000)),
    "an id that is a number": ("claims", _claims(jti=7)),
    "a claim that is required is not there": ("claims", _claims(env=None)),
    "a claim that is required is another": ("claims", _claims(env="prod-")),
    "a claim that is required is an object": ("claims", _claims(env={"production": "production"})),
    "a name that is no label": ("names", _claims(sub="a.b")),
}


@pytest.mark.parametrize("name", CLAIMS)
async def test_a_token_with_claims_that_are_not_right_is_refused(name: str, issuer: TokenIssuer) -> None:
    check, change = CLAIMS[name]
    rules = issuer.rules(required=(("env", ("production", "stage-*")),))
    assert await vouched(issuer.token(issuer.claims(env="production")), rules)
    token = issuer.token(issuer.claims(**{"env": "production", **change()}))
    assert await refused(token, rules) == check


@pytest.mark.parametrize(
    ("value", "good"),
    [
        ("stage-1", True), ("stage", False), ("x-stage-1", False), (["a", "stage-2"], True), ([], False),
        ("STAGE-1", False), ("stage-" + "a" * 3000, False), (True, False), ("stage-\n", True),
    ],
)  # fmt: skip
async def test_a_star_is_any_text_of_a_required_claim(value: Any, good: bool, issuer: TokenIssuer) -> None:
    rules = issuer.rules(required=(("env", ("production", "stage-*")),))
    token = issuer.token(issuer.claims(env=value))
    assert bool(await vouched(token, rules)) if good else await refused(token, rules) == "claims"


async def test_truth_and_numbers_can_be_required(issuer: TokenIssuer) -> None:
    rules = issuer.rules(required=(("verified", ("true",)), ("project", ("12345",))))
    assert await vouched(issuer.token(issuer.claims(verified=True, project=12345)), rules)
    assert await refused(issuer.token(issuer.claims(verified=False, project=12345)), rules) == "claims"
    assert await refused(issuer.token(issuer.claims(verified=True, project=1234)), rules) == "claims"


def _tampered(token: str) -> str:
    header, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    return f"{header}.{b64(claims | {'sub': 'root'})}.{signature}"


FORMS: dict[str, tuple[str, Callable[[str], str]]] = {
    "huge": ("size", lambda token: token + "a" * 16_384),
    "nothing": ("form", lambda token: ""),
    "two parts": ("form", lambda token: token.rpartition(".")[0]),
    "four parts": ("form", lambda token: token + ".a"),
    "an empty signature": ("form", lambda token: token.rpartition(".")[0] + "."),
    "an empty payload": ("form", lambda token: "..".join(token.split(".")[::2])),
    "a newline at its end": ("form", lambda token: token + "\n"),
    "padding": ("form", lambda token: token + "=="),
    "plain base64": ("form", lambda token: "+" + token[1:]),
    "digits of another script": ("form", lambda token: "\u0661" + token[1:]),
    "JSON": ("form", lambda token: json.dumps({"payload": token})),
    "a part that is no base64": ("form", lambda token: "a" + token),
    "a signature cut short": ("signature", lambda token: token[:-6]),
    "another signature": ("signature", lambda token: token.rpartition(".")[0] + "." + b64(b"\1" * 64)),
    "other claims": ("signature", _tampered),
}


@pytest.mark.parametrize("name", FORMS)
async def test_what_is_no_token_or_was_changed_is_refused(name: str, issuer: TokenIssuer) -> None:
    check, change = FORMS[name]
    assert await refused(change(issuer.token()), issuer.rules()) == check


PAYLOADS = {
    "no JSON": b"{",
    "a list": b"[]",
    "text": b'"a"',
    "bytes": b"\xff\xfe",
    "UTF-16": json.dumps({"iss": "a"}).encode("utf-16"),
    "deep": b'{"a":' * 2000 + b"1" + b"}" * 2000,
    "a claim twice": b'{"sub":"a","sub":"b"}',
    "a claim twice, deep down": b'{"a":{"sub":"a","sub":"b"}}',
    "not a number": b'{"exp":NaN}',
    "a number of 5000 digits": b'{"exp":' + b"1" * 5000 + b"}",
}


@pytest.mark.parametrize("name", PAYLOADS)
async def test_claims_that_cannot_be_read_are_refused(name: str, issuer: TokenIssuer) -> None:
    key = issuer.keys[0]
    assert await refused(signed({"alg": "ES256", "kid": key.kid}, PAYLOADS[name], key), issuer.rules()) == "form"


@pytest.mark.parametrize("header", [b"{", b"[]", b"\xff", b'{"a":' * 2000 + b"1" + b"}" * 2000])
async def test_a_header_that_cannot_be_read_is_refused(header: bytes, issuer: TokenIssuer) -> None:
    assert await refused(signed(header, issuer.claims(), issuer.keys[0]), issuer.rules()) == "form"


# --- attacks


async def test_an_unsigned_token_is_refused(issuer: TokenIssuer) -> None:
    unsigned = jwt.encode(issuer.claims(), "", "none")
    assert await refused(unsigned, issuer.rules()) == "form"
    assert await refused(unsigned + "AA", issuer.rules()) == "algorithm"


async def test_the_public_key_is_no_secret_to_sign_with() -> None:
    with TokenIssuer("RS256") as issuer:
        public = issuer.keys[0].private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        text = f"{b64({'alg': 'HS256', 'kid': issuer.keys[0].kid})}.{b64(issuer.claims())}"
        signature = jwt.get_algorithm_by_name("HS256").sign(text.encode(), public)
        assert await refused(f"{text}.{b64(signature)}", issuer.rules()) == "algorithm"
        with pytest.raises(ValueError, match="RS256"):
            issuer.rules(algorithms=("HS256",))
        with pytest.raises(ValueError, match="RS256"):
            issuer.rules(algorithms=("RS256", "none"))


async def test_an_rsa_key_that_is_for_one_algorithm_takes_no_other() -> None:
    with TokenIssuer("RS256") as issuer:
        both = ("RS256", "PS256")
        key = issuer.keys[0]
        other = SigningKey(key.kid, "PS256", key.private)
        assert await vouched(issuer.token(key=other), issuer.rules(algorithms=both))
        issuer.answer = json.dumps({"keys": [key.jwk(alg="RS256")]}).encode()
        assert await refused(issuer.token(key=other), issuer.rules(algorithms=both)) == "algorithm"


async def test_a_key_of_one_issuer_is_none_of_another(issuer: TokenIssuer) -> None:
    with TokenIssuer() as other:
        identities = Identities([issuer.rules(), other.rules(name="other")])
        assert await identities.verify(issuer.token(), SPKI)
        assert await identities.verify(other.token(), SPKI)
        forged = issuer.token(issuer.claims(), key=other.keys[0])
        with pytest.raises(IdentityTokenError) as error:
            await identities.verify(forged, SPKI)
        assert error.value.metadata == {"issuer": "platform", "check": "key"}


async def test_only_issuers_that_are_allowed_vouch(issuer: TokenIssuer) -> None:
    assert await vouched(issuer.token(), issuer.rules(), allowed=["platform", "x"])
    assert await refused(issuer.token(), issuer.rules(), allowed=["x"]) == "issuer"


async def test_of_issuers_with_one_iss_the_audience_says_which(issuer: TokenIssuer) -> None:
    rules = [issuer.rules(name=name, audience=f"https://{name}") for name in ("a", "b")]
    assert (await vouched(issuer.token(issuer.claims("https://a")), *rules)).issuer == "a"
    assert (await vouched(issuer.token(issuer.claims("https://b")), *rules)).issuer == "b"
    assert await refused(issuer.token(issuer.claims("https://c")), *rules) == "audience"
    assert await refused(issuer.token(issuer.claims("https://b")), *rules, allowed=["a"]) == "audience"


async def test_a_token_for_two_of_our_audiences_vouches_by_the_one_whose_conditions_it_meets(
    issuer: TokenIssuer,
) -> None:
    strict = issuer.rules(name="a", audience="https://a", required=(("env", ("production",)),))
    loose = issuer.rules(name="b", audience="https://b")
    token = issuer.token(issuer.claims(["https://a", "https://b"]))
    assert (await vouched(token, strict, loose)).issuer == "b"
    assert (await vouched(token, loose, strict)).issuer == "b"
    assert await refused(token, strict) == "claims"


# --- fingerprints


async def test_a_token_has_one_fingerprint_however_it_is_written(issuer: TokenIssuer) -> None:
    token = issuer.token()
    first = await vouched(token, issuer.rules())
    text, _, signature = token.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    # ECDSA: who knows (r, s) knows (r, -s), which is as good
    again = raw[:32] + (P256_ORDER - int.from_bytes(raw[32:])).to_bytes(32)
    second = await vouched(f"{text}.{b64(again)}", issuer.rules())
    assert second.fingerprint == first.fingerprint
    assert first.fingerprint == hashlib.sha256(f"{issuer.url}\n{text}".encode()).hexdigest()
    for change in ("B", "C", "D"):
        # the last character has bits that stand for nothing
        if signature[-1] != change:
            assert await refused(token[:-1] + change, issuer.rules()) in ("form", "signature")


async def test_a_token_with_an_id_has_the_ids_fingerprint(issuer: TokenIssuer) -> None:
    first = await vouched(issuer.token(issuer.claims(jti="1")), issuer.rules())
    same = await vouched(issuer.token(issuer.claims(jti="1", more="x")), issuer.rules())
    other = await vouched(issuer.token(issuer.claims(jti="2")), issuer.rules())
    assert first.fingerprint == same.fingerprint != other.fingerprint
    assert first.fingerprint == hashlib.sha256(f"{issuer.url}\n1".encode()).hexdigest()
    empty = await vouched(issuer.token(issuer.claims(jti="")), issuer.rules())
    assert empty.fingerprint == (await vouched(issuer.token(issuer.claims(jti="")), issuer.rules())).fingerprint
    assert await vouched(issuer.token(issuer.claims(jti="\ud800")), issuer.rules())


# --- time


@pytest.mark.parametrize("change", [{}, {"exp": 5000.5}, {"iat": 1000.25, "exp": 99_999}])
async def test_a_token_is_refused_from_the_moment_its_fingerprint_can_be_forgotten(
    change: dict[str, Any], issuer: TokenIssuer
) -> None:
    clock = Clock()
    identities = Identities([issuer.rules()], clock)
    token = issuer.token(issuer.claims(**{"iat": 1000, "exp": 1600, **change}))
    expires = (await identities.verify(token, SPKI)).expires
    clock.now = expires - 1
    assert (await identities.verify(token, SPKI)).expires == expires
    clock.now = expires
    with pytest.raises(IdentityTokenError) as error:
        await identities.verify(token, SPKI)
    assert error.value.metadata["check"] in ("expired", "age")


async def test_clocks_may_differ_by_the_leeway(issuer: TokenIssuer) -> None:
    clock = Clock()
    identities = Identities([issuer.rules(leeway_seconds=10)], clock)
    ahead = issuer.token(issuer.claims(iat=1010, nbf=1010, exp=1600))
    assert await identities.verify(ahead, SPKI)
    clock.now = 999
    with pytest.raises(IdentityTokenError):
        await identities.verify(ahead, SPKI)


async def test_without_a_limit_a_token_is_good_as_long_as_it_says(issuer: TokenIssuer) -> None:
    token = issuer.token(issuer.claims(iat=None))
    assert await vouched(token, issuer.rules(max_age_seconds=0))
    old = issuer.token(issuer.claims(iat=1000))
    assert await vouched(old, issuer.rules(max_age_seconds=0))


async def test_whether_a_token_may_be_used_again_is_handed_on(issuer: TokenIssuer) -> None:
    assert not (await vouched(issuer.token(), issuer.rules(once=False))).once


def test_keys_come_from_one_place() -> None:
    for more in ({}, {"jwks_url": "https://a/b", "jwks_file": Path("/a")}, {"jwks_url": "http://a.example/b"}):
        with pytest.raises(ValueError):
            IssuerRules("a", Kind.OIDC, "https://a", "b", **more)

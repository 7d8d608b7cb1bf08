"""The keys of an issuer: kept, renewed, and what is done when they cannot be had."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from hsmsign.model.errors import IdentityTokenError, IdentityUnavailableError
from hsmsign.pki.identity import keysets
from hsmsign.pki.identity.issuers import Kind
from hsmsign.pki.identity.jwks import KeySource
from hsmsign.pki.identity.verifying import Identities
from tests.support.authority import Authority
from tests.support.clock import Clock
from tests.support.token_issuer import SigningKey, TokenIssuer, b64, spki

SPKI = spki(ec.generate_private_key(ec.SECP256R1()))


class Daemon:
    """One that trusts the issuer, and whose time passes when the test says so."""

    def __init__(self, issuer: TokenIssuer, **more: Any) -> None:
        self.issuer = issuer
        self.clock = Clock()
        self.identities = Identities([issuer.rules(**more)], monotonic=self.clock)

    async def check(self, token: str = "") -> str:
        """Nothing where the token is good, else the check or the reason."""
        try:
            await self.identities.verify(token or self.issuer.token(), SPKI)
        except IdentityTokenError as error:
            return error.metadata["check"]
        except IdentityUnavailableError as error:
            return error.reason
        return ""


async def test_keys_are_fetched_once_for_many_tokens(issuer: TokenIssuer) -> None:
    daemon = Daemon(issuer)
    assert issuer.fetched == 0
    issuer.hold.clear()
    callers = [asyncio.create_task(daemon.check()) for _ in range(20)]
    await asyncio.sleep(0.05)
    issuer.hold.set()
    assert await asyncio.gather(*callers) == [""] * 20
    assert await daemon.check() == ""
    assert issuer.fetched == 1


async def test_a_caller_that_goes_away_takes_no_keys_from_others(issuer: TokenIssuer) -> None:
    daemon = Daemon(issuer)
    issuer.hold.clear()
    first, second = asyncio.create_task(daemon.check()), asyncio.create_task(daemon.check())
    await asyncio.sleep(0.05)
    first.cancel()
    issuer.hold.set()
    assert await second == ""
    assert issuer.fetched == 1


async def test_keys_are_fetched_again_after_an_hour(issuer: TokenIssuer) -> None:
    daemon = Daemon(issuer)
    assert await daemon.check() == ""
    token = issuer.token()
    issuer.rotate(forget=True)
    daemon.clock.now += 3600
    assert await daemon.check(token) == ""
    daemon.clock.now += 1
    assert await daemon.check(token) == "key"
    assert issuer.fetched == 2


async def test_a_new_key_is_fetched_when_the_first_token_has_it(issuer: TokenIssuer) -> None:
    daemon = Daemon(issuer)
    assert await daemon.check() == ""
    old = issuer.token()
    daemon.clock.now += 30
    issuer.rotate()
    assert await daemon.check() == ""
    assert await daemon.check(old) == ""
    assert issuer.fetched == 2


async def test_a_new_key_is_found_for_tokens_that_name_none(issuer: TokenIssuer) -> None:
    daemon = Daemon(issuer)
    assert await daemon.check() == ""
    daemon.clock.now += 30
    issuer.rotate(forget=True)
    assert await daemon.check(issuer.token(headers={"kid": None})) == ""


async def test_unknown_keys_make_us_fetch_twice_a_minute_at_most(issuer: TokenIssuer) -> None:
    daemon = Daemon(issuer)
    for number in range(60):
        assert await daemon.check(issuer.token(headers={"kid": f"made-up-{number}"})) == "key"
        daemon.clock.now += 1
    assert issuer.fetched == 2
    for _ in range(5):
        assert await daemon.check(issuer.token(headers={"kid": None}, key=SigningKey.make())) == "signature"
    assert issuer.fetched == 3


async def test_a_wrong_signature_of_a_key_that_is_known_makes_us_fetch_nothing(issuer: TokenIssuer) -> None:
    daemon = Daemon(issuer)
    forged = issuer.token(key=SigningKey.make(kid=issuer.keys[0].kid))
    assert await daemon.check() == ""
    issuer.reachable = False
    daemon.clock.now += 60
    assert await daemon.check(forged) == "signature"
    assert daemon.identities.failures() == {}
    assert issuer.fetched == 1


async def test_tokens_for_others_make_us_fetch_nothing(issuer: TokenIssuer) -> None:
    daemon = Daemon(issuer)
    assert await daemon.check(issuer.token(issuer.claims("https://other"))) == "audience"
    assert await daemon.check(issuer.token(issuer.claims(iss="https://other"))) == "issuer"
    assert await daemon.check(issuer.token(headers={"alg": "HS256"})) == "algorithm"
    assert issuer.fetched == 0


async def test_those_who_come_while_a_new_key_is_fetched_wait_for_it(issuer: TokenIssuer) -> None:
    daemon = Daemon(issuer)
    assert await daemon.check() == ""
    daemon.clock.now += 30
    issuer.rotate()
    issuer.hold.clear()
    callers = [asyncio.create_task(daemon.check()) for _ in range(3)]
    await asyncio.sleep(0.05)
    issuer.hold.set()
    assert await asyncio.gather(*callers) == [""] * 3
    assert issuer.fetched == 2


async def test_kept_keys_are_used_for_a_day_where_the_issuer_is_unreachable(issuer: TokenIssuer) -> None:
    daemon = Daemon(issuer)
    assert await daemon.check() == ""
    issuer.reachable = False
    daemon.clock.now += 24 * 3600
    assert await daemon.check() == ""
    assert "refused" in daemon.identities.failures()["platform"]
    daemon.clock.now += 1
    assert await daemon.check() == "IDENTITY_UNAVAILABLE"
    issuer.reachable = True
    daemon.clock.now += 30
    assert await daemon.check() == ""
    assert daemon.identities.failures() == {}


async def test_without_kept_keys_an_unreachable_issuer_is_unavailable_until_it_is_back(issuer: TokenIssuer) -> None:
    daemon = Daemon(issuer)
    issuer.reachable = False
    with pytest.raises(IdentityUnavailableError) as error:
        await daemon.identities.verify(issuer.token(), SPKI)
    assert error.value.metadata == {"issuer": "platform"}
    assert error.value.retry_after == 5
    issuer.reachable = True
    # it is not asked at once again, whoever wants it
    assert await daemon.check() == "IDENTITY_UNAVAILABLE"
    assert issuer.fetched == 0
    daemon.clock.now += 5
    assert await daemon.check() == ""


async def test_whether_a_new_key_is_the_issuers_cannot_be_told_while_it_is_unreachable(issuer: TokenIssuer) -> None:
    daemon = Daemon(issuer)
    assert await daemon.check() == ""
    old = issuer.token()
    issuer.rotate()
    issuer.reachable = False
    daemon.clock.now += 30
    assert await daemon.check() == "IDENTITY_UNAVAILABLE"
    assert await daemon.check(old) == ""


async def test_an_issuer_that_does_not_answer_is_given_up(issuer: TokenIssuer) -> None:
    clock = Clock()
    source = KeySource(issuer.rules(), clock, seconds=0.1)
    issuer.hold.clear()
    with pytest.raises(IdentityUnavailableError, match=r"no answer within 0\.1 s|timed out"):
        await source.keys()
    issuer.hold.set()
    while source.failure:
        clock.now += 5
        await asyncio.sleep(0.05)
        try:
            assert len(await source.keys()) == 1
        except IdentityUnavailableError:
            # the one that was given up is still on its way
            continue


# --- what an issuer may answer


def _keys(*keys: Any) -> Callable[[TokenIssuer], bytes]:
    return lambda issuer: json.dumps({"keys": list(keys)}).encode()


ANSWERS: dict[str, Callable[[TokenIssuer], bytes]] = {
    "nothing": lambda issuer: b"",
    "no JSON": lambda issuer: b"<html>",
    "a list": lambda issuer: b"[]",
    "a number": lambda issuer: b"7",
    "no keys": lambda issuer: b"{}",
    "keys that are no list": lambda issuer: b'{"keys": {"a": 1}}',
    "bytes": lambda issuer: b"\xff\xfe\x00",
    "half a JWK Set": lambda issuer: issuer.jwks()[:-9],
    "deep": lambda issuer: b"[" * 100_000,
    "huge": lambda issuer: issuer.jwks() + b" " * (1 << 20),
    "many keys": lambda issuer: json.dumps({"keys": [issuer.keys[0].jwk()] * 300}).encode(),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_that_is_no_jwk_set_makes_nothing_good_and_nothing_bad(name: str, issuer: TokenIssuer) -> None:
    warm, cold = Daemon(issuer), Daemon(issuer)
    assert await warm.check() == ""
    issuer.answer = ANSWERS[name](issuer)
    warm.clock.now += 3601
    assert await warm.check() == ""
    assert await cold.check() == "IDENTITY_UNAVAILABLE"
    assert len(cold.identities.failures()["platform"]) < 400


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 404, 500])
async def test_a_redirect_or_an_error_is_not_followed(status: int, issuer: TokenIssuer) -> None:
    with TokenIssuer() as other:
        other.keys = issuer.keys
        issuer.status, issuer.headers = status, {"Location": other.jwks_url}
        daemon = Daemon(issuer)
        assert await daemon.check() == "IDENTITY_UNAVAILABLE"
        assert other.fetched == 0
        assert f"status {status}" in daemon.identities.failures()["platform"]


RSA, EC = SigningKey.make("RS256"), SigningKey.make("ES256")


def _private(key: SigningKey) -> dict[str, Any]:
    """The whole key, for all to see."""
    made: dict[str, Any] = jwt.get_algorithm_by_name(key.algorithm).to_jwk(key.private, as_dict=True)
    return made | {"kid": "k", "key_ops": ["verify"]}


UNUSABLE: dict[str, Any] = {
    "no object": 7,
    "empty": {},
    "symmetric": {"kty": "oct", "k": b64(b"secret" * 8), "kid": "k", "alg": "HS256"},
    "symmetric, said to be RSA": {"kty": "oct", "k": b64(b"secret" * 8), "kid": "k", "alg": "RS256"},
    "for encryption": EC.jwk(use="enc"),
    "a use that is a list": EC.jwk(use=["sig"]),
    "for other operations": EC.jwk(key_ops=["encrypt"]),
    "operations that are text": EC.jwk(key_ops="verify"),
    "another algorithm": RSA.jwk(alg="RSA-OAEP"),
    "a symmetric algorithm": RSA.jwk(alg="HS256"),
    "an algorithm that is a list": RSA.jwk(alg=["RS256"]),
    "a kid that is a number": EC.jwk(kid=7),
    "a kid without end": EC.jwk(kid="a" * 1000),
    "weak": SigningKey.make("RS256", bits=1024).jwk(),
    "exponent 1": RSA.jwk(e="AQ"),
    "no modulus": RSA.jwk(n=None),
    "an even modulus": RSA.jwk(n=b64(b"\xff" * 255 + b"\xfe"), e="Ag"),
    "a modulus without end": RSA.jwk(n=b64(b"\xff" * 2048)),
    "another curve": EC.jwk(crv="secp256k1"),
    "the curve of another key": EC.jwk(crv="P-384"),
    "not on its curve": EC.jwk(y=EC.jwk()["x"]),
    "no base64": EC.jwk(x="!!"),
    "X25519": {"kty": "OKP", "crv": "X25519", "x": b64(b"\1" * 32)},
    "Ed448": {"kty": "OKP", "crv": "Ed448", "x": b64(b"\1" * 57)},
    "a short Ed25519": {"kty": "OKP", "crv": "Ed25519", "x": b64(b"\1" * 31)},
    "its private part": _private(EC),
    "its private part, of RSA": _private(RSA),
    "its private part, of Ed25519": _private(SigningKey.make("EdDSA")),
    "a kind that is a list": EC.jwk(kty=["EC"]),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_key_that_cannot_be_used_is_left_out(name: str) -> None:
    good = EC.jwk(kid="good")
    data = json.dumps({"keys": [UNUSABLE[name], good]}).encode()
    assert [key.kid for key in keysets.parse(data, ("sig",))] == ["good"]


def test_a_key_that_does_not_say_what_it_is_for_is_taken() -> None:
    bare = {key: value for key, value in RSA.jwk(key_ops=["verify"]).items() if key not in ("use", "kid", "alg")}
    (key,) = keysets.parse(json.dumps({"keys": [bare]}).encode(), ("sig",))
    assert key.kid == ""
    assert key.algorithms == ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")


async def test_an_issuer_that_took_all_its_keys_back_has_none(issuer: TokenIssuer) -> None:
    daemon = Daemon(issuer)
    assert await daemon.check() == ""
    issuer.answer = b'{"keys": []}'
    daemon.clock.now += 3601
    assert await daemon.check() == "key"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries({}, optional={name: JSON | st.just(value) for name, value in (EC.jwk() | RSA.jwk()).items()})
)
def test_whatever_a_key_holds_it_is_taken_or_left_out(jwk: dict[str, Any]) -> None:
    for key in keysets.parse(json.dumps({"keys": [jwk]}).encode(), ("sig",)):
        assert key.algorithms


@given(st.binary())
def test_whatever_a_jwk_set_is_it_is_read_or_refused(data: bytes) -> None:
    try:
        keysets.parse(data, ("sig",))
    except ValueError:
        return


# --- https, and files


def _tls(folder: Path) -> tuple[ssl.SSLContext, Path]:
    authority = Authority()
    key, certificate = authority.issue(x509.IPAddress(ip_address("127.0.0.1")))
    (folder / "server.pem").write_bytes(key + certificate)
    (folder / "ca.pem").write_bytes(authority.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context, folder / "ca.pem"


async def test_an_issuer_is_known_by_the_ca_that_is_configured_and_by_no_other(tmp_path: Path) -> None:
    context, ca = _tls(tmp_path)
    other = tmp_path / "other.pem"
    other.write_bytes(Authority("other").pem)
    with TokenIssuer(tls=context) as issuer:
        assert await Daemon(issuer, jwks_ca=ca).check() == ""
        for wrong in (None, other, tmp_path / "none.pem", tmp_path / "server.pem"):
            daemon = Daemon(issuer, jwks_ca=wrong)
            assert await daemon.check() == "IDENTITY_UNAVAILABLE"
            assert daemon.identities.failures()


async def test_a_proxy_is_not_asked_for_this_machine(issuer: TokenIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert await Daemon(issuer).check() == ""


async def test_a_file_is_read_again_when_it_changes(issuer: TokenIssuer, tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    daemon = Daemon(issuer, jwks_url="", jwks_file=path)
    assert await daemon.check() == "IDENTITY_UNAVAILABLE"
    issuer.write(path)
    old = issuer.token()
    assert await daemon.check() == ""
    issuer.rotate(forget=True)
    assert await daemon.check() == "key"
    issuer.write(path)
    assert await daemon.check() == ""
    assert await daemon.check(old) == "key"
    assert issuer.fetched == 0


async def test_keys_of_a_file_that_went_away_or_is_half_written_are_kept_for_a_day(
    issuer: TokenIssuer, tmp_path: Path
) -> None:
    path = issuer.write(tmp_path / "jwks.json")
    daemon = Daemon(issuer, jwks_url="", jwks_file=path)
    assert await daemon.check() == ""
    path.write_bytes(issuer.jwks()[:40])
    daemon.clock.now += 3601
    assert await daemon.check() == ""
    assert "is not JSON" in daemon.identities.failures()["platform"]
    path.unlink()
    assert await daemon.check() == ""
    daemon.clock.now += 24 * 3600
    assert await daemon.check() == "IDENTITY_UNAVAILABLE"
    issuer.write(path)
    assert await daemon.check() == ""


async def test_a_file_that_stays_as_it_is_stays_good(issuer: TokenIssuer, tmp_path: Path) -> None:
    daemon = Daemon(issuer, jwks_url="", jwks_file=issuer.write(tmp_path / "jwks.json"))
    assert await daemon.check() == ""
    daemon.clock.now += 30 * 24 * 3600
    assert await daemon.check() == ""


@pytest.mark.parametrize("kind", ["folder", "huge", "device"])
async def test_a_file_that_is_none_is_refused(kind: str, issuer: TokenIssuer, tmp_path: Path) -> None:
    path = tmp_path
    if kind == "huge":
        path = tmp_path / "jwks.json"
        path.write_bytes(issuer.jwks() + b" " * (1 << 20))
    if kind == "device":
        path = Path("/dev/zero")
    daemon = Daemon(issuer, jwks_url="", jwks_file=path, kind=Kind.OIDC)
    assert await daemon.check() == "IDENTITY_UNAVAILABLE"

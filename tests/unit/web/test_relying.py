"""What strangers may ask of the port for relying parties, and how they are answered."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hsmsign.pki import chains
from hsmsign.pki.office import Office
from hsmsign.store import authorities
from hsmsign.web.relying import relying
from tests.support.authority import Authority
from tests.unit.pki.conftest import Desk
from tests.unit.web.conftest import Port, get, post, until_the_end

_OCSP = "application/ocsp-request"
_TEN = "9" * 10
_HUGE = "9" * 5_000


@pytest.fixture
def port(office: Office, desk: Desk) -> Iterator[Port]:
    asyncio.run(_published(office, desk))
    with Port(relying(office)) as running:
        yield running


async def _published(office: Office, desk: Desk) -> None:
    await desk.revoke(77)
    assert await office.publisher.publish(desk.version)


def status(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer[:80]
    return int(answer[9:12])


@pytest.mark.parametrize(
    "path", ["/crl/root/1.crl", "/crl/root/1/0.crl", "/ca/root.cer", "/ca/root/1.pem", "/ca/bundle.pem"]
)
def test_what_is_there_is_found(port: Port, path: str) -> None:
    assert status(port.send(get(path))) == 200


@pytest.mark.parametrize(
    "number", ["0", "2", "-1", "+1", "1_0", "%D9%A1", "1%0A", "1.5", "x", "999999999", _TEN, str(1 << 64), _HUGE]
)
@pytest.mark.usefixtures("quiet")
def test_a_number_that_nothing_has_is_not_found(port: Port, number: str) -> None:
    for path in ("/crl/root/{}.crl", "/crl/root/{}.delta.crl", "/ca/root/{}.cer", "/ca/root/{}.pem"):
        assert status(port.send(get(path.format(number)))) == 404, path
    for path in ("/crl/root/1/{}.crl", "/crl/root/1/{}.delta.crl") if number != "0" else ():
        assert status(port.send(get(path.format(number)))) == 404, path


@pytest.mark.parametrize(
    "id", ["nobody", "ROOT", "-", "a" * 5_000, "%00", "%0a", "%ff%fe", "root%252F1", "%f0%9f%92%a9", "..", "{id}"]
)
@pytest.mark.usefixtures("quiet")
def test_an_authority_that_is_none_is_not_found(port: Port, id: str) -> None:
    for path in (f"/ca/{id}.cer", f"/ca/{id}.pem", f"/crl/{id}/1.crl", f"/crl/{id}/1/0.delta.crl"):
        answer = port.send(get(path))
        assert status(answer) == 404, path
        assert len(answer) < 1_000


def test_a_shard_that_the_version_has_not_is_not_looked_for(
    port: Port, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looked(*_: object) -> None:
        pytest.fail("it was looked for")

    monkeypatch.setattr("hsmsign.store.crls.crl", looked)
    assert status(port.send(get("/crl/root/1/1.crl"))) == 404


def test_nobody_is_sent_to_where_the_host_header_says(port: Port) -> None:
    for path in ("/ca/root.cer/", "/ocsp", "/crl/root/1.crl/"):
        assert b"location" not in port.send(get(path).replace(b"Host: x", b"Host: evil.example"))


@pytest.mark.usefixtures("quiet")
def test_who_hangs_up_in_the_midst_of_a_question_leaves_no_traceback(port: Port) -> None:
    with port.call() as one:
        one.sendall(post("/ocsp", bytes(100), _OCSP)[:-50])
    assert status(port.send(get("/ca/root.cer"))) == 200
    assert port.faults == []


def test_a_crl_that_is_taken_away_while_it_is_read_ends_short(
    port: Port, office: Office, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found: Any = office.crl

    async def larger(*words: Any, **more: Any) -> Any:
        return dataclasses.replace(await found(*words, **more), size=1 << 20)

    monkeypatch.setattr(Office, "crl", lambda _, *words, **more: larger(*words, **more))
    answer = port.send(get("/crl/root/1.crl"))
    assert status(answer) == 200
    assert len(answer) < 4_096
    assert not any(one.exc_info for one in caplog.records)
    assert port.faults == []


# ---- whatever they send ----

_words = st.sampled_from(
    [
        "crl",
        "ca",
        "ocsp",
        "root",
        "1",
        "0",
        ".crl",
        ".delta.crl",
        ".cer",
        ".pem",
        "bundle.json",
        "bundle.pem",
        "/",
        "//",
        "..",
        "%2F",
        "%00",
        _TEN,
        _HUGE,
    ]
)
_texts = st.one_of(
    _words, st.text(max_size=20).map(lambda text: urllib.parse.quote(text.encode("utf-8", "surrogatepass")))
)
_numbers = st.one_of(_words, st.integers().map(str), st.integers(1, 5_000).map(lambda size: "7" * size))
_ends = st.sampled_from([".crl", ".delta.crl", ".cer", ".pem"])
_known = st.builds("/{}/{}{}".format, st.sampled_from(["ca", "ca/root", "crl/root", "crl/root/1"]), _numbers, _ends)
_free = st.lists(_texts, max_size=8).map(lambda parts: "/" + "".join(parts))
_paths = st.one_of(_known, _free)
_ders = st.one_of(st.binary(max_size=200), st.binary(max_size=60).map(lambda data: bytes([0x30, len(data)]) + data))
_plain = st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f")
_headers = st.lists(
    st.tuples(
        st.sampled_from(["If-None-Match", "Range", "Accept", "Host2", "Expect", "Upgrade"]),
        st.text(_plain, max_size=20),
    ),
    max_size=3,
).map(lambda found: [f"{name}: {value.strip()}" for name, value in found])
_often = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def encoded(path: str, headers: list[str], method: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *headers, "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1")


@pytest.mark.usefixtures("quiet")
def test_whatever_is_asked_for_is_answered_and_not_by_500(port: Port) -> None:
    @_often
    @given(_paths, _headers, st.sampled_from(["GET", "GET", "HEAD", "POST", "PUT", "OPTIONS"]))
    def ask(path: str, headers: list[str], method: str) -> None:
        assert status(port.send(encoded(path, headers, method))) in {200, 206, 304, 400, 404, 405, 415, 416}

    ask()
    assert port.faults == []


@pytest.mark.usefixtures("quiet")
def test_whatever_ocsp_is_asked_is_answered_and_not_by_500(port: Port) -> None:
    @_often
    @given(_ders, st.booleans())
    def ask(der: bytes, by_get: bool) -> None:
        path = "/ocsp/" + urllib.parse.quote(base64.b64encode(der).decode(), safe="")
        assert status(port.send(get(path) if by_get else post("/ocsp", der, _OCSP))) == 200

    ask()


@pytest.mark.usefixtures("quiet")
def test_whatever_bytes_come_leave_no_traceback(port: Port) -> None:
    chunked = get("/ocsp", f"Content-Type: {_OCSP}", "Transfer-Encoding: chunked").replace(b"GET", b"POST")
    pieces = b"2\r\n\x30\x00\r\n0\r\n\r\n"
    seeds = [get("/ca/root.cer"), post("/ocsp", b"\x30\x00", _OCSP), chunked + pieces]

    @_often
    @given(
        st.sampled_from(seeds), st.integers(0, 200), st.integers(0, 4), st.binary(max_size=12), st.binary(max_size=12)
    )
    def send(seed: bytes, at: int, gone: int, put: bytes, behind: bytes) -> None:
        with port.call() as one:
            one.sendall(seed[:at] + put + seed[at + gone :] + behind)
            one.shutdown(1)
            assert b" 500 " not in until_the_end(one)

    send()
    assert port.faults == []


# ---- the bundle ----


async def test_a_bundle_is_made_anew_when_something_changed_and_then_only(
    office: Office, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[x509.Certificate] = []
    kept = chains.self_signed

    def counting(one: x509.Certificate) -> bool:
        verified.append(one)
        return kept(one)

    monkeypatch.setattr(chains, "self_signed", counting)
    first = await office.trust.bundle()
    assert [one.subject.rfc4514_string() for one in first.roots] == ["CN=Root"]
    for _ in range(5):
        assert await office.trust.bundle() is first
    assert len(verified) == 1
    await _second_root(desk)
    second = await office.trust.bundle()
    assert (second.sequence, len(second.roots)) == (first.sequence + 1, 2)


async def _second_root(desk: Desk) -> None:
    der = x509.load_pem_x509_certificate(Authority("two").pem)
    content, key = der.public_bytes(Encoding.DER), "keys/root/versions/2"
    row = dataclasses.replace(desk.version.row, number=2, key_version=key, public_key=b"2", certificate=content)

    def work(connection: Any) -> None:
        authorities.add_version(connection, row)
        authorities.trust_changed(connection)

    await desk.store.write(work)


def test_a_bundle_says_the_same_as_pem_and_as_json(port: Port) -> None:
    page = json.loads(port.send(get("/ca/bundle.json")).partition(b"\r\n\r\n")[2])
    pem = port.send(get("/ca/bundle.pem")).partition(b"\r\n\r\n")[2]
    assert page["roots"] == pem.decode()
    assert x509.load_pem_x509_certificates(pem)

"""What strangers may send to the port where certificates are given out for tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hsmsign.audit.auditing import NoAudit
from hsmsign.audit.records import CallMade
from hsmsign.model.caller import Caller
from hsmsign.model.errors import AuditUnavailableError
from hsmsign.pki.office import Office
from hsmsign.web.enrolling import enrolling
from tests.support.pki import make_csr
from tests.unit.web.conftest import Port, get, post

GOOD = {
    "authority": "root",
    "profile": "server",
    "csr": make_csr("a.example.org").public_bytes(Encoding.PEM).decode(),
    "token": "eyJhbGciOiJFUzI1NiJ9.e30.AAAA",
}


class FullDisk(NoAudit):
    """Nothing can be recorded, as it turns out."""

    async def call(self, made: CallMade) -> None:
        raise AuditUnavailableError("the disk is full")


async def may(_: Caller, __: str) -> None:
    """Whoever it is."""


@pytest.fixture
def port(office: Office) -> Iterator[Port]:
    with Port(enrolling(office, NoAudit(), may)) as running:
        yield running


def read(answer: bytes) -> tuple[int, dict[str, Any]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/json" in head.lower(), answer[:200]
    return int(head[9:12]), json.loads(body)["error"]


def enroll(port: Port, body: object) -> tuple[int, dict[str, Any]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read(port.send(post("/enroll", data, "application/json")))


@pytest.mark.usefixtures("quiet")
def test_what_is_no_enrolment_at_all_is_refused_in_the_same_form(port: Port) -> None:
    asked = {
        (404, "PAGE_NOT_FOUND"): post("/other", b"{}", "application/json"),
        (405, "METHOD_NOT_ALLOWED"): get("/enroll"),
        (413, "REQUEST_TOO_LARGE"): post("/enroll", bytes(131_073), "application/json"),
        (400, "INVALID_ARGUMENT"): post("/enroll", b"[]", "application/json"),
    }
    for (status, reason), sent in asked.items():
        found, error = read(port.send(sent))
        assert (found, error["reason"]) == (status, reason)
        assert set(error) == {"reason", "message", "hint", "metadata", "request_id"}
        assert error["hint"]
    assert b"\r\nallow: POST\r\n" in port.send(asked[405, "METHOD_NOT_ALLOWED"])


@pytest.mark.parametrize(
    "body",
    [
        {**GOOD, "validity_seconds": 10**400},
        {**GOOD, "validity_seconds": -(10**4000)},
        {**GOOD, "validity_seconds": 1 << 62},
        {**GOOD, "validity_seconds": True},
        {**GOOD, "validity_seconds": 1.5},
        {**GOOD, "profile": "\ud800"},
        {**GOOD, "token": "\udfff.\ud800.a"},
        {**GOOD, "csr": "\ud800"},
        {**GOOD, "request_id": "\ud800" * 36},
        {**GOOD, "authority": "\ud800"},
        {**GOOD, "authority": "root/versions/1"},
        {**GOOD, "authority": "a" * 100_000},
        {**GOOD, "\ud800": ""},
        {**GOOD, "token": ""},
        {**GOOD, "csr": "\x00"},
        json.dumps(GOOD).encode("utf-16"),
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b'{"validity_seconds": ' + b"9" * 5000 + b"}",
        b'{"validity_seconds": NaN}',
        b"[" * 100_000,
    ],
)
@pytest.mark.usefixtures("quiet")
def test_a_request_that_cannot_be_meant_is_refused_in_words(port: Port, body: object) -> None:
    status, error = enroll(port, body)
    assert status == 400, error
    assert error["reason"] in {"INVALID_ARGUMENT", "NAME_INVALID", "CSR_INVALID"}
    assert len(error["message"]) < 300


@pytest.mark.usefixtures("quiet")
def test_who_hangs_up_in_the_midst_of_a_request_leaves_no_traceback(
    port: Port, capsys: pytest.CaptureFixture[str]
) -> None:
    with port.call() as one:
        one.sendall(post("/enroll", json.dumps(GOOD).encode(), "application/json")[:-50])
    assert enroll(port, {})[0] == 400
    assert port.faults == []
    assert "Traceback" not in capsys.readouterr().out


@pytest.mark.usefixtures("quiet")
def test_where_nothing_can_be_recorded_it_says_so(office: Office) -> None:
    with Port(enrolling(office, FullDisk(), may)) as port:
        assert enroll(port, b"[]")[0] == 503


# ---- whatever they send ----

_texts = st.one_of(
    st.text(st.characters(), max_size=30),
    st.sampled_from([*GOOD.values(), "\ud800", "cas/root", "a.b.c", "", "\x00", "eyJhbGciOiJub25lIn0.e30."]),
)
_numbers = st.one_of(st.integers(), st.integers(0, 4_000).map(lambda size: 10**size))
_values = st.one_of(_texts, _numbers, st.none(), st.booleans(), st.floats(), st.lists(_texts, max_size=2))
_bodies = st.one_of(
    st.dictionaries(st.one_of(st.sampled_from([*GOOD, "request_id", "validity_seconds"]), _texts), _values).map(
        lambda changed: json.dumps({**GOOD, **changed}).encode()
    ),
    st.fixed_dictionaries(dict.fromkeys(GOOD, _texts)).map(lambda value: json.dumps(value).encode()),
    st.recursive(_values, lambda inner: st.lists(inner, max_size=3)).map(lambda value: json.dumps(value).encode()),
    _numbers.map(lambda seconds: json.dumps({**GOOD, "validity_seconds": seconds}).encode()),
    st.binary(max_size=60),
)


@pytest.mark.usefixtures("quiet")
def test_whatever_is_asked_is_answered_in_json_and_not_by_500(port: Port) -> None:
    @settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(_bodies)
    def ask(body: bytes) -> None:
        status, error = enroll(port, body)
        assert status in {400, 401, 403, 404, 409}
        assert error["reason"] != "INTERNAL"

    ask()
    assert port.faults == []

"""Certificates over HTTPS for whoever has an identity token and, as yet, no certificate to call gRPC with.

    POST /enroll   {"authority": "issuing", "profile": "node", "csr": "-----BEGIN …", "token": "eyJ…"}
    200            {"certificate": "…PEM, and those above it", "serial": "…", "not_after": "2026-…Z"}
    4xx, 5xx       {"error": {"reason": "IDENTITY_TOKEN_INVALID", "message": …, "hint": …, "metadata": …}}

The caller is who the token says: `token:ISSUER:SUBJECT` of the policy. The rules are those of the gRPC call.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hsmsign.audit.auditing import Audit
from hsmsign.audit.records import OK, CallMade
from hsmsign.model import ca_names
from hsmsign.model.caller import Caller
from hsmsign.model.errors import AuditUnavailableError, HsmsignError, InvalidArgumentError
from hsmsign.pki.issuing import Issuing, Order, validity
from hsmsign.pki.office import Office
from hsmsign.store.pki_rows import CertificateRow
from hsmsign.web.strangers import for_strangers

CONNECTIONS = 256
_BODY_MAX = 128 << 10
_TEXTS = ("authority", "profile", "csr", "token", "request_id")
_STATUS = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "FAILED_PRECONDITION": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_REASONS = {404: "PAGE_NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 413: "REQUEST_TOO_LARGE"}
_BITS_MAX = 62
"""Of a number in a request."""
_SURROGATE = re.compile("[\ud800-\udfff]")
"""JSON can say half a character, and UTF-8 cannot."""
_PATIENCE = 30.0
"""Seconds for a certificate."""
_log = structlog.get_logger("hsmsign.web")
May = Callable[[Caller, str], Awaitable[None]]
"""Raises where a caller may not have an authority (its id) issue."""


def enrolling(office: Office, audit: Audit, may: May) -> Starlette:
    """The application."""
    desk = _Desk(office.issuing, audit, may)
    route = Route("/enroll", desk.enroll, methods=["POST"])
    return for_strangers([route], {HTTPException: _refused, HsmsignError: _unrecorded})


class _Desk:
    def __init__(self, issuing: Issuing, audit: Audit, may: May) -> None:
        self._issuing = issuing
        self._audit = audit
        self._may = may
        self._prefix = os.urandom(4).hex()
        self._numbers = itertools.count(1)

    async def enroll(self, request: Request) -> Response:
        """One certificate. It is recorded before it leaves, as is why there is none."""
        said = _Said(f"{self._prefix}-e{next(self._numbers):x}", _peer(request), time.perf_counter())
        try:
            self._audit.ready()
            order = _order(await _body(request))
            said.authority = f"cas/{order.authority}"
            issued = await self._issuing.enroll(order, self._allowed(said), time.monotonic() + _PATIENCE, said.id)
            await self._audit.call(said.record(OK))
            return JSONResponse(_told(issued.row, issued.version.sent_along))
        except HsmsignError as error:
            failure = error
        except (HTTPException, ClientDisconnect):
            raise
        except Exception:  # noqa: BLE001 - the last resort: it is logged, and the caller learns nothing of it
            _log.exception("an enrolment failed inside", request_id=said.id)
            failure = HsmsignError("something went wrong inside the daemon", hint="its log says what")
        if not isinstance(failure, AuditUnavailableError):
            await self._audit.call(said.record(failure.reason))
        _log.info("enroll", code=failure.code, reason=failure.reason, request_id=said.id, error=failure.message)
        return _failed(failure, said.id)

    def _allowed(self, said: _Said) -> Callable[[Caller, str], Awaitable[None]]:
        async def allowed(caller: Caller, authority: str) -> None:
            said.principal = caller.name
            await self._may(caller, authority)

        return allowed


class _Said:
    """What is known of a request."""

    def __init__(self, id: str, peer: str, started: float) -> None:
        self.id = id
        self.principal = self.authority = ""
        self._peer = peer
        self._started = started

    def record(self, outcome: str) -> CallMade:
        """What the audit log gets to know of it."""
        seconds = time.perf_counter() - self._started
        peer = "" if self.principal else self._peer
        return CallMade("Enroll", self.principal, self.id, self.authority, outcome, seconds, peer)


async def _body(request: Request) -> Mapping[str, Any]:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _BODY_MAX:
            raise HTTPException(413, f"a request has at most {_BODY_MAX} bytes")
    try:
        value = json.loads(body.decode())
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidArgumentError("the request is no JSON object", hint=f"with {', '.join(_TEXTS)}")
    return value


def _order(value: Mapping[str, Any]) -> Order:
    other = sorted(set(value) - {*_TEXTS, "validity_seconds"})
    if other:
        raise InvalidArgumentError(
            f"the request has an unknown field {str(other[0])[:40]!r}", metadata={"field": "body"}
        )
    texts = {name: value.get(name, "") for name in _TEXTS}
    seconds = value.get("validity_seconds", 0)
    if not all(isinstance(text, str) for text in texts.values()) or type(seconds) is not int:
        raise InvalidArgumentError("a field of the request is of another type than it should be")
    if any(map(_SURROGATE.search, texts.values())) or seconds.bit_length() > _BITS_MAX:
        raise InvalidArgumentError("a field of the request holds half a character, or a number beyond all bounds")
    if not texts["token"]:
        raise InvalidArgumentError(
            "the request has no identity token", hint="without one, call gRPC with a certificate"
        )
    return Order(
        authority=ca_names.authority_id(f"cas/{texts['authority'].removeprefix('cas/')}"),
        profile=texts["profile"],
        csr=texts["csr"].encode("utf-8", "replace"),
        token=texts["token"],
        request_id=texts["request_id"],
        validity=validity(float(seconds)),
    )


def _told(row: CertificateRow, above: str) -> dict[str, str]:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    pem = x509.load_der_x509_certificate(row.content).public_bytes(Encoding.PEM).decode()
    ends = dt.datetime.fromtimestamp(row.not_after, dt.UTC)
    return {"certificate": pem + above, "serial": row.serial, "not_after": ends.strftime("%Y-%m-%dT%H:%M:%SZ")}


def _failed(error: HsmsignError, request_id: str) -> Response:
    said = {"reason": error.reason, "message": error.message, "hint": error.hint, "metadata": error.metadata}
    headers = {} if error.retry_after is None else {"retry-after": str(max(1, round(error.retry_after)))}
    body = {"error": {**said, "request_id": request_id}}
    return JSONResponse(body, _STATUS.get(error.code, 500), headers=headers)


async def _refused(_: Request, error: Exception) -> Response:
    """What is no enrolment at all, in the same form."""
    found = cast(HTTPException, error)
    said = {"reason": _REASONS.get(found.status_code, "INVALID_ARGUMENT"), "message": found.detail}
    body = {"error": {**said, "hint": "POST JSON to /enroll", "metadata": {}, "request_id": ""}}
    return JSONResponse(body, found.status_code, headers=found.headers)


async def _unrecorded(_: Request, error: Exception) -> Response:
    """Why there is no certificate could not be recorded."""
    return _failed(cast(HsmsignError, error), "")


def _peer(request: Request) -> str:
    return f"{request.client.host}:{request.client.port}" if request.client is not None else ""

"""What relying parties look for, over plain HTTP: CRLs, OCSP, certificates of authorities.

All of it is the same for everybody, and signed but for the bundles: whoever stands between can keep it away, and swap a
bundle. Whoever takes roots from here compares them with what `hsmsign ca bundle` says over mutual TLS.

Media types are those of RFC 5280, section 4.2.2.1, RFC 2585 and RFC 6960; how long an answer may be kept is told as in
RFC 5019, section 6, and RFC 9111.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from email.utils import formatdate
from hashlib import sha256

import structlog
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from hsmsign.model.ca_names import AuthorityName
from hsmsign.model.errors import HsmsignError, NotFoundError, ResourceNameError
from hsmsign.pki.authority import Version
from hsmsign.pki.office import Office
from hsmsign.store.pki_rows import CrlRow
from hsmsign.web.strangers import for_strangers

CONNECTIONS = 1024
_CRL, _CERTIFICATE, _PEM = "application/pkix-crl", "application/pkix-cert", "application/x-pem-file"
_OCSP_REQUEST, _OCSP = "application/ocsp-request", "application/ocsp-response"
_OCSP_MAX = 4096
_HOUR = 3600
_NUMBER = re.compile("[0-9]{1,9}")
_log = structlog.get_logger("hsmsign.web")


def relying(office: Office) -> Starlette:
    """The application."""
    pages = Pages(office)
    return for_strangers(
        [
            Route("/ocsp", pages.ocsp_post, methods=["POST"]),
            Route("/ocsp/{request:path}", pages.ocsp_get),
            # numbers are read by the pages: a route's own would make one of thousands of digits
            Route("/crl/{id}/{number}.delta.crl", pages.delta),
            Route("/crl/{id}/{number}.crl", pages.crl),
            Route("/crl/{id}/{number}/{shard}.delta.crl", pages.delta),
            Route("/crl/{id}/{number}/{shard}.crl", pages.crl),
            Route("/ca/bundle.pem", pages.bundle_pem),
            Route("/ca/bundle.json", pages.bundle_json),
            Route("/ca/{id}.cer", pages.certificate),
            Route("/ca/{id}.pem", pages.chain),
            Route("/ca/{id}/{number}.cer", pages.certificate),
            Route("/ca/{id}/{number}.pem", pages.chain),
        ],
        {HsmsignError: _failed, NotFoundError: _missing, ResourceNameError: _missing},
    )


class Pages:
    """One method a page."""

    def __init__(self, office: Office) -> None:
        self._office = office

    async def ocsp_post(self, request: Request) -> Response:
        """RFC 6960, appendix A.1."""
        if request.headers.get("content-type", "").partition(";")[0].strip() != _OCSP_REQUEST:
            raise HTTPException(415, f"send {_OCSP_REQUEST}")
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > _OCSP_MAX:
                raise HTTPException(413, f"an OCSP request has at most {_OCSP_MAX} bytes")
        answer = await self._office.responding.answer(bytes(body))
        return Response(answer.der, media_type=_OCSP, headers=dict(answer.headers))

    async def ocsp_get(self, request: Request) -> Response:
        """The same by GET, which caches can keep."""
        answer = await self._office.responding.answer_path(_raw_path(request).removeprefix("/ocsp/"))
        return _kept(request, answer.der, _OCSP, answer.headers)

    async def crl(self, request: Request) -> Response:
        """The newest full one."""
        return await self._crl(request, delta=False)

    async def delta(self, request: Request) -> Response:
        """The newest delta."""
        return await self._crl(request, delta=True)

    async def certificate(self, request: Request) -> Response:
        """Of an authority, DER."""
        version = await self._version(request)
        der = version.certificate.public_bytes(Encoding.DER)
        return _kept(request, der, _CERTIFICATE, _for(_HOUR, der))

    async def chain(self, request: Request) -> Response:
        """Of an authority, and of those above it, PEM."""
        version = await self._version(request)
        pem = (version.pem() + version.row.chain).encode()
        return _kept(request, pem, _PEM, _for(_HOUR, pem))

    async def bundle_pem(self, request: Request) -> Response:
        """What to trust: the self-signed ones."""
        bundle = await self._office.trust.bundle()
        pem = bundle.roots_pem.encode()
        return _kept(request, pem, _PEM, {**_for(60, pem), "x-sequence": str(bundle.sequence)})

    async def bundle_json(self, request: Request) -> Response:
        """The same with what stands between, and the sequence number."""
        bundle = await self._office.trust.bundle()
        value = {
            "sequence": bundle.sequence,
            "roots": bundle.roots_pem,
            "intermediates": bundle.intermediates_pem,
        }
        body = bytes(JSONResponse(value).body)
        return _kept(request, body, "application/json", _for(60, body))

    async def _version(self, request: Request) -> Version:
        number = _number(request, "number") if "number" in request.path_params else None
        version = await self._office.directory.version(AuthorityName(request.path_params["id"], number))
        if version.maybe_certificate is None:
            raise HTTPException(404, "it has no certificate yet")
        return version

    async def _crl(self, request: Request, *, delta: bool) -> Response:
        version = await self._version(request)
        shard = _number(request, "shard") if "shard" in request.path_params else 0
        row = None
        if shard < version.row.shards:
            row = await self._office.crl(version.row.authority, version.row.number, shard, delta=delta)
        if row is None:
            raise HTTPException(404, "there is no such CRL")
        headers = _of_crl(row)
        if _has(request, headers["etag"]):
            return Response(status_code=304, headers=headers)
        headers["content-length"] = str(row.size)
        if request.method == "HEAD":
            return Response(media_type=_CRL, headers=headers)
        return _Streamed(self._office.writer.read(row), media_type=_CRL, headers=headers)


class _Streamed(StreamingResponse):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except HsmsignError as error:  # too late to say so: the connection ends before the answer does
            _log.info("a CRL was not sent to its end", error=error.message)


def _number(request: Request, name: str) -> int:
    text = request.path_params[name]
    if not _NUMBER.fullmatch(text):
        raise HTTPException(404)
    return int(text)


def _of_crl(row: CrlRow) -> dict[str, str]:
    left = max(0, row.next_update - int(time.time()))
    return {
        "etag": f'"{row.sha256}"',
        "last-modified": formatdate(row.this_update, usegmt=True),
        "expires": formatdate(row.next_update, usegmt=True),
        "cache-control": f"public, no-transform, max-age={min(left, _HOUR)}",
    }


def _for(seconds: int, body: bytes) -> dict[str, str]:
    return {
        "etag": f'"{sha256(body).hexdigest()}"',
        "cache-control": f"public, no-transform, max-age={seconds}",
    }


def _kept(request: Request, body: bytes, media_type: str, headers: Mapping[str, str]) -> Response:
    """The body, or that it is still what the asker has."""
    said = {name.lower(): value for name, value in headers.items()}
    if _has(request, said.get("etag", "")):
        return Response(status_code=304, headers=said)
    return Response(body, media_type=media_type, headers=said)


def _has(request: Request, etag: str) -> bool:
    """RFC 9110, section 13.1.2."""
    asked = request.headers.get("if-none-match", "")
    return bool(etag) and any(one.strip().removeprefix("W/") in (etag, "*") for one in asked.split(","))


def _raw_path(request: Request) -> str:
    """As it was sent: in base64 a %2F is another thing than a slash for those who stand between, not for us."""
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    return raw.decode("ascii", "replace").partition("?")[0]


async def _missing(_: Request, error: Exception) -> Response:
    return Response(f"{error}\n", 404, media_type="text/plain")


async def _failed(_: Request, error: Exception) -> Response:
    retry = getattr(error, "retry_after", None)
    headers = {"retry-after": str(max(1, int(retry)))} if retry is not None else {}
    bad = getattr(error, "code", "") == "INVALID_ARGUMENT"
    return Response(f"{error}\n", 400 if bad else 503, media_type="text/plain", headers=headers)

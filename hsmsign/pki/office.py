"""All parts of the certificate authority, for who serves it."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass

from hsmsign.model.errors import InvalidArgumentError
from hsmsign.pki.authority import Urls
from hsmsign.pki.catalogue import Catalogue
from hsmsign.pki.crl_writing import CrlWriter
from hsmsign.pki.directory import Directory
from hsmsign.pki.hierarchy import Hierarchy
from hsmsign.pki.issuing import Issuing
from hsmsign.pki.publishing import Publisher
from hsmsign.pki.queue import IssueQueue
from hsmsign.pki.responding import Responding
from hsmsign.pki.revoking import Revoking, unknown
from hsmsign.pki.trust import Trust
from hsmsign.store import Store, certificates, crls
from hsmsign.store.certificates import Wanted
from hsmsign.store.pki_rows import CertificateRow, CrlRow

PAGE_MAX, PAGE = 1000, 100


@dataclass(frozen=True, slots=True)
class Office:
    """The certificate authority of a daemon."""

    store: Store
    urls: Urls
    directory: Directory
    catalogue: Catalogue
    queue: IssueQueue
    issuing: Issuing
    hierarchy: Hierarchy
    revoking: Revoking
    writer: CrlWriter
    publisher: Publisher
    responding: Responding
    trust: Trust

    async def certificate(self, serial: str) -> CertificateRow:
        """One that was issued, or is being. Raises CertificateNotFoundError."""
        row = await self.store.read(lambda connection: certificates.certificate(connection, serial))
        if row is None:
            raise unknown(serial)
        return row

    async def certificates(
        self, wanted: Wanted, allowed: list[str], page_size: int, page_token: str
    ) -> tuple[list[CertificateRow], str]:
        """A page of those of `allowed` authorities (their ids), the newest first, and the token of the next page."""
        size = min(page_size or PAGE, PAGE_MAX)
        if size < 0:
            raise InvalidArgumentError("page_size is less than 0", metadata={"field": "page_size"})
        before = _read_token(page_token)
        rows = await self.store.read(lambda c: certificates.page(c, wanted, before, size + 1, allowed))
        token = _token(rows[size - 1]) if len(rows) > size else ""
        return rows[:size], token

    async def crls(self, authority: str, number: int) -> list[CrlRow]:
        """The newest CRLs of a version."""
        return await self.store.read(lambda connection: crls.crls_of(connection, authority, number))

    async def crl(self, authority: str, number: int, shard: int, *, delta: bool) -> CrlRow | None:
        """The newest one of a kind."""
        return await self.store.read(lambda connection: crls.crl(connection, authority, number, shard, delta=delta))


def _token(row: CertificateRow) -> str:
    return base64.urlsafe_b64encode(json.dumps([row.created, row.serial]).encode()).decode()


def _read_token(text: str) -> tuple[int, str] | None:
    if not text:
        return None
    try:
        created, serial = json.loads(base64.urlsafe_b64decode(text))
    except (ValueError, TypeError, binascii.Error, RecursionError):
        created = serial = None
    if not isinstance(created, int) or not isinstance(serial, str) or not 0 <= created < 1 << 62:
        raise InvalidArgumentError(
            "the page_token is none that was given here", hint="begin without one", metadata={"field": "page_token"}
        )
    return created, serial

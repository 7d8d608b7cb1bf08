"""A store with one authority, whose key signs in this process."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsmsign.model.algorithms import Scheme
from hsmsign.model.caller import Caller
from hsmsign.model.errors import HsmsignError
from hsmsign.pki import chains
from hsmsign.pki.authority import Urls, Version
from hsmsign.pki.certificates import assemble, ca_draft, to_be_signed
from hsmsign.pki.queue import Job
from hsmsign.store import Store, authorities, certificates
from hsmsign.store.pki_rows import (
    AuthorityRow,
    AuthorityState,
    AuthorityVersionRow,
    CertificateRow,
    CertificateState,
    SpentToken,
)

SCHEME = Scheme.ECDSA_P256_SHA256
DAY = dt.timedelta(days=1)


class KeySigner:
    """What the authority signs with: a key in this process. It waits at a gate, and fails, when it is told to."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self.key = key
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: HsmsignError | None = None
        self.largest = 1 << 20
        self.batches: list[int] = []

    async def sign(self, by: Caller, version: Version, parts: list[bytes], deadline: float = 0.0, request: str = ""):  # type: ignore[no-untyped-def]
        return await self.sign_with(by, "", version.scheme, parts)

    async def sign_with(self, by: Caller, key_version: str, scheme: Scheme, parts: list[bytes], *_: object):  # type: ignore[no-untyped-def]
        self.batches.append(len(parts))
        await self.gate.wait()
        if self.error is not None:
            return [self.error] * len(parts)
        return [self.key.sign(part, ec.ECDSA(hashes.SHA256())) for part in parts]

    def takes(self, size: int) -> bool:
        return size <= self.largest

    async def sign_digest(self, version: Version, digest: bytes) -> bytes:
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.key.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256())))


@dataclasses.dataclass
class Desk:
    """The authority, and how certificates of it come to be."""

    path: Path
    store: Store
    version: Version
    key: ec.EllipticCurvePrivateKey

    def signer(self) -> KeySigner:
        return KeySigner(self.key)

    def second(self) -> Store:
        """The store as another daemon has it."""
        return Store.open(f"sqlite:///{self.path}")

    def row(self, serial: int | None = None, **more: object) -> CertificateRow:
        """A certificate that waits to be signed."""
        number = serial or x509.random_serial_number()
        now = dt.datetime.now(dt.UTC).replace(microsecond=0)
        subject = x509.Name.from_rfc4514_string("CN=leaf")
        drawn = ca_draft(subject, self.key.public_key(), now=now, validity=DAY, path_length=0)
        begins = int(now.timestamp())
        row = CertificateRow(
            serial=f"{number:x}",
            authority="root",
            version=1,
            shard=0,
            state=CertificateState.PENDING,
            profile="p",
            requester="me",
            identity="",
            subject="",
            names=(),
            not_before=begins,
            not_after=begins + 86_400,
            public_key="",
            fingerprint=f"{number}",
            content=to_be_signed(drawn, self.version.issuer(Urls("")), number),
            created=time.time_ns() // 1000,
        )
        return dataclasses.replace(row, **more)

    def job(self, row: CertificateRow, token: str = "") -> Job:
        spent = SpentToken(token, row.serial, 1 << 40) if token else None
        return Job(Caller("me"), self.version, row, spent, 0.0, "")

    async def issued(self, serial: int, **more: object) -> CertificateRow:
        """A certificate that was issued."""
        row = dataclasses.replace(self.row(serial), state=CertificateState.ISSUED, **more)
        await self.store.write(lambda connection: certificates.add(connection, [row]))
        return row

    async def revoke(self, serial: int, *, ago: int = 0) -> None:
        """One that was revoked so many seconds ago."""
        at = int(time.time()) - ago
        await self.issued(serial, revoked=at, changed=at, reason="unspecified")

    async def known(self, serial: str) -> CertificateRow | None:
        return await self.store.read(lambda connection: certificates.certificate(connection, serial))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name.from_rfc4514_string("CN=Root")
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    drawn = ca_draft(name, key.public_key(), now=now, validity=100 * DAY, path_length=1)
    tbs = to_be_signed(drawn, chains.itself(drawn, SCHEME), 5)
    certificate = assemble(tbs, SCHEME, key.sign(tbs, ec.ECDSA(hashes.SHA256())))
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    row = AuthorityVersionRow(
        "root",
        1,
        AuthorityState.ACTIVE,
        "keys/root/versions/1",
        SCHEME.name,
        name.public_bytes(),
        spki,
        {"subject": "CN=Root"},
        0,
        certificate=certificate,
    )
    path = tmp_path / "store.db"
    store = Store.open(f"sqlite:///{path}")

    def work(connection) -> None:  # type: ignore[no-untyped-def]
        authorities.add(connection, AuthorityRow("root", 1, 0, 0))
        authorities.add_version(connection, row)

    store._transact(work, True)
    yield Desk(path, store, Version(row), key)
    store.close()

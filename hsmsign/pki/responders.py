"""Who signs OCSP answers: for each version of an authority a key on a device, with a certificate that it issues for it.

Both are made when they are first wanted, and the certificate again after half of its life.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import time
from dataclasses import dataclass
from typing import Literal

import structlog
from cryptography import x509
from sqlalchemy import Connection

from hsmsign.keyring import Keyring, ResolvedKey
from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.errors import FailedPreconditionError, HsmsignError, KeyNotFoundError
from hsmsign.model.purpose import Purpose, PurposeKind
from hsmsign.pki.authority import Version
from hsmsign.pki.catalogue import Catalogue
from hsmsign.pki.directory import Directory
from hsmsign.pki.drafting import draft
from hsmsign.pki.issuing import Issuing
from hsmsign.pki.ocsp_answers import Responder
from hsmsign.pki.own_requests import OwnKey
from hsmsign.pki.settings import OcspTimes
from hsmsign.pki.signer import ITSELF
from hsmsign.store import Store, authorities

PROFILE = "ocsp-responder"
_ID_MAX = 63
_SUFFIX = "-ocsp"
_PATIENCE = 30.0
"""Seconds until something that went wrong is tried again."""
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Delegate:
    """A key that signs answers, with its certificate."""

    key_version: str
    """keys/ID/versions/N"""
    responder: Responder


class Responders:
    """The delegates of all authorities. Belongs to one event loop."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        directory: Directory,
        issuing: Issuing,
        catalogue: Catalogue,
        times: OcspTimes,
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._directory = directory
        self._issuing = issuing
        self._catalogue = catalogue
        self._times = times
        self._by: Literal["name", "key"] = "name" if times.responder_id == "name" else "key"
        self._known: dict[str, tuple[bytes, Delegate]] = {}
        self._making: dict[str, asyncio.Task[Delegate]] = {}
        self._not_before: dict[str, float] = {}

    async def of(self, version: Version) -> Delegate:
        """Who signs for a version. Raises what making a key and issuing raise, where there is nobody yet."""
        there = self._there(version)
        if there is not None:
            if self._is_old(there.responder.certificate):
                self._begin(version)
            return there
        return await asyncio.shield(self._begin(version))

    def _there(self, version: Version) -> Delegate | None:
        der = version.row.responder
        if der is None:
            return None
        known = self._known.get(version.name)
        if known is None or known[0] != der:
            certificate = x509.load_der_x509_certificate(der)
            scheme = _kind(certificate).schemes[0]
            known = der, Delegate(version.row.responder_key, Responder(certificate, self._by, scheme))
            self._known[version.name] = known
        ends = known[1].responder.certificate.not_valid_after_utc.timestamp()
        return known[1] if ends > time.time() + self._times.lifetime else None

    def _is_old(self, certificate: x509.Certificate) -> bool:
        begins, ends = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
        return time.time() > begins + (ends - begins) / 2

    def _begin(self, version: Version) -> asyncio.Task[Delegate]:
        """Make a new certificate, once at a time."""
        task = self._making.get(version.name)
        if task is None or (task.done() and self._not_before.get(version.name, 0.0) <= time.monotonic()):
            self._not_before[version.name] = time.monotonic() + _PATIENCE
            task = asyncio.get_running_loop().create_task(self._make(version))
            task.add_done_callback(_heard)
            self._making[version.name] = task
        return task

    async def _make(self, version: Version) -> Delegate:
        key = await self._key(version)
        profile = self._catalogue.named(PROFILE)
        wanted = dt.timedelta(seconds=min(self._times.responder_lifetime, profile.validity.max))
        name = f"CN=OCSP {version.row.authority} {version.row.number}"
        own = OwnKey(key.public_key, name).request()
        now = dt.datetime.fromtimestamp(int(time.time()), dt.UTC)
        drawn = draft(own, profile, now=now, wanted=wanted)
        issued = await self._issuing.issue_own(ITSELF, version, drawn, PROFILE)
        der = issued.row.content

        def keep(connection: Connection) -> None:
            row = authorities.version(connection, version.row.authority, version.row.number)
            if row is not None:
                changed = dataclasses.replace(row, responder_key=key.name, responder=der)
                authorities.save_version(connection, changed)

        await self._store.write(keep, crossed=8)
        self._directory.changed()
        _log.info("an OCSP responder has a certificate", authority=version.name, key=key.name)
        return Delegate(key.name, Responder(x509.load_der_x509_certificate(der), self._by, key.algorithm.schemes[0]))

    async def _key(self, version: Version) -> ResolvedKey:
        id = version.row.authority[: _ID_MAX - len(_SUFFIX)].rstrip("._-") + _SUFFIX
        name = f"keys/{id}"
        try:
            key = await self._keyring.resolve(name)
        except KeyNotFoundError:
            await self._keyring.create(id, KeyAlgorithm.EC_P256, purpose=Purpose(PurposeKind.OCSP))
            key = await self._keyring.resolve(name)
        if key.purpose.kind is not PurposeKind.OCSP:
            raise FailedPreconditionError(
                f"{name} is for {key.purpose.kind.value!r}, and would sign the OCSP answers of {version.name}",
                hint="destroy it, or give it the purpose ocsp",
            )
        return key


def _kind(certificate: x509.Certificate) -> KeyAlgorithm:
    """Of the keys that `_key` makes or finds."""
    size = getattr(certificate.public_key(), "key_size", 0)
    kinds = {256: KeyAlgorithm.EC_P256, 384: KeyAlgorithm.EC_P384, 521: KeyAlgorithm.EC_P521}
    return kinds.get(size, KeyAlgorithm.ED25519)


def _heard(task: asyncio.Task[Delegate]) -> None:
    if not task.cancelled() and isinstance(error := task.exception(), HsmsignError):
        _log.warning("an OCSP responder has no new certificate", error=error.message, hint=error.hint)

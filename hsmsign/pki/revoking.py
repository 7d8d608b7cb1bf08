"""Revoking certificates. It is in the store when it is answered; CRLs and OCSP tell it soon after."""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
from collections.abc import Callable

from cryptography.x509 import ReasonFlags
from sqlalchemy import Connection

from hsmsign.model.caller import Caller
from hsmsign.model.errors import (
    AlreadyRevokedError,
    CertificateNotFoundError,
    FailedPreconditionError,
    InvalidArgumentError,
)
from hsmsign.store import Store, certificates
from hsmsign.store.pki_rows import CertificateRow, CertificateState

_OFFERED = (
    ReasonFlags.unspecified,
    ReasonFlags.key_compromise,
    ReasonFlags.ca_compromise,
    ReasonFlags.affiliation_changed,
    ReasonFlags.superseded,
    ReasonFlags.cessation_of_operation,
    ReasonFlags.privilege_withdrawn,
    ReasonFlags.aa_compromise,
)
REASONS = {one.value: one for one in _OFFERED}
"""By their names in RFC 5280, section 5.3.1. Not offered: certificateHold, from which there would be a way back."""


class Revoking:
    """Revokes certificates of one store."""

    def __init__(self, store: Store, revoked: Callable[[CertificateRow], None]) -> None:
        """`revoked` hears of each that is revoked here."""
        self._store = store
        self._revoked = revoked

    async def revoke(self, caller: Caller, serial: str, reason: str, invalidity: int | None = None) -> CertificateRow:
        """Revoke a certificate, from now on. The same again is no error; another reason is AlreadyRevokedError, but for
        keyCompromise, which is worse than all. `invalidity`: since when it is not to be trusted, seconds since 1970."""
        now = int(time.time())
        wanted = REASONS.get(reason or ReasonFlags.unspecified.value)
        if wanted is None:
            raise InvalidArgumentError(
                f"{reason[:40]!r} is no reason to revoke",
                hint=f"one of: {', '.join(REASONS)}",
                metadata={"field": "reason"},
            )
        if invalidity is not None and not 0 <= invalidity <= now:
            raise InvalidArgumentError(
                "the invalidity date lies in the future",
                hint="say since when it was bad",
                metadata={"field": "invalidity_time"},
            )

        def work(connection: Connection) -> CertificateRow:
            row = certificates.certificate(connection, serial)
            if row is None:
                raise unknown(serial)
            changed = _changed(row, caller, wanted, invalidity, now)
            if changed is not row:
                certificates.revoke(connection, changed)
            return changed

        row = await self._store.write(work, crossed=8)
        self._revoked(row)
        return row


def unknown(serial: str) -> CertificateNotFoundError:
    """The error for a serial number that was never issued."""
    return CertificateNotFoundError(
        f"no certificate with the serial number {serial} was issued here", hint="see what was: hsmsign cert list"
    )


def _changed(
    row: CertificateRow, caller: Caller, reason: ReasonFlags, invalidity: int | None, now: int
) -> CertificateRow:
    if row.state is not CertificateState.ISSUED:
        raise FailedPreconditionError(
            f"certificates/{row.serial} was never issued: it waits to be signed", hint="there is nothing to revoke"
        )
    if row.revoked is not None:
        if row.reason == reason.name and invalidity in (None, row.invalidity):
            return row
        if reason is not ReasonFlags.key_compromise or row.reason == reason.name:
            raise AlreadyRevokedError(
                f"certificates/{row.serial} is revoked since"
                f" {dt.datetime.fromtimestamp(row.revoked, dt.UTC):%Y-%m-%d %H:%M:%SZ}"
                f" ({ReasonFlags[row.reason or 'unspecified'].value})",
                hint="only keyCompromise can take the place of another reason",
            )
    return dataclasses.replace(
        row,
        revoked=now if row.revoked is None else row.revoked,
        reason=reason.name,
        invalidity=invalidity if invalidity is not None else row.invalidity,
        revoked_by=caller.name,
        changed=now,
    )

"""The trust bundle: which certificates relying parties trust, with a number that grows with every change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from functools import cached_property

from cryptography import x509

from hsmsign.pki import chains
from hsmsign.pki.authority import Version
from hsmsign.pki.directory import Directory
from hsmsign.store import Store, authorities

_LOOK_EVERY = 1.0
_Rows = tuple[tuple[bytes | None, str, str], ...]
"""What the certificates of a bundle are in: of each version its certificate, chain and crosses."""


@dataclass(frozen=True)
class Bundle:
    """What is trusted."""

    sequence: int
    roots: tuple[x509.Certificate, ...]
    intermediates: tuple[x509.Certificate, ...]

    @cached_property
    def roots_pem(self) -> str:
        """As a file has them."""
        return chains.pem(self.roots)

    @cached_property
    def intermediates_pem(self) -> str:
        """As a file has them."""
        return chains.pem(self.intermediates)


class Trust:
    """Tells what is trusted. Belongs to one event loop."""

    def __init__(self, store: Store, directory: Directory) -> None:
        self._store = store
        self._directory = directory
        self._kept: tuple[_Rows, Bundle] = ((), Bundle(0, (), ()))

    async def bundle(self) -> Bundle:
        """As it is now: every version's certificate, its chain and its cross-signed ones. Those that are self-signed
        are roots. The same object as before while nothing changed: strangers ask, and a root's signature takes time."""
        sequence = await self._store.read(authorities.trust_sequence)
        if sequence != self._kept[1].sequence:
            self._directory.changed()  # else what is new would have the number, and not be in it
        versions = await self._directory.versions()
        rows = tuple((one.row.certificate, one.row.chain, one.row.crosses) for one in versions)
        if (rows, sequence) != (self._kept[0], self._kept[1].sequence):
            self._kept = rows, _of(sequence, versions)
        return self._kept[1]

    async def watch(self, stop: asyncio.Event) -> AsyncIterator[Bundle]:
        """As it is now, and again after every change, until `stop` is set."""
        last = -1
        while not stop.is_set():
            sequence = await self._store.read(authorities.trust_sequence)
            if sequence != last:
                last = sequence
                self._directory.changed()
                yield await self.bundle()
            try:
                await asyncio.wait_for(stop.wait(), _LOOK_EVERY)
            except TimeoutError:
                continue


def _of(sequence: int, versions: Iterable[Version]) -> Bundle:
    found: list[x509.Certificate] = []
    for version in versions:
        found = chains.united(found, (version.certificate, *version.chain, *version.crosses))
    roots = tuple(one for one in found if chains.self_signed(one))
    return Bundle(sequence, roots, tuple(one for one in found if one not in roots))

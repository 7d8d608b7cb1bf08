"""The trust bundle: which certificates relying parties trust, with a number that grows with every change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from cryptography import x509

from hsmsign.pki import chains
from hsmsign.pki.directory import Directory
from hsmsign.store import Store, authorities

_LOOK_EVERY = 1.0


@dataclass(frozen=True, slots=True)
class Bundle:
    """What is trusted."""

    sequence: int
    roots: tuple[x509.Certificate, ...]
    intermediates: tuple[x509.Certificate, ...]

    @property
    def roots_pem(self) -> str:
        """As a file has them."""
        return chains.pem(self.roots)

    @property
    def intermediates_pem(self) -> str:
        """As a file has them."""
        return chains.pem(self.intermediates)


class Trust:
    """Tells what is trusted. Belongs to one event loop."""

    def __init__(self, store: Store, directory: Directory) -> None:
        self._store = store
        self._directory = directory

    async def bundle(self) -> Bundle:
        """As it is now: every version's certificate, its chain and its cross-signed ones. Those that are self-signed
        are roots."""
        sequence = await self._store.read(authorities.trust_sequence)
        found: list[x509.Certificate] = []
        for version in await self._directory.versions():
            found = chains.united(found, (version.certificate, *version.chain, *version.crosses))
        roots = tuple(one for one in found if chains.self_signed(one))
        return Bundle(sequence, roots, tuple(one for one in found if one not in roots))

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

"""The keyring: every question about key handles, and every change of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from sqlalchemy import Connection

from hsmsign.devices.base import Device
from hsmsign.keyring import (
    adopting,
    attesting,
    changing,
    checks,
    destroying,
    making,
    mending,
    paging,
    reading,
    replicas,
)
from hsmsign.keyring.attesting import Asked
from hsmsign.keyring.cache import ResolvedCache
from hsmsign.keyring.desk import Desk, load
from hsmsign.keyring.locks import KeyLocks
from hsmsign.keyring.values import AdoptedObject, Key, ResolvedKey
from hsmsign.ledger import Ledger
from hsmsign.model.algorithms import KeyAlgorithm
from hsmsign.model.attestation import Attestation
from hsmsign.model.caller import NOBODY, Caller
from hsmsign.model.dual_control import DualControl
from hsmsign.model.errors import InvalidArgumentError, KeyNotFoundError
from hsmsign.model.key_facts import KeyFacts
from hsmsign.model.names import KeyName, VersionName, parse, parse_key
from hsmsign.model.purpose import Purpose
from hsmsign.store import Store, VersionRow, VersionState, queries

T = TypeVar("T")


class Keyring:
    """Names of keys, and what they stand for. Belongs to one event loop.

    A change that was begun is finished, also where its caller goes away. Errors are those of
    `hsmsign.model.errors`; a name outside the grammar is ResourceNameError everywhere.
    """

    def __init__(
        self,
        store: Store,
        devices: Mapping[str, Device],
        default_backend: str,
        *,
        ledger: Ledger | None = None,
        locks: KeyLocks | None = None,
    ) -> None:
        """`ledger` and `locks` are those of all workers on one store; None: there are no others."""
        self._desk = Desk(store, devices, ResolvedCache(ledger=ledger), locks or KeyLocks())
        self.default_backend = default_backend
        """Where keys are made where nothing is said."""
        self._recovered: set[str] = set()
        self._loading: dict[tuple[str, int], asyncio.Task[ResolvedKey]] = {}
        self.cached = self._desk.cache.get
        """What a name stands for, where it was asked for before; None: ask `resolve`."""

    async def create(
        self,
        key_id: str,
        algorithm: KeyAlgorithm | None = None,
        *,
        backend: str = "",
        labels: Mapping[str, str] | None = None,
        request_id: str = "",
        adopt_uri: str = "",
        pcrs: str = "",
        purpose: Purpose | None = None,
        control: DualControl | None = None,
    ) -> Key:
        """Make a key pair and give it a name, or adopt the one that a `pkcs11:` or `tpm2:` URI points to.

        `pcrs` binds the key to platform registers of a TPM, `sha256:0,7`. Without a `purpose` it is for anything;
        without `control` nobody has to approve what is done with it.
        """
        id = KeyName(key_id).id
        if algorithm is None and not adopt_uri:
            words = ", ".join(one.value for one in KeyAlgorithm)
            raise InvalidArgumentError("a new key needs an algorithm", hint=f"one of: {words}")
        checked = checks.labels(labels or {})
        meant, control = (purpose or Purpose()).check(), (control or DualControl()).check()
        request = checks.request_id(request_id)
        if adopt_uri and pcrs:
            raise InvalidArgumentError("a key that is there already has its policy", hint="leave pcrs out to adopt it")
        said = (id, algorithm and algorithm.value, backend, checked, adopt_uri, pcrs, meant.plain(), control.plain())
        asked = checks.fingerprint("create", *said)
        chosen = backend or self.default_backend
        if adopt_uri:
            adoption = adopting.Adoption(id, request, asked, chosen, checked, meant, control, adopt_uri, algorithm)
            return await self._change(id, chosen, lambda: adopting.adopt(self._desk, adoption))
        assert algorithm is not None  # noqa: S101 - said above; for the type checker
        new = making.NewKey(id, request, asked, algorithm, chosen, checked, meant, control, pcrs)
        return await self._change(id, chosen, lambda: making.create(self._desk, new))

    async def rotate(self, name: str, *, request_id: str = "") -> Key:
        """Make a new version, which becomes the primary one."""
        id = parse_key(name).id
        request = checks.request_id(request_id)
        wanted = making.Wanted(id, request, checks.fingerprint("rotate", id))
        backend = (await self.get(name)).row.backend
        return await self._change(id, backend, lambda: making.rotate(self._desk, wanted))

    async def destroy(
        self,
        name: str,
        *,
        etag: str = "",
        adopted: AdoptedObject | None = None,
        validate_only: bool = False,
        by: Caller = NOBODY,
    ) -> Key:
        """Destroy a key (all its versions) or one version, on the device too. It cannot be undone.

        `by` asks for it, where others have to approve it."""
        parsed = parse(name)
        number = parsed.number if isinstance(parsed, VersionName) else None
        doom = destroying.Doom(_id(parsed), number, etag, adopted, by)
        work = destroying.destroy
        return await self._change(doom.id, "", lambda: work(self._desk, doom, validate_only=validate_only))

    async def add_replica(self, name: str, backend: str, uri: str = "") -> tuple[Key, VersionRow]:
        """Let a further token sign for a version (of a key's name: the primary one), which holds its key already; `uri`
        says which object it is where its CKA_ID is another. Answers with the key and the version."""
        wanted = await self._replica(name, backend, uri)
        return await self._change(wanted.version.key.id, "", lambda: replicas.add(self._desk, wanted))

    async def remove_replica(self, name: str, backend: str, by: Caller = NOBODY) -> tuple[Key, VersionRow]:
        """Let it no longer sign for that version. The object stays on its token. `by` asks for it, where others have to
        approve it."""
        wanted = await self._replica(name, backend, by=by)
        return await self._change(wanted.version.key.id, "", lambda: replicas.remove(self._desk, wanted))

    async def _replica(self, name: str, backend: str, uri: str = "", by: Caller = NOBODY) -> replicas.Replica:
        parsed = parse(name)
        version = parsed if isinstance(parsed, VersionName) else _version((await self.resolve(name)).name)
        return replicas.Replica(version, backend, uri, by)

    async def attest(self, name: str, asked: Asked) -> Attestation:
        """Say where a version lives, with what the device can prove of it."""
        return await attesting.attest(self._desk, await self.resolve(name), asked)

    async def update(
        self,
        name: str,
        *,
        labels: Mapping[str, str] | None = None,
        primary: str | None = None,
        purpose: Purpose | None = None,
        control: DualControl | None = None,
        etag: str = "",
        by: Caller = NOBODY,
    ) -> Key:
        """Replace all labels, choose the primary version, say what the key is for or who has to approve what is done
        with it, or several of these. `by` asks for it."""
        id = parse_key(name).id
        checked = None if labels is None else checks.labels(labels)
        meant = None if purpose is None else purpose.check()
        wanted = None if control is None else control.check()
        change = changing.KeyChange(id, checked, _number(id, primary), meant, wanted, etag, by)
        return await self._change(id, "", lambda: changing.change_key(self._desk, change))

    async def update_version(self, name: str, state: VersionState) -> tuple[Key, VersionRow]:
        """Enable or disable one version. Answers with its key and itself."""
        parsed = _version(name)
        return await self._change(_id(parsed), "", lambda: changing.change_state(self._desk, parsed, state))

    async def get(self, name: str) -> Key:
        """One key with all its versions."""
        id = parse_key(name).id
        return await self._desk.store.read(lambda connection: load(connection, id))

    async def facts(self, name: str) -> KeyFacts:
        """What a policy wants to know of the key that a name stands for; of one that is not there, its id."""
        parsed = parse(name)
        id = _id(parsed)
        try:
            return (await self.get(f"keys/{id}")).facts
        except KeyNotFoundError:
            return KeyFacts(id)

    async def list(
        self, *, page_size: int = 0, page_token: str = "", labels: Mapping[str, str] | None = None, backend: str = ""
    ) -> tuple[list[Key], str]:
        """A page of keys by name, each with its primary version, and the token of the next page."""
        size, wanted = paging.size(page_size), checks.labels(labels or {})
        after = paging.after(page_token, wanted, backend)

        def read(connection: Connection) -> list[Key]:
            rows = queries.page(connection, after, size + 1, wanted, backend)
            return [Key(row, () if primary is None else (primary,)) for row, primary in rows]

        keys = await self._desk.store.read(read)
        more = paging.token(keys[size - 1].row.id, wanted, backend) if len(keys) > size else ""
        return keys[:size], more

    async def resolve(self, name: str) -> ResolvedKey:
        """What a name stands for: a version, or a key's primary version, in whatever state."""
        known = self.cached(name)
        if known is not None:
            return known
        # With the generation: who asks after a change must not be told what was read before it.
        asked = (name, self._desk.cache.generation)
        task = self._loading.get(asked)
        if task is None:
            task = asyncio.get_running_loop().create_task(reading.resolve(self._desk, name))
            self._loading[asked] = task
            task.add_done_callback(lambda _: self._loading.pop(asked, None))
        return await asyncio.shield(task)

    async def public_key(self, name: str) -> ResolvedKey:
        """The version that a name stands for, with its public key."""
        return await self.resolve(name)

    async def recover(self, backend: str) -> int:
        """Finish or undo what was under way when a process or the device went away; called when the device
        becomes READY. Answers with how many versions that were. New keys wait for the first time."""
        mended = await self._desk.finish(mending.recover(self._desk, backend))
        self._recovered.add(backend)
        return mended

    async def close(self) -> None:
        """Wait for the changes that are under way. The store stays open."""
        while self._desk.tasks:
            await asyncio.wait(self._desk.tasks)

    async def _change(self, id: str, backend: str, work: Callable[[], Awaitable[T]]) -> T:
        """One change of a key at a time, done to its end; `backend` is the one that makes something."""
        return await self._desk.finish(self._in_turn(id, backend, work))

    async def _in_turn(self, id: str, backend: str, work: Callable[[], Awaitable[T]]) -> T:
        if backend and backend not in self._recovered:
            await mending.recover(self._desk, backend)
            self._recovered.add(backend)
        async with self._desk.locks.hold(id):
            return await work()


def _id(name: KeyName | VersionName) -> str:
    return name.key.id if isinstance(name, VersionName) else name.id


def _version(name: str) -> VersionName:
    parsed = parse(name)
    if isinstance(parsed, KeyName):
        raise InvalidArgumentError(f"{name!r} names a key where a version is wanted", hint=f"say {name}/versions/N")
    return parsed


def _number(id: str, primary: str | None) -> int | None:
    if primary is None:
        return None
    parsed = _version(primary)
    if parsed.key.id != id:
        raise InvalidArgumentError(f"{primary!r} is no version of keys/{id}", hint=f"say keys/{id}/versions/N")
    return parsed.number

"""The names that were asked for lately, resolved."""

from __future__ import annotations

from collections import OrderedDict

from hsmsign.keyring.values import ResolvedKey
from hsmsign.ledger import Bell, Ledger


class ResolvedCache:
    """The `size` names that were used last. Belongs to one event loop; what another worker of the ledger changes is not
    known here any more from the moment at which it says so."""

    def __init__(self, size: int = 100_000, ledger: Ledger | None = None) -> None:
        self._size = size
        self._ledger = ledger or Ledger.alone()
        self._rung = self._ledger.listener(Bell.KEYS)
        self._seen = self._rung()
        self._names: OrderedDict[str, ResolvedKey] = OrderedDict()
        self._of_key: dict[str, set[str]] = {}

    @property
    def generation(self) -> int:
        """Goes up with every `forget`, anybody's: what was read before that must not be put in after it."""
        return self._rung()

    def get(self, name: str) -> ResolvedKey | None:
        """What `name` stands for, if that is known."""
        if self._rung() != self._seen:
            self._forget_all()
        found = self._names.get(name)
        if found is not None:
            self._names.move_to_end(name)
        return found

    def put(self, name: str, key: ResolvedKey, generation: int) -> None:
        """Remember what was read when `generation` was the current one."""
        if generation != self.generation:
            return
        if generation != self._seen:
            self._forget_all()
        self._names[name] = key
        self._of_key.setdefault(key.facts.id, set()).add(name)
        if len(self._names) > self._size:
            self._drop(*self._names.popitem(last=False))

    def _drop(self, name: str, key: ResolvedKey) -> None:
        names = self._of_key[key.facts.id]
        names.discard(name)
        if not names:
            del self._of_key[key.facts.id]

    def forget(self, key: str) -> None:
        """A key changed: forget it and all its versions, and have others forget."""
        rung = self._ledger.ring(Bell.KEYS)
        if rung != self._seen + 1:
            self._forget_all()
            return
        self._seen = rung
        for name in self._of_key.pop(key, ()):
            self._names.pop(name, None)

    def _forget_all(self) -> None:
        """Others changed something, and only they know what. They seldom do."""
        self._rung = self._ledger.listener(Bell.KEYS)
        self._seen = self._rung()
        self._names.clear()
        self._of_key.clear()

    def __len__(self) -> int:
        return len(self._names)

"""The names that were asked for lately, resolved."""

from __future__ import annotations

from collections import OrderedDict

from hsmsign.keyring.values import ResolvedKey


class ResolvedCache:
    """The `size` names that were used last. Belongs to one event loop."""

    def __init__(self, size: int = 100_000) -> None:
        self._size = size
        self._names: OrderedDict[str, ResolvedKey] = OrderedDict()
        self._of_key: dict[str, set[str]] = {}
        self.generation = 0
        """Goes up with every `forget`: what was read before that must not be put in after it."""

    def get(self, name: str) -> ResolvedKey | None:
        """What `name` stands for, if that is known."""
        found = self._names.get(name)
        if found is not None:
            self._names.move_to_end(name)
        return found

    def put(self, name: str, key: ResolvedKey, generation: int) -> None:
        """Remember what was read when `generation` was the current one."""
        if generation != self.generation:
            return
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
        """A key changed: forget it and all its versions."""
        self.generation += 1
        for name in self._of_key.pop(key, ()):
            self._names.pop(name, None)

    def __len__(self) -> int:
        return len(self._names)
